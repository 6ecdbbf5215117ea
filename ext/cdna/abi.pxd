"""What a guest and the NIC agree on: descriptors, completions, the context page, and every flag.

Each layout is defined here and nowhere else; Python reads formats, names and offsets from here
(`cdna.abi`). All fields are little-endian words of the host; rings are arrays of a power of two.

A descriptor, 16 bytes (one DMA address, one length, and the sequence number of section 3.3):

     0       8      10      12        16
    +--------+------+-------+---------+
    | addr   | len  | flags | seq     |
    +--------+------+-------+---------+

An offload descriptor (DESC_F_OFFLOAD, transmit only) has no buffer: it stands before the frame that it
is about, and `addr` carries four 16-bit fields, offsets from the start of the frame in bytes:

     0            2             4      6                8
    +------------+-------------+------+------+---------+
    | csum_start | csum_offset | mss  | kind | hdr_len |        mss = 0: checksum only
    +------------+-------------+------+------+---------+
                               bits:  15   14 13      0

The kind (OffloadKind) says what a frame with an mss is cut into. hdr_len ends behind the TCP or UDP header.
Of a datagram that is to be fragmented, csum_offset may be 0: its checksum is not the NIC's to complete.

A receive completion, 8 bytes, one for each receive descriptor used, in the same order:

     0     2       4      6          8
    +-----+-------+------+----------+
    | len | flags | vlan | reserved |
    +-----+-------+------+----------+

A frame of a context with `vnet_header` starts with a header of 12 bytes, both ways (virtio 1.2, 5.1.6). It
says what the sender left to do; another guest that takes such frames gets it so, with nothing done at all:

     0       1          2         4          6            8             10            12
    +-------+----------+---------+----------+------------+-------------+-------------+
    | flags | gso_type | hdr_len | gso_size | csum_start | csum_offset | num_buffers |
    +-------+----------+---------+----------+------------+-------------+-------------+

The context page, 4096 bytes, mapped into one guest. The guest writes the first 128 bytes, the NIC the
rest; the NIC never reads back what it wrote, so a guest that overwrites it deceives only itself:

      0  mailbox[0..23]   producer indices and settings, 32 bits each (section 4.1)
     96  doorbell         bit i: mailbox i was written since the NIC looked (second level)
    128  tx_consumer      descriptors transmitted, free-running
    192  rx_consumer      descriptors received into, free-running
    256  state, fault     ContextState and Fault
    264  link             1 while the wire is up
    512  plain shared memory
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    PAGE_SHIFT = 12
    PAGE_SIZE = 4096
    MAILBOXES = 24

cpdef enum Limits:
    MAX_CONTEXTS = 4096
    MIN_RING = 8
    MAX_RING = 32768
    MAX_FRAME = 9018        # 9000 bytes of payload behind an Ethernet header and a VLAN tag
    MIN_FRAME = 14          # an Ethernet header; padding is the wire's business
    MAX_TSO_FRAME = 65553   # the longest IP packet behind an Ethernet header and a VLAN tag
    VNET_HEADER = 12        # bytes of vnet_header_t
    MAX_FRAGMENTS = 32      # descriptors in one frame
    IO_PAGES_PER_SLOT = 4   # of a single-use I/O table, for each descriptor; buffers to 12 KiB anywhere

cpdef enum Mailbox:
    MAILBOX_TX_PRODUCER = 0
    MAILBOX_RX_PRODUCER = 1
    MAILBOX_INTERRUPT_ENABLE = 2    # 0: masked, 1: raise

cpdef enum DescFlag:
    DESC_F_EOP = 1          # last descriptor of a frame
    DESC_F_OFFLOAD = 2      # an offload descriptor; the frame follows

cpdef enum OffloadKind:         # the two top bits of `offload_t.hdr_len`
    OFFLOAD_TCP = 0                 # TCP segments, of mss bytes of payload each
    OFFLOAD_UDP_SEGMENTS = 0x4000   # UDP datagrams, of mss bytes of payload each
    OFFLOAD_UDP_FRAGMENTS = 0x8000  # IP fragments of one UDP datagram, of mss bytes behind IP headers each
    OFFLOAD_KIND = 0xC000           # these bits

cpdef enum CompletionFlag:
    COMPLETION_F_EOP = 1        # last buffer of a frame
    COMPLETION_F_CSUM_OK = 2    # the NIC computed or verified the transport checksum

cpdef enum VnetFlag:
    VNET_F_NEEDS_CSUM = 1       # the checksum at csum_start + csum_offset is yet to be completed
    VNET_F_DATA_VALID = 2       # the transport checksum was computed or verified by the NIC

cpdef enum VnetGso:
    VNET_GSO_NONE = 0
    VNET_GSO_TCPV4 = 1
    VNET_GSO_UDP = 3            # a datagram to be fragmented
    VNET_GSO_TCPV6 = 4
    VNET_GSO_UDP_L4 = 5         # several datagrams
    VNET_GSO_ECN = 0x80         # a flag: CWR is set

cpdef enum Takes:               # what a receiver does itself: `context_t.takes`, `wire_t.offloads`
    TAKES_CSUM = 1              # a transport checksum left open; the others need it
    TAKES_TSO4 = 2
    TAKES_TSO6 = 4
    TAKES_ECN = 8               # large TCP segments with CWR
    TAKES_UFO = 16              # a large UDP datagram, to be fragmented
    TAKES_USO4 = 32             # several UDP datagrams in one frame
    TAKES_USO6 = 64

cpdef enum Ring:
    RING_TX = 0             # guest to wire
    RING_RX = 1             # wire to guest
    RING_CONTROL = 2        # virtio: commands to the device

cpdef enum Protection:
    PROTECTION_VALIDATED = 0    # the VMM validates, pins, stamps and writes the ring (section 3.3)
    PROTECTION_IOMMU = 1        # the guest writes the ring; the NIC translates every address
    PROTECTION_NONE = 2         # the guest writes the ring; machine addresses are believed
    PROTECTION_TABLE = 3        # virtio's rings in the guest's own memory; its memory table is consulted

cpdef enum IommuStrategy:       # Willmann, Rixner, Cox, USENIX ATC 2008, section 3
    IOMMU_SINGLE_USE = 0
    IOMMU_SHARED = 1
    IOMMU_PERSISTENT = 2
    IOMMU_DIRECT_MAP = 3

cpdef enum ContextState:
    CONTEXT_FREE = 0
    CONTEXT_ASSIGNED = 1    # belongs to a guest, not yet started
    CONTEXT_RUNNING = 2
    CONTEXT_FAULTED = 3     # stopped by the NIC, with a reason

cpdef enum Fault:           # why the NIC stopped a context
    FAULT_NONE = 0
    FAULT_SEQUENCE = 1          # a descriptor's sequence number is not the next one
    FAULT_PRODUCER = 2          # a producer index that is not within the ring
    FAULT_LENGTH = 3            # a buffer or a frame of an impossible length
    FAULT_FLAGS = 4             # unknown descriptor flags
    FAULT_FRAGMENTS = 5         # a frame of too many descriptors
    FAULT_OFFLOAD = 6           # checksum or segmentation fields outside the frame
    FAULT_ADDRESS = 7           # a machine address outside memory
    FAULT_TRANSLATION = 8       # an I/O address that the IOMMU does not map
    FAULT_AVAIL = 9             # virtio: an available index that is not within the ring
    FAULT_CHAIN = 10            # virtio: a chain that loops, leaves its table, or is too long
    FAULT_INDIRECT = 11         # virtio: an indirect table that is none
    FAULT_DIRECTION = 12        # virtio: a buffer to be read where one to be written belongs, or the reverse
    FAULT_HEADER = 13           # virtio: a buffer too short for the virtio-net header
    FAULT_MEMORY = 14           # virtio: a guest address outside the memory table
    FAULT_MEMORY_GONE = 15      # virtio: a memory file that shrank while it was mapped

cpdef enum Refusal:         # why the VMM refused a hypercall; the values are negative, as errno's are
    REFUSED_CONTEXT = -1        # not a running context of this guest
    REFUSED_OWNER = -2          # a page that the guest does not own
    REFUSED_ADDRESS = -3        # outside machine memory
    REFUSED_LENGTH = -4         # an impossible length
    REFUSED_FLAGS = -5          # unknown descriptor flags
    REFUSED_RING_FULL = -6      # more descriptors than the ring has room for
    REFUSED_PINNED = -7         # a page with DMA outstanding
    REFUSED_MODE = -8           # not a hypercall of this protection mode
    REFUSED_MAPPED = -9         # an I/O page that is mapped already, or is not mapped

cdef packed struct desc_t:
    uint64_t addr
    uint16_t len
    uint16_t flags
    uint32_t seq

cdef packed struct offload_t:       # the `addr` of an offload descriptor
    uint16_t csum_start
    uint16_t csum_offset
    uint16_t mss
    uint16_t hdr_len            # and the OffloadKind

cdef packed struct vnet_header_t:
    uint8_t flags
    uint8_t gso_type
    uint16_t hdr_len
    uint16_t gso_size
    uint16_t csum_start
    uint16_t csum_offset
    uint16_t num_buffers

cdef packed struct completion_t:
    uint16_t len
    uint16_t flags
    uint16_t vlan
    uint16_t reserved

cdef packed struct context_page_t:
    uint32_t mailbox[24]
    uint32_t doorbell
    uint8_t _pad0[28]
    uint32_t tx_consumer
    uint8_t _pad1[60]
    uint32_t rx_consumer
    uint8_t _pad2[60]
    uint32_t state
    uint32_t fault
    uint32_t link
    uint8_t _pad3[244]
    uint8_t shared[3584]
