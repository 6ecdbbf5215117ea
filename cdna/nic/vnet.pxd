"""Frames that travel with work left to do: a checksum to complete, a segment to cut (virtio 1.2, 5.1.6).

Within the NIC that work is an `offload_t`, whatever it came from: an offload descriptor, a virtio-net header
in front of a guest's frame, or the wire's. A receiver that takes such frames gets them so and the work is
never done; for everybody else the NIC does it (`offload.pxd`).
"""

from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memset

from cdna.abi cimport (
    COMPLETION_F_CSUM_OK, FAULT_NONE, FAULT_OFFLOAD, MAX_FRAME, MIN_FRAME, VNET_F_DATA_VALID,
    VNET_F_NEEDS_CSUM, VNET_GSO_ECN, VNET_GSO_NONE, VNET_GSO_TCPV4, VNET_GSO_TCPV6, VNET_HEADER, offload_t,
    vnet_header_t,
)
from cdna.nic.context cimport VLAN_TRUNK, context_t, nic_t
from cdna.nic.demux cimport MULTICAST_BIT, admits, find_mac, header_t
from cdna.nic.dma cimport piece_t
from cdna.nic.offload cimport (
    ETHERTYPE_IPV4, TCP_CWR, TCP_HEADER, checksum_fault, network_offset, tso_begin, tso_t,
)

cdef enum:
    OFFLOAD_COPY = 256          # bytes of headers that are looked at: MAX_TSO_HEADERS
    # Of one frame: a segment costs the NIC about as much as a frame does. The bound is not of the mss, which
    # the peer of a connection chooses: in Linux down to 8 bytes (net.ipv4.tcp_min_snd_mss, less TCP options).
    MAX_SEGMENTS = 1024
    TCP_FLAGS = 13              # offset in the TCP header


cdef inline uint32_t offload_fault(const uint8_t *head, uint32_t len, const offload_t *o) noexcept nogil:
    """Whether what is to be done can be done to a frame of `len` bytes: FAULT_NONE or FAULT_OFFLOAD.

    head: the frame, or a copy of its first OFFLOAD_COPY bytes.
    """
    cdef tso_t tso
    if o.mss == 0:
        return FAULT_OFFLOAD if len > MAX_FRAME else checksum_fault(head, len, o)
    if o.mss > MAX_FRAME or tso_begin(&tso, head, len, o) or tso.segments > MAX_SEGMENTS:
        return FAULT_OFFLOAD
    return FAULT_NONE


cdef inline uint32_t read_vnet(const vnet_header_t *vnet, const uint8_t *head, uint32_t len, offload_t *o,
                               bint *wanted) noexcept nogil:
    """The work that a header asks for, checked. `wanted`: there is some. Returns FAULT_NONE or FAULT_OFFLOAD.

    The header's hdr_len is a hint that may be anything (5.1.6.2.1): the TCP header itself says where it ends.
    """
    cdef uint32_t kind = vnet.gso_type & ~<uint32_t>VNET_GSO_ECN, ethertype = 0
    wanted[0] = vnet.flags & VNET_F_NEEDS_CSUM or kind != VNET_GSO_NONE
    if not wanted[0]:
        return FAULT_NONE
    o.csum_start = vnet.csum_start
    o.csum_offset = vnet.csum_offset
    o.mss = 0
    o.hdr_len = 0
    if kind != VNET_GSO_NONE:
        if not vnet.flags & VNET_F_NEEDS_CSUM or vnet.gso_size == 0 or \
                vnet.csum_start + <uint32_t>TCP_HEADER > (len if len < OFFLOAD_COPY else OFFLOAD_COPY):
            return FAULT_OFFLOAD
        network_offset(head, len, &ethertype)
        if kind != (VNET_GSO_TCPV4 if ethertype == ETHERTYPE_IPV4 else VNET_GSO_TCPV6):
            return FAULT_OFFLOAD
        o.mss = vnet.gso_size
        o.hdr_len = vnet.csum_start + <uint32_t>(head[vnet.csum_start + 12] >> 4) * 4
    return offload_fault(head, len, o)


cdef inline bint carried(const uint8_t *buffer, uint32_t len) noexcept nogil:
    """Whether the NIC carries a frame of `len` bytes with its header, and does not fault its context."""
    cdef offload_t offload
    cdef bint wanted = False
    if len < <uint32_t>(MIN_FRAME + VNET_HEADER):
        return False
    len -= VNET_HEADER
    if read_vnet(<const vnet_header_t *>buffer, buffer + VNET_HEADER, len, &offload, &wanted):
        return False
    return wanted or len <= MAX_FRAME


cdef inline void write_vnet(vnet_header_t *vnet, const offload_t *o, const piece_t *piece,
                            uint32_t flags) noexcept nogil:
    """The header that tells a receiver what is left to do. The first piece holds the frame's headers."""
    cdef uint32_t ethertype = 0
    memset(vnet, 0, sizeof(vnet_header_t))
    vnet.num_buffers = 1
    if o == NULL:
        if flags & COMPLETION_F_CSUM_OK:
            vnet.flags = VNET_F_DATA_VALID
        return
    vnet.flags = VNET_F_NEEDS_CSUM
    vnet.csum_start = o.csum_start
    vnet.csum_offset = o.csum_offset
    if o.mss:
        network_offset(piece.data, piece.len, &ethertype)
        vnet.gso_type = VNET_GSO_TCPV4 if ethertype == ETHERTYPE_IPV4 else VNET_GSO_TCPV6
        if piece.data[o.csum_start + TCP_FLAGS] & TCP_CWR:
            vnet.gso_type |= VNET_GSO_ECN
        vnet.gso_size = o.mss
        vnet.hdr_len = o.hdr_len


cdef inline bint keeps_offload(const nic_t *nic, const context_t *sender, header_t *header) noexcept nogil:
    """Whether all who will get this frame take it with its work left to do, and its tag as it is.

    sender: NULL for the wire. Sets the VLAN that an access port's frame belongs to.
    """
    cdef const context_t *context
    if sender != NULL and sender.vlan != VLAN_TRUNK:
        header.vid = sender.vlan
    if header.destination & MULTICAST_BIT or nic.n_promiscuous:
        return False
    context = find_mac(nic, header.destination)
    if context == NULL:
        return nic.wire.offloads != 0
    if not context.vnet_header or not admits(context, header):
        return False
    return header.vid == 0 or header.tagged == (context.vlan == VLAN_TRUNK)
