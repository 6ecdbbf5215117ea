"""Frames that travel with work left to do: a checksum to complete, a segment to cut (virtio 1.2, 5.1.6).

Within the NIC that work is an `offload_t`, whatever it came from: an offload descriptor, a virtio-net header
in front of a guest's frame, or the wire's. A receiver that takes such frames gets them so and the work is
never done; for everybody else the NIC does it (`transport_checksum.pxd`).
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memset

from cdna.abi cimport (
    COMPLETION_F_CSUM_OK, FAULT_NONE, FAULT_OFFLOAD, MAX_FRAME, MIN_FRAME, OFFLOAD_KIND, OFFLOAD_TCP,
    OFFLOAD_UDP_FRAGMENTS, OFFLOAD_UDP_SEGMENTS, TAKES_CSUM, TAKES_ECN, TAKES_TSO4, TAKES_TSO6, TAKES_UFO,
    TAKES_USO4, TAKES_USO6, VNET_F_DATA_VALID, VNET_F_NEEDS_CSUM, VNET_GSO_ECN, VNET_GSO_NONE,
    VNET_GSO_TCPV4, VNET_GSO_TCPV6, VNET_GSO_UDP, VNET_GSO_UDP_L4, VNET_HEADER, offload_t, vnet_header_t,
)
from cdna.checks cimport (
    CHECK_GSO_CSUM, CHECK_GSO_FAMILY, CHECK_GSO_SIZE, CHECK_GSO_START, CHECK_GSO_TCP, CHECK_GSO_TYPE,
    CHECK_MSS, CHECK_OFFLOAD_LONG, CHECK_SEGMENTS, broken,
)
from cdna.nic.context cimport VLAN_TRUNK, context_t
from cdna.nic.demux cimport MULTICAST_BIT, TAG_LENGTH, header_t
from cdna.nic.frame cimport piece_t
from cdna.nic.learn cimport find_receiver
from cdna.nic.offload.ip cimport (
    ETHERTYPE_IPV4, TCP_CWR, TCP_FLAGS, TCP_HEADER, UDP_HEADER, ip_t, network_offset, parse_ip,
)
from cdna.nic.offload.segmentation cimport MAX_HEADERS, segment_begin, segmentation_t
from cdna.nic.offload.transport_checksum cimport checksum_fault
from cdna.nic.state cimport nic_t

cdef enum:
    OFFLOAD_COPY = 256          # bytes of a frame that are copied before they are looked at
    MAX_TCP_HEADER = 60
    # Of one frame: a segment costs the NIC about as much as a frame does. The bound is not of the mss, which
    # the peer of a connection chooses: in Linux down to 8 bytes (net.ipv4.tcp_min_snd_mss, less TCP options).
    MAX_SEGMENTS = 1024
    MAX_UNCUT_DATAGRAMS = 64    # of one frame that is not cut; Linux takes no more (128 since 6.9)
    TAKES_NOT = 0x40000000      # a bit that no receiver has


cdef inline uint32_t offload_fault(const uint8_t *head, uint32_t len, const offload_t *o) noexcept nogil:
    """Whether what is to be done can be done to a frame of `len` bytes: FAULT_NONE or FAULT_OFFLOAD.

    head: the frame, or a copy of its first bytes, to the end of the headers that `o` tells of.
    """
    cdef segmentation_t segmentation
    if o.mss == 0:
        return FAULT_OFFLOAD if broken(CHECK_OFFLOAD_LONG, len > MAX_FRAME) else checksum_fault(head, len, o)
    if broken(CHECK_MSS, o.mss > MAX_FRAME) or segment_begin(&segmentation, head, len, o) or \
            broken(CHECK_SEGMENTS, segmentation.segments > MAX_SEGMENTS):
        return FAULT_OFFLOAD
    return FAULT_NONE


cdef inline bint beyond_copy(const vnet_header_t *vnet, uint32_t len) noexcept nogil:
    """Whether a large frame's headers may be longer than OFFLOAD_COPY, so that they are not copied alone."""
    return vnet.gso_type != VNET_GSO_NONE and len > OFFLOAD_COPY and \
        vnet.csum_start > OFFLOAD_COPY - MAX_TCP_HEADER


