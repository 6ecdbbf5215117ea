"""Receive offload of UDP: datagrams of one flow, one behind the other, become one large frame for the stack.

What a NIC's driver does with `napi_gro_receive`, done before the frames cross into the kernel: one write to
the tap and one way through the stack for up to 32 datagrams. The stack cuts them apart again in front of the
socket (virtio 1.2, 5.1.6.2: VIRTIO_NET_HDR_GSO_UDP_L4). Nothing is copied but the headers:

    head                                        buffers of the datagrams
    +-------------+----------+----+-----+       +---------+---------+-- ... --+-----------+
    | vnet header | Ethernet | IP | UDP |   +   | payload | payload |         | last, may |
    +-------------+----------+----+-----+       |  `size` |  `size` |         | be short  |
                                                +---------+---------+-- ... --+-----------+

Only datagrams whose checksums are known to be right are joined, because the stack is told so of the large
one. All lengths that are used come from the completion, none is read from the frame: a process that rewrote
its buffers meanwhile would garble its own datagrams and nothing else.
"""

from libc.errno cimport EINVAL, errno
from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memcmp, memcpy, memset

from cdna.abi cimport (
    MIN_FRAME, VNET_F_DATA_VALID, VNET_F_NEEDS_CSUM, VNET_GSO_NONE, VNET_GSO_UDP_L4, VNET_HEADER,
    vnet_header_t,
)
from cdna.nic.offload.checksum cimport fold, get_u16, put_checksum, put_u16, sum_bytes
from cdna.nic.offload.ip cimport (
    ETHERTYPE_IPV4, ETHERTYPE_IPV6, IPPROTO_UDP, IPV4_HEADER, IPV6_HEADER, UDP_CSUM_OFFSET, UDP_HEADER, ip_t,
    sum_pseudo_header,
)
from cdna.uio cimport iovec, writev

cdef enum:
    MAX_JOINED_DATAGRAMS = 32   # of one frame; the stack takes 64 at least
    MAX_JOINED_BYTES = 60000    # bytes of payload in one frame: with headers, below 65536
    HEAD_BYTES = 80             # virtio-net, Ethernet, IPv6 and UDP headers
    IPV4_MORE_OR_OFFSET = 0xBFFF        # of flags and fragment offset, all but "don't fragment"

cdef struct gro_t:
    uint32_t n                  # datagrams that were joined
    bint closed                 # the last one was shorter: no other may follow
    uint32_t network_len        # bytes of the IP header
    uint32_t size               # bytes of payload in each
    uint32_t total              # bytes of payload in all
    uint8_t *first              # the first frame, behind its virtio-net header
    uint32_t buffer[MAX_JOINED_DATAGRAMS]
    iovec part[MAX_JOINED_DATAGRAMS + 1]
    uint8_t head[HEAD_BYTES]


cdef inline uint32_t udp_payload(const uint8_t *buffer, uint32_t len, uint32_t *network_len) noexcept nogil:
    """Bytes of payload of a frame behind its virtio-net header that may be joined; 0: it may not."""
    cdef const vnet_header_t *vnet = <const vnet_header_t *>buffer
    cdef const uint8_t *ip = buffer + VNET_HEADER + MIN_FRAME
    cdef uint32_t ethertype, size
    if len < VNET_HEADER + MIN_FRAME + IPV4_HEADER + UDP_HEADER or vnet.gso_type != VNET_GSO_NONE or \
            not vnet.flags & (VNET_F_NEEDS_CSUM | VNET_F_DATA_VALID):
        return 0
    len -= VNET_HEADER + MIN_FRAME
    ethertype = get_u16(ip - 2)
    if ethertype == ETHERTYPE_IPV4:
        network_len[0] = IPV4_HEADER
        if ip[0] != 0x45 or ip[9] != IPPROTO_UDP or get_u16(ip + 6) & IPV4_MORE_OR_OFFSET or \
                get_u16(ip + 2) != len or fold(sum_bytes(ip, IPV4_HEADER)) != 0xFFFF:
            return 0
    elif ethertype == ETHERTYPE_IPV6:
        network_len[0] = IPV6_HEADER
        if len < IPV6_HEADER + UDP_HEADER or ip[0] >> 4 != 6 or ip[6] != IPPROTO_UDP or \
                get_u16(ip + 4) != len - IPV6_HEADER:
            return 0
    else:
        return 0
    if vnet.flags & VNET_F_NEEDS_CSUM and (         # of what a tunnel carries, not of this header
            vnet.csum_start != MIN_FRAME + network_len[0] or vnet.csum_offset != UDP_CSUM_OFFSET):
        return 0
    size = len - network_len[0]
    return size - UDP_HEADER if get_u16(ip + network_len[0] + 4) == size else 0


