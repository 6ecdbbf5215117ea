"""What virtio and vhost-user define, and this NIC uses: features, rings, headers (virtio 1.2).

Numbers and layouts are written down here alone; Python reads them from `cdna.virtio`. Words of a ring are
little-endian, also of a legacy driver's (2.4: it uses the machine's order, which is ours).

A descriptor of the split ring (2.7.5), 16 bytes, `next` counts within the table:

     0       8      12      14      16
    +-------+------+-------+-------+
    | addr  | len  | flags | next  |
    +-------+------+-------+-------+

The driver's area of the split ring, "avail" (2.7.6), and the device's, "used" (2.7.8); n is the ring's size:

     0       2     4             4 + 2n               0       2     4               4 + 8n
    +-------+-----+-------------+------------+       +-------+-----+---------------+-------------+
    | flags | idx | ring[n]     | used_event |       | flags | idx | {id, len}[n]  | avail_event |
    +-------+-----+-------------+------------+       +-------+-----+---------------+-------------+

A descriptor of the packed ring (2.8.13), where driver and device write in turn, 16 bytes:

     0       8      12   14      16
    +-------+------+----+-------+
    | addr  | len  | id | flags |
    +-------+------+----+-------+

The event suppression areas of the packed ring (2.8.14), one of each side, 4 bytes:

     0          2       4
    +----------+-------+
    | off_wrap | flags |         off_wrap: an offset in the ring, bit 15: the wrap counter
    +----------+-------+
"""

from libc.stdint cimport uint16_t, uint32_t, uint64_t

cpdef enum Feature:             # bit numbers (5.1.3, 6)
    VIRTIO_NET_F_CSUM = 0
    VIRTIO_NET_F_GUEST_CSUM = 1
    VIRTIO_NET_F_CTRL_GUEST_OFFLOADS = 2
    VIRTIO_NET_F_MTU = 3
    VIRTIO_NET_F_MAC = 5
    VIRTIO_NET_F_GUEST_TSO4 = 7
    VIRTIO_NET_F_GUEST_TSO6 = 8
    VIRTIO_NET_F_GUEST_ECN = 9
    VIRTIO_NET_F_GUEST_UFO = 10
    VIRTIO_NET_F_HOST_TSO4 = 11
    VIRTIO_NET_F_HOST_TSO6 = 12
    VIRTIO_NET_F_HOST_ECN = 13
    VIRTIO_NET_F_HOST_UFO = 14
    VIRTIO_NET_F_MRG_RXBUF = 15
    VIRTIO_NET_F_STATUS = 16
    VIRTIO_NET_F_CTRL_VQ = 17
    VIRTIO_NET_F_CTRL_RX = 18
    VIRTIO_NET_F_CTRL_VLAN = 19
    VIRTIO_NET_F_CTRL_RX_EXTRA = 20
    VIRTIO_NET_F_GUEST_ANNOUNCE = 21
    VIRTIO_NET_F_MQ = 22
    VIRTIO_NET_F_CTRL_MAC_ADDR = 23
    VIRTIO_F_NOTIFY_ON_EMPTY = 24
    VHOST_F_LOG_ALL = 26            # vhost's own: writes to guest memory are logged
    VIRTIO_F_ANY_LAYOUT = 27
    VIRTIO_F_INDIRECT_DESC = 28
    VIRTIO_F_EVENT_IDX = 29
    VHOST_USER_F_PROTOCOL_FEATURES = 30     # vhost-user's own
    VIRTIO_F_VERSION_1 = 32
    VIRTIO_F_ACCESS_PLATFORM = 33
    VIRTIO_F_RING_PACKED = 34
    VIRTIO_F_IN_ORDER = 35
    VIRTIO_F_ORDER_PLATFORM = 36
    VIRTIO_F_NOTIFICATION_DATA = 38
    VIRTIO_F_RING_RESET = 40
    VIRTIO_NET_F_GUEST_USO4 = 54
    VIRTIO_NET_F_GUEST_USO6 = 55
    VIRTIO_NET_F_HOST_USO = 56
    VIRTIO_NET_F_HASH_REPORT = 57
    VIRTIO_NET_F_RSS = 60
    VIRTIO_NET_F_SPEED_DUPLEX = 63

cpdef enum VringDescFlag:       # 2.7.5, 2.8.13
    VRING_DESC_F_NEXT = 1
    VRING_DESC_F_WRITE = 2
    VRING_DESC_F_INDIRECT = 4
    VRING_PACKED_DESC_F_AVAIL = 128
    VRING_PACKED_DESC_F_USED = 32768

cpdef enum VringFlag:
    VRING_AVAIL_F_NO_INTERRUPT = 1
    VRING_USED_F_NO_NOTIFY = 1

cpdef enum VringEvent:          # 2.8.14
    VRING_PACKED_EVENT_FLAG_ENABLE = 0
    VRING_PACKED_EVENT_FLAG_DISABLE = 1
    VRING_PACKED_EVENT_FLAG_DESC = 2

cpdef enum VirtioLimits:
    VIRTIO_MAX_PAIRS = 8
    VIRTIO_MAX_REGIONS = 64     # of a guest's memory table
    VIRTIO_MAX_RING = 32768
    VIRTIO_MAX_CHAIN = 256      # runs of memory in one buffer; Linux needs 19 for 64 KiB

cdef packed struct vring_desc_t:
    uint64_t addr
    uint32_t len
    uint16_t flags
    uint16_t next

cdef packed struct vring_avail_t:
    uint16_t flags
    uint16_t idx
    uint16_t ring[1]            # as many as the ring has descriptors, then used_event

cdef packed struct vring_used_elem_t:
    uint32_t id
    uint32_t len

cdef packed struct vring_used_t:
    uint16_t flags
    uint16_t idx
    vring_used_elem_t ring[1]   # as many as the ring has descriptors, then avail_event

cdef packed struct vring_packed_desc_t:
    uint64_t addr
    uint32_t len
    uint16_t id
    uint16_t flags

cdef packed struct vring_packed_event_t:
    uint16_t off_wrap
    uint16_t flags