cdef inline uint32_t read_gso(const vnet_header_t *vnet, const uint8_t *head, uint32_t seen, uint32_t len,
                              offload_t *o) noexcept nogil:
    """The headers of a large frame: sets mss and hdr_len. Returns FAULT_NONE or FAULT_OFFLOAD."""
    cdef uint32_t gso = vnet.gso_type & ~<uint32_t>VNET_GSO_ECN, kind = OFFLOAD_UDP_FRAGMENTS, ethertype = 0
    cdef uint32_t hdr_len, repeated
    cdef ip_t ip
    if seen > MAX_HEADERS:
        seen = MAX_HEADERS
    if not vnet.flags & VNET_F_NEEDS_CSUM:  # Linux, for a socket that sends no checksum (SO_NO_CHECK)
        if broken(CHECK_GSO_CSUM, gso != VNET_GSO_UDP) or not parse_ip(&ip, head, seen):
            return FAULT_OFFLOAD
        o.csum_start = <uint16_t>ip.transport
        o.csum_offset = 0
    hdr_len = o.csum_start + <uint32_t>UDP_HEADER
    if gso == VNET_GSO_TCPV4 or gso == VNET_GSO_TCPV6:
        kind = OFFLOAD_TCP
        network_offset(head, seen, &ethertype)
        if broken(CHECK_GSO_TCP, o.csum_start + <uint32_t>TCP_HEADER > seen) or broken(
                CHECK_GSO_FAMILY,
                gso != (VNET_GSO_TCPV4 if ethertype == ETHERTYPE_IPV4 else VNET_GSO_TCPV6)):
            return FAULT_OFFLOAD
        hdr_len = o.csum_start + <uint32_t>(head[o.csum_start + 12] >> 4) * 4
    elif gso == VNET_GSO_UDP_L4:
        kind = OFFLOAD_UDP_SEGMENTS
    elif broken(CHECK_GSO_TYPE, gso != VNET_GSO_UDP):
        return FAULT_OFFLOAD
    if broken(CHECK_GSO_SIZE, vnet.gso_size == 0) or broken(CHECK_GSO_START, o.csum_start > seen):
        return FAULT_OFFLOAD
    repeated = o.csum_start if kind == OFFLOAD_UDP_FRAGMENTS else hdr_len
    if len > repeated + vnet.gso_size:      # otherwise it is no longer than a segment of it
        o.mss = vnet.gso_size
        o.hdr_len = <uint16_t>(hdr_len | kind)
    return FAULT_NONE


cdef inline uint32_t read_vnet(const vnet_header_t *vnet, const uint8_t *head, uint32_t seen, uint32_t len,
                               offload_t *o, bint *wanted) noexcept nogil:
    """The work that a header asks for, checked. `wanted`: there is some. Returns FAULT_NONE or FAULT_OFFLOAD.

    head: the first `seen` bytes of the frame: all `len`, or OFFLOAD_COPY where not `beyond_copy`.
    The header's hdr_len is a hint that may be anything (5.1.6.2.1): the TCP header itself says where it ends.
    A frame no longer than one of its segments is taken for what it is, as Linux does.
    """
    wanted[0] = vnet.flags & VNET_F_NEEDS_CSUM or vnet.gso_type & ~<uint32_t>VNET_GSO_ECN
    if not wanted[0]:
        return FAULT_NONE
    o.csum_start = vnet.csum_start
    o.csum_offset = vnet.csum_offset
    o.mss = 0
    o.hdr_len = 0
    if vnet.gso_type & ~<uint32_t>VNET_GSO_ECN:
        if read_gso(vnet, head, seen, len, o):
            return FAULT_OFFLOAD
        if o.mss == 0 and not vnet.flags & VNET_F_NEEDS_CSUM:
            wanted[0] = False
            return FAULT_NONE
    return offload_fault(head, len, o)


cdef inline bint carried(const uint8_t *buffer, uint32_t len) noexcept nogil:
    """Whether the NIC carries a frame of `len` bytes with its header, and does not fault its context."""
    cdef offload_t offload
    cdef bint wanted = False
    if len < <uint32_t>(MIN_FRAME + VNET_HEADER):
        return False
    len -= VNET_HEADER
    if read_vnet(<const vnet_header_t *>buffer, buffer + VNET_HEADER, len, len, &offload, &wanted):
        return False
    return wanted or len <= MAX_FRAME


