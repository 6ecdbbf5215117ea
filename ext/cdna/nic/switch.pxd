"""The switch: whether a frame may be sent, and where to, decided by the NIC's own copy of its headers."""

from libc.stdint cimport uint8_t, uint32_t

from cdna.abi cimport offload_t
from cdna.checks cimport (
    CHECK_CONTROL, CHECK_SPOOF, CHECK_TAG, CHECK_TAG_NESTED, CHECK_TAG_SHORT, CHECK_TX_MTU, broken,
)
from cdna.nic.capture_ring cimport (
    CAPTURE_NOT_DROPPED, CAPTURE_OUT, CAPTURE_TX_DROP_FILTER, CAPTURE_TX_DROP_LINK, CAPTURE_TX_DROP_MTU,
    CAPTURE_TX_DROP_SPOOF, CAPTURE_TX_DROP_VLAN, capture,
)
from cdna.nic.context cimport VLAN_TRUNK, context_t, nic_t
from cdna.nic.deliver cimport deliver_local
from cdna.nic.demux cimport MULTICAST_BIT, TAG_LENGTH, VID_MASK, admits, header_t, parse_header
from cdna.nic.dma cimport piece_t
from cdna.nic.learn cimport find_receiver, is_behind, learn
from cdna.nic.vnet cimport exceeds_mtu
from cdna.nic.wire_queue cimport send_pieces, wire_has_room

cdef enum:
    NO_ROOM = -1                # on the wire: nothing was done, try again later


cdef inline int tx_drop(context_t *context, header_t *header, const piece_t *piece, uint32_t len,
                        const offload_t *offload) noexcept nogil:
    """Anti-spoof, VLAN and MTU rules; sets the frame's VLAN. Why it is dropped, or CAPTURE_NOT_DROPPED.

    A guest that may speak in its own name alone does not speak for the link: PAUSE would stop it for all.
    """
    if context.anti_spoof and (broken(CHECK_SPOOF, header.source != context.mac) or
                               broken(CHECK_CONTROL, header.control)):
        context.stats.tx_drop_spoof += 1
        return CAPTURE_TX_DROP_SPOOF
    if header.tagged and broken(CHECK_TAG_SHORT, len < 18):
        context.stats.tx_drop_vlan += 1
        return CAPTURE_TX_DROP_VLAN
    if context.vlan != VLAN_TRUNK:
        if header.tagged and (
                broken(CHECK_TAG, not header.priority and (header.vid != 0 or context.vlan != 0))
                or broken(CHECK_TAG_NESTED, header.nested)):
            context.stats.tx_drop_vlan += 1
            return CAPTURE_TX_DROP_VLAN
        header.vid = context.vlan
    if len > context.longest and broken(
            CHECK_TX_MTU, exceeds_mtu(context, header, piece.data, len, offload)):
        context.stats.tx_drop_mtu += 1
        return CAPTURE_TX_DROP_MTU
    return CAPTURE_NOT_DROPPED


cdef inline void set_priority_vlan(const header_t *header, const piece_t *piece) noexcept nogil:
    """Puts the access port's VLAN into a priority tag, which keeps its priority (IEEE 802.1Q, 6.9.1).

    The tag is in the first piece, the NIC's own copy of the headers.
    """
    cdef uint8_t *tci = <uint8_t *>piece.data + 12 + TAG_LENGTH - 2
    tci[0] = (tci[0] & ~<uint8_t>(VID_MASK >> 8)) | (header.vid >> 8)
    tci[1] = header.vid & 0xFF


cdef inline int route(nic_t *nic, context_t *context, const header_t *header, const piece_t *piece,
                      uint32_t n, uint32_t len, uint32_t flags, const offload_t *offload) noexcept nogil:
    """Sends a frame that may be sent: NO_ROOM, why it was dropped, or CAPTURE_NOT_DROPPED."""
    cdef bint matched = False
    cdef uint32_t delivered = 0
    cdef bint wire = header.destination & MULTICAST_BIT or find_receiver(nic, header) == NULL
    if wire and not wire_has_room(nic):
        return NO_ROOM
    if header.priority and header.vid:
        set_priority_vlan(header, piece)
    if not wire or nic.n_promiscuous or header.destination & MULTICAST_BIT:
        delivered = deliver_local(nic, context, header, piece, len, flags, offload, &matched)
    if wire:
        if nic.wire.link:
            send_pieces(nic, header, piece, n, len, offload)
        else:
            context.stats.tx_drop_link += 1
            return CAPTURE_NOT_DROPPED if delivered else CAPTURE_TX_DROP_LINK
    else:
        context.stats.tx_local += delivered != 0
        if not matched:
            context.stats.tx_drop_filter += 1
            return CAPTURE_TX_DROP_FILTER
    return CAPTURE_NOT_DROPPED


cdef inline bint surely_sent(nic_t *nic, const context_t *context, const header_t *header) noexcept nogil:
    """Whether `route` neither drops a frame nor puts it off: a capture shows it before what arrives."""
    cdef context_t *to = find_receiver(nic, header)
    if header.destination & MULTICAST_BIT or to == NULL:
        return nic.wire.link and wire_has_room(nic)
    return admits(to, header) and not is_behind(to, context, header)


cdef inline bint forward(nic_t *nic, context_t *context, header_t *header, const piece_t *piece, uint32_t n,
                         uint32_t len, uint32_t flags, const offload_t *offload) noexcept nogil:
    """Sends a frame, or drops and counts it. False: the wire has no room, nothing was done, try again later.

    offload: not NULL only where `vnet.keeps_offload` says so.
    """
    cdef int reason = tx_drop(context, header, piece, len, offload)
    cdef bint captured = False, learned = True
    if reason == CAPTURE_NOT_DROPPED:
        if not context.anti_spoof and header.source != context.mac:
            learned = learn(nic, context, header)
        if nic.capture != NULL and surely_sent(nic, context, header):
            capture(nic.capture, context.index, CAPTURE_OUT, reason, piece, len)
            captured = True
        reason = route(nic, context, header, piece, n, len, flags, offload)
        if reason == NO_ROOM:
            return False
        if not learned:
            context.stats.tx_unlearned += 1
    if nic.capture != NULL and not captured:
        capture(nic.capture, context.index, CAPTURE_OUT, reason, piece, len)
    context.stats.tx_frames += 1
    context.stats.tx_bytes += len
    context.deficit -= len
    if context.rate_limited:
        context.tokens -= len
    return True


cdef inline bint forward_flat(nic_t *nic, context_t *context, const uint8_t *frame, uint32_t len,
                              uint32_t flags, const offload_t *offload) noexcept nogil:
    """`forward` of a frame that lies in NIC memory, where at least 18 bytes can be read."""
    cdef header_t header
    cdef piece_t piece
    parse_header(&header, frame)
    piece.data = frame
    piece.len = len
    return forward(nic, context, &header, &piece, 1, len, flags, offload)