cdef inline bint same_flow(const uint8_t *one, const uint8_t *other, uint32_t network_len) noexcept nogil:
    """Whether two frames are alike in all that one frame of both can say once."""
    cdef const uint8_t *a = one + MIN_FRAME
    cdef const uint8_t *b = other + MIN_FRAME
    if memcmp(one, other, MIN_FRAME) or memcmp(a + network_len, b + network_len, 4):
        return False
    if network_len == IPV4_HEADER:      # all but length, identification and checksum
        return a[1] == b[1] and memcmp(a + 6, b + 6, 4) == 0 and memcmp(a + 12, b + 12, 8) == 0
    return memcmp(a, b, 4) == 0 and memcmp(a + 6, b + 6, 34) == 0


cdef inline bint gro_join(gro_t *gro, uint8_t *buffer, uint32_t len, uint32_t number) noexcept nogil:
    """Adds a received buffer to the frame under way, or begins one. False: neither, write that one first."""
    cdef uint32_t network_len = 0, size = udp_payload(buffer, len, &network_len)
    cdef uint8_t *frame = buffer + VNET_HEADER
    if size == 0:
        return False
    if gro.n == 0:
        gro.first = frame
        gro.network_len = network_len
        gro.size = size
        gro.total = 0
        gro.closed = False
    elif gro.closed or gro.n == MAX_JOINED_DATAGRAMS or size > gro.size or \
            size > MAX_JOINED_BYTES - gro.total or network_len != gro.network_len or \
            not same_flow(gro.first, frame, network_len):
        return False
    gro.closed = size < gro.size
    gro.total += size
    gro.buffer[gro.n] = number
    gro.n += 1
    gro.part[gro.n].iov_base = frame + MIN_FRAME + network_len + UDP_HEADER
    gro.part[gro.n].iov_len = size
    return True


cdef inline void gro_head(gro_t *gro) noexcept nogil:
    """Writes the headers of the large frame: the first one's, with other lengths and an open checksum."""
    cdef vnet_header_t *vnet = <vnet_header_t *>gro.head
    cdef uint8_t *frame = gro.head + VNET_HEADER
    cdef uint8_t *network = frame + MIN_FRAME
    cdef uint32_t length = UDP_HEADER + gro.total, start = MIN_FRAME + gro.network_len
    cdef uint16_t partial
    cdef ip_t ip
    memset(vnet, 0, VNET_HEADER)
    vnet.flags = VNET_F_NEEDS_CSUM
    vnet.gso_type = VNET_GSO_UDP_L4
    vnet.hdr_len = start + UDP_HEADER
    vnet.gso_size = gro.size
    vnet.csum_start = start
    vnet.csum_offset = UDP_CSUM_OFFSET
    vnet.num_buffers = 1
    memcpy(frame, gro.first, start + UDP_HEADER)
    if gro.network_len == IPV4_HEADER:
        put_u16(network + 2, IPV4_HEADER + length)
        put_u16(network + 10, 0)
        put_checksum(network + 10, sum_bytes(network, IPV4_HEADER), False)
    else:
        put_u16(network + 4, length)
    ip.network = MIN_FRAME
    ip.transport = start
    ip.version = 4 if gro.network_len == IPV4_HEADER else 6
    ip.protocol = IPPROTO_UDP
    put_u16(frame + start + 4, length)
    partial = fold(sum_pseudo_header(&ip, frame, length))
    memcpy(frame + start + UDP_CSUM_OFFSET, &partial, 2)
    gro.part[0].iov_base = gro.head
    gro.part[0].iov_len = VNET_HEADER + start + UDP_HEADER


cdef inline uint32_t gro_write_each(gro_t *gro, int fd) noexcept nogil:
    """Writes the datagrams one by one, as they came. Returns how many the tap did not take."""
    cdef uint32_t head = VNET_HEADER + MIN_FRAME + gro.network_len + UDP_HEADER, lost = 0, i
    cdef iovec whole
    for i in range(1, gro.n + 1):
        whole.iov_base = <uint8_t *>gro.part[i].iov_base - head
        whole.iov_len = gro.part[i].iov_len + head
        lost += writev(fd, &whole, 1) < 0
    return lost


cdef inline uint32_t gro_write(gro_t *gro, int fd, bint *joins) noexcept nogil:
    """Writes what was joined to a tap. Returns how many datagrams the tap did not take.

    joins: cleared where the kernel knows no joined datagrams (before Linux 6.2).
    """
    if gro.n > 1:
        gro_head(gro)
        if writev(fd, gro.part, gro.n + 1) >= 0:
            return 0
        if errno != EINVAL:
            return gro.n
        joins[0] = False
    return gro_write_each(gro, fd)