cdef inline void write_vnet(vnet_header_t *vnet, const offload_t *o, const piece_t *piece,
                            uint32_t flags) noexcept nogil:
    """The header that tells a receiver what is left to do. The first piece holds the frame's headers.

    flags: CompletionFlag, without COMPLETION_F_CSUM_OK for a receiver that does not take TAKES_CSUM.
    """
    cdef uint32_t ethertype = 0
    memset(vnet, 0, sizeof(vnet_header_t))
    vnet.num_buffers = 1
    if o == NULL:
        if flags & COMPLETION_F_CSUM_OK:
            vnet.flags = VNET_F_DATA_VALID
        return
    if o.csum_offset or o.mss == 0:         # not: fragments of a datagram whose checksum is none, or complete
        vnet.flags = VNET_F_NEEDS_CSUM
        vnet.csum_start = o.csum_start
        vnet.csum_offset = o.csum_offset
    if o.mss == 0:
        return
    vnet.gso_size = o.mss
    vnet.hdr_len = o.hdr_len & <uint16_t>~OFFLOAD_KIND
    if o.hdr_len & OFFLOAD_KIND:
        vnet.gso_type = VNET_GSO_UDP if o.hdr_len & OFFLOAD_UDP_FRAGMENTS else VNET_GSO_UDP_L4
        return
    network_offset(piece.data, piece.len, &ethertype)
    vnet.gso_type = VNET_GSO_TCPV4 if ethertype == ETHERTYPE_IPV4 else VNET_GSO_TCPV6
    if piece.data[o.csum_start + TCP_FLAGS] & TCP_CWR:
        vnet.gso_type |= VNET_GSO_ECN


cdef inline uint32_t takes_needed(const offload_t *o, const uint8_t *head, uint32_t len) noexcept nogil:
    """What a receiver has to take (Takes) to get this frame, whose offload was checked, as it is."""
    cdef uint32_t ethertype = 0, hdr_len = o.hdr_len & ~<uint32_t>OFFLOAD_KIND, needed
    if o.mss == 0:
        return TAKES_CSUM
    if o.hdr_len & OFFLOAD_UDP_FRAGMENTS:
        return TAKES_CSUM | TAKES_UFO
    network_offset(head, hdr_len, &ethertype)
    if o.hdr_len & OFFLOAD_UDP_SEGMENTS:
        needed = TAKES_USO4 if ethertype == ETHERTYPE_IPV4 else TAKES_USO6
        return TAKES_CSUM | needed if len - hdr_len <= MAX_UNCUT_DATAGRAMS * <uint32_t>o.mss else TAKES_NOT
    needed = TAKES_TSO4 if ethertype == ETHERTYPE_IPV4 else TAKES_TSO6
    if head[o.csum_start + TCP_FLAGS] & TCP_CWR:
        needed |= TAKES_ECN
    return TAKES_CSUM | needed


cdef inline bint keeps_offload(const nic_t *nic, const context_t *sender, header_t *header,
                               const offload_t *o, const uint8_t *head, uint32_t len) noexcept nogil:
    """Whether all who will get this frame take it with its work left to do, and its tag as it is.

    sender: NULL for the wire. Sets the VLAN that an access port's frame belongs to.
    o: what is left to do, checked. head: the frame's headers; len: bytes of the frame.
    """
    cdef const context_t *context
    cdef uint32_t needed
    if sender != NULL and sender.vlan != VLAN_TRUNK:
        if header.tagged and not header.priority:
            return False                # `tx_drop` judges the tag, which has to be in `header` then
        header.vid = sender.vlan
    if header.destination & MULTICAST_BIT or nic.n_promiscuous:
        return False
    context = find_receiver(nic, header)
    needed = takes_needed(o, head, len)
    if context == NULL:
        return needed & ~nic.wire.offloads == 0
    if needed & ~context.takes:
        return False
    return header.vid == 0 or header.tagged == (context.vlan == VLAN_TRUNK)


cdef inline bint exceeds_mtu(const context_t *context, const header_t *header, const uint8_t *head,
                             uint32_t len, const offload_t *o) noexcept nogil:
    """Whether a frame, or a segment of it, is longer than the context's MTU; tags do not count.

    head: the frame's headers. Called of frames longer than `context.longest` alone.
    """
    cdef segmentation_t segmentation
    if o != NULL and o.mss and not segment_begin(&segmentation, head, len, o):
        len = segmentation.segment_max
    return len > context.longest + TAG_LENGTH * (<uint32_t>header.tagged + header.nested)
