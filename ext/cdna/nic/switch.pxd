"""The switch: whether a frame may be sent, and where to, decided by the NIC's own copy of its headers.

Receivers are the contexts of this NIC, by address and VLAN, and the wire. Each gets a frame in the ring that
it has, native or virtio, in one copy.
"""

from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t

from cdna.abi cimport CONTEXT_RUNNING, offload_t
from cdna.checks cimport (
    CHECK_CONTROL, CHECK_SPOOF, CHECK_TAG, CHECK_TAG_NESTED, CHECK_TAG_SHORT, CHECK_TX_MTU, broken,
)
from cdna.cpu cimport lowest_bit, unlikely
from cdna.nic.account cimport FRAME_BYTES, charge, charge_payer, in_debt
from cdna.nic.bits cimport test_bit
from cdna.nic.capture_ring cimport CAPTURE_IN, CAPTURE_OUT, capture
from cdna.nic.context cimport (
    LIMIT_FLOOD, LIMIT_STORM, RINGS_VIRTIO, VLAN_TRUNK, context_t, frame_bucket_t,
)
from cdna.nic.demux cimport (
    ETHERTYPE_VLAN, MULTICAST_BIT, TAG_LENGTH, VID_MASK, admits, header_t, parse_header, wants_multicast,
)
from cdna.nic.frame cimport MAX_PIECES, gather, piece_t
from cdna.nic.learn cimport find_receiver, is_behind, learn
from cdna.nic.native.rx cimport fill, fill_vnet
from cdna.nic.offload.vnet cimport exceeds_mtu
from cdna.nic.outcome cimport (
    DONE, RX_DROP_LINK, RX_DROP_MTU, RX_DROP_NO_BUFFER, RX_DROP_NO_DRIVER, RX_DROP_STOPPED, TX_DROP_FILTER,
    TX_DROP_LINK, TX_DROP_MTU, TX_DROP_SPOOF, TX_DROP_STORM, TX_DROP_VLAN, WAIT,
)
from cdna.nic.state cimport nic_t
from cdna.nic.virtio.rx cimport fill_virtio
from cdna.nic.wire_queue cimport send_pieces, wire_has_room


# --- to a context ------------------------------------------------------------------------------------------

cdef inline int why_not_filled(const context_t *context) noexcept nogil:
    """Why a frame that is for a context was not written to its buffers: RX_DROP_."""
    if context.state != CONTEXT_RUNNING:
        return RX_DROP_STOPPED
    if context.rings == RINGS_VIRTIO and not context.virtio.link:
        return RX_DROP_LINK
    if context.rings == RINGS_VIRTIO and context.virtio.receiving == 0:
        return RX_DROP_NO_DRIVER
    return RX_DROP_NO_BUFFER


cdef inline bint rx_drop(nic_t *nic, const context_t *context, int outcome, const piece_t *piece,
                         uint32_t len) noexcept nogil:
    """Shows a frame that was dropped, and counted, to the captures. Returns False."""
    if unlikely(nic.capture != NULL):
        capture(nic.capture, context.index, CAPTURE_IN, outcome, piece, len)
    return False


cdef inline bint deliver(nic_t *nic, context_t *context, const piece_t *piece, uint32_t len, uint32_t flags,
                         uint16_t vlan, const offload_t *offload) noexcept nogil:
    """Delivers a frame of `len` bytes to a running context. Returns whether it was."""
    cdef bint done
    cdef int outcome = DONE
    if context.rings == RINGS_VIRTIO:
        done = fill_virtio(nic, context, piece, len, flags, offload)
    elif context.vnet_header:
        done = fill_vnet(nic, context, piece, len, flags, vlan, offload)
    else:
        done = fill(nic, context, piece, len, flags, vlan)
    if unlikely(nic.capture != NULL):
        if not done:
            outcome = why_not_filled(context)
        capture(nic.capture, context.index, CAPTURE_IN, outcome, piece, len)
    return done


cdef inline bint deliver_tagged(nic_t *nic, context_t *context, const header_t *header, const piece_t *piece,
                                uint32_t len, uint32_t flags, const offload_t *offload) noexcept nogil:
    """Delivers a frame, its VLAN tag put on or taken off as the context wants it.

    A frame with an offload only goes where its bytes stay as they are (`vnet.keeps_offload`).
    """
    cdef piece_t with_tag[MAX_PIECES - 1]
    cdef uint8_t tag[4]
    cdef uint32_t n = 0, left = len
    cdef bint on_wire = context.vlan == VLAN_TRUNK and header.vid != 0
    if context.state != CONTEXT_RUNNING:
        context.stats.rx_drop_stopped += 1
        return rx_drop(nic, context, RX_DROP_STOPPED, piece, len)
    if len > context.longest and exceeds_mtu(context, header, piece.data, len, offload):
        context.stats.rx_drop_mtu += 1
        return rx_drop(nic, context, RX_DROP_MTU, piece, len)
    if header.vid == 0 or header.tagged == on_wire:
        return deliver(nic, context, piece, len, flags, header.vid & VID_MASK, offload)
    # The first piece holds at least the two addresses and a tag: all the NIC's headers do.
    with_tag[0].data = piece.data
    with_tag[0].len = 12
    if on_wire:
        tag[0] = ETHERTYPE_VLAN >> 8
        tag[1] = ETHERTYPE_VLAN & 0xFF
        tag[2] = header.vid >> 8
        tag[3] = header.vid & 0xFF
        with_tag[1].data = tag
        with_tag[1].len = TAG_LENGTH
        with_tag[2].data = piece.data + 12
        with_tag[2].len = piece.len - 12
        len += TAG_LENGTH
    else:
        with_tag[1].data = piece.data + 12 + TAG_LENGTH
        with_tag[1].len = piece.len - 12 - TAG_LENGTH
        with_tag[2].data = NULL
        with_tag[2].len = 0
        len -= TAG_LENGTH
    left -= piece.len
    n = 3
    while left:
        piece += 1
        with_tag[n] = piece[0]
        left -= piece.len
        n += 1
    return deliver(nic, context, with_tag, len, flags, header.vid, NULL)


cdef inline void put_off(nic_t *nic, uint32_t word, uint64_t bits, const context_t *sender,
                         const header_t *header, const piece_t *piece, uint32_t len, uint32_t flags,
                         bint multicast) noexcept nogil:
    """Keeps a frame for the receivers that have not got it."""
    if piece.data != nic.flood.frame:   # else it was put off before
        gather(nic.flood.frame, piece, 0, len)
    nic.flood.left = True
    nic.flood.vid = header.vid
    nic.flood.multicast = multicast
    nic.flood.sender = <context_t *>sender
    nic.flood.len = len
    nic.flood.flags = flags
    nic.flood.word = word
    nic.flood.bits = bits


cdef inline bint deliver_at_senders_cost(nic_t *nic, context_t *context, const header_t *header,
                                         const piece_t *piece, uint32_t len, uint32_t flags) noexcept nogil:
    """Delivers a frame that is for many: an interrupt for it alone is its sender's, too."""
    cdef bint told = test_bit(nic.virtio_used, context.index)
    cdef bint done = deliver_tagged(nic, context, header, piece, len, flags, NULL)
    if done and not told:
        context.signal_payer = nic.payer
    nic.due -= <int32_t>(len + FRAME_BYTES)
    return done


cdef inline bint deliver_at_its_own_cost(nic_t *nic, context_t *context, const header_t *header,
                                         const piece_t *piece, uint32_t len, uint32_t flags) noexcept nogil:
    """Delivers a copy to a context that wants to see everybody's frames."""
    cdef bint done
    if in_debt(nic, context):
        context.stats.rx_drop_no_buffer += 1
        return False
    charge_payer(nic)
    done = deliver_tagged(nic, context, header, piece, len, flags, NULL)
    charge(nic, context, &context.time.rx)
    return done


cdef inline uint64_t may_want(const nic_t *nic, uint32_t word, bint multicast) noexcept nogil:
    """Contexts that may want a frame that is not for them alone, by their bits in this word."""
    return nic.running[word] if multicast else nic.running[word] & nic.promiscuous[word]


cdef inline uint32_t flood_from(nic_t *nic, uint32_t word, uint64_t bits, const context_t *sender,
                                const header_t *header, const piece_t *piece, uint32_t len, uint32_t flags,
                                bint multicast, bint *matched) noexcept nogil:
    """Delivers to every running context that wants it, from these on, until the slice is over."""
    cdef uint32_t n = 0
    cdef context_t *context
    while True:
        while bits:
            context = &nic.context[word * 64 + lowest_bit(bits)]
            if context != sender and admits(context, header) and \
                    (not multicast or wants_multicast(context, header.destination)):
                if nic.over:
                    put_off(nic, word, bits, sender, header, piece, len, flags, multicast)
                    return n
                matched[0] = True
                if multicast:
                    n += deliver_at_senders_cost(nic, context, header, piece, len, flags)
                    if nic.due <= 0:
                        charge_payer(nic)
                elif context.mac == header.destination:
                    n += deliver_tagged(nic, context, header, piece, len, flags, NULL)
                else:
                    n += deliver_at_its_own_cost(nic, context, header, piece, len, flags)
            bits &= bits - 1
        word += 1
        if word == nic.words:
            return n
        bits = may_want(nic, word, multicast)


cdef inline void go_on_flooding(nic_t *nic) noexcept nogil:
    """Delivers the frame that was put off, at its sender's cost."""
    cdef header_t header
    cdef piece_t piece
    cdef bint matched = False
    nic.payer = nic.flood.sender
    parse_header(&header, nic.flood.frame)
    header.vid = nic.flood.vid
    piece.data = nic.flood.frame
    piece.len = nic.flood.len
    nic.flood.left = False
    flood_from(nic, nic.flood.word, nic.flood.bits & nic.running[nic.flood.word], nic.flood.sender, &header,
               &piece, nic.flood.len, nic.flood.flags, nic.flood.multicast, &matched)
    charge_payer(nic)


cdef inline uint32_t flood(nic_t *nic, const context_t *sender, const header_t *header, const piece_t *piece,
                           uint32_t len, uint32_t flags, bint multicast, bint *matched) noexcept nogil:
    """Delivers to every running context that wants it, except the sender: multicast, or promiscuous ones."""
    while unlikely(nic.flood.left):               # a segment of the frame before
        nic.over = 0
        go_on_flooding(nic)
    return flood_from(nic, 0, may_want(nic, 0, multicast), sender, header, piece, len, flags, multicast,
                      matched)


cdef inline uint32_t deliver_local(nic_t *nic, const context_t *sender, const header_t *header,
                                   const piece_t *piece, uint32_t len, uint32_t flags,
                                   const offload_t *offload, bint *matched) noexcept nogil:
    """Delivers to the contexts of this NIC; `matched`: one of them wants it. Returns deliveries.

    offload: what is left to do, or NULL; not NULL only where the one receiver takes it so.
    """
    cdef context_t *context
    cdef uint32_t n = 0
    matched[0] = False
    if unlikely(header.destination & MULTICAST_BIT):
        return flood(nic, sender, header, piece, len, flags, True, matched)
    context = find_receiver(nic, header)
    if context != NULL and not is_behind(context, sender, header):
        matched[0] = True
        if not context.promiscuous or context.state != CONTEXT_RUNNING or context == sender:
            n = deliver_tagged(nic, context, header, piece, len, flags, offload)
    if unlikely(nic.n_promiscuous):
        n += flood(nic, sender, header, piece, len, flags, False, matched)
    return n


# --- from a context ----------------------------------------------------------------------------------------

cdef inline int tx_drop(context_t *context, header_t *header, const piece_t *piece, uint32_t len,
                        const offload_t *offload) noexcept nogil:
    """Anti-spoof, VLAN and MTU rules; sets the frame's VLAN. Returns why it is dropped (TX_DROP_), or DONE.

    A guest that may speak in its own name alone does not speak for the link: PAUSE would stop it for all.
    """
    if context.anti_spoof and (broken(CHECK_SPOOF, header.source != context.mac) or
                               broken(CHECK_CONTROL, header.control)):
        context.stats.tx_drop_spoof += 1
        return TX_DROP_SPOOF
    if header.tagged and broken(CHECK_TAG_SHORT, len < 18):
        context.stats.tx_drop_vlan += 1
        return TX_DROP_VLAN
    if context.vlan != VLAN_TRUNK:
        if header.tagged and (
                broken(CHECK_TAG, not header.priority)
                or broken(CHECK_TAG_NESTED, header.nested)):
            context.stats.tx_drop_vlan += 1
            return TX_DROP_VLAN
        header.vid = context.vlan
    if len > context.longest and broken(
            CHECK_TX_MTU, exceeds_mtu(context, header, piece.data, len, offload)):
        context.stats.tx_drop_mtu += 1
        return TX_DROP_MTU
    return DONE


cdef inline bint may_pass(frame_bucket_t *bucket, uint64_t now) noexcept nogil:
    """Takes a frame out of a bucket; False: there is none in it. now: cycle count."""
    if now > bucket.refilled_at:        # an announcement may come before the next round
        bucket.frames += (now - bucket.refilled_at) * bucket.frames_per_cycle
        if bucket.frames > bucket.frames_max:
            bucket.frames = bucket.frames_max
        bucket.refilled_at = now
    if bucket.frames < 1:
        return False
    bucket.frames -= 1
    return True


cdef inline void set_priority_vlan(const header_t *header, const piece_t *piece) noexcept nogil:
    """Puts the access port's VLAN into a priority tag, which keeps its priority (IEEE 802.1Q, 6.9.1).

    The tag is in the first piece, the NIC's own copy of the headers.
    """
    cdef uint8_t *tci = <uint8_t *>piece.data + 12 + TAG_LENGTH - 2
    tci[0] = (tci[0] & ~<uint8_t>(VID_MASK >> 8)) | (header.vid >> 8)
    tci[1] = header.vid & 0xFF


cdef inline int route(nic_t *nic, context_t *context, const header_t *header, const piece_t *piece,
                      uint32_t n, uint32_t len, uint32_t flags, const offload_t *offload) noexcept nogil:
    """Sends a frame that may be sent: DONE, WAIT or why it was dropped (TX_DROP_)."""
    cdef bint matched = False
    cdef uint32_t delivered = 0
    cdef bint group = header.destination & MULTICAST_BIT != 0
    cdef bint wire = group or find_receiver(nic, header) == NULL
    if wire and not wire_has_room(nic):
        return WAIT
    if unlikely(nic.flood.left) and (group or nic.n_promiscuous):
        return WAIT
    if unlikely(group) and context.flood_limits & LIMIT_STORM and not may_pass(&context.storm, nic.now):
        context.stats.tx_drop_storm += 1
        return TX_DROP_STORM
    if header.priority and header.vid:
        set_priority_vlan(header, piece)
    if not wire or nic.n_promiscuous or group:
        if unlikely(wire and not group and context.flood_limits & LIMIT_FLOOD != 0) and not may_pass(
                &context.flood, nic.now):
            context.stats.tx_unflooded += 1     # it goes to the wire alone
        else:
            delivered = deliver_local(nic, context, header, piece, len, flags, offload, &matched)
    if wire:
        if nic.wire.link:
            send_pieces(nic, header, piece, n, len, offload)
        else:
            context.stats.tx_drop_link += 1
            return DONE if delivered else TX_DROP_LINK
    else:
        context.stats.tx_local += delivered != 0
        if not matched:
            context.stats.tx_drop_filter += 1
            return TX_DROP_FILTER
    return DONE


cdef inline bint surely_sent(nic_t *nic, const context_t *context, const header_t *header) noexcept nogil:
    """Whether `route` neither drops a frame nor puts it off: a capture shows it before what arrives."""
    cdef context_t *to = find_receiver(nic, header)
    if header.destination & MULTICAST_BIT and context.flood_limits & LIMIT_STORM:
        return False
    if header.destination & MULTICAST_BIT or to == NULL:
        return nic.wire.link and wire_has_room(nic)
    return not is_behind(to, context, header)


cdef inline int forward(nic_t *nic, context_t *context, header_t *header, const piece_t *piece, uint32_t n,
                        uint32_t len, uint32_t flags, const offload_t *offload) noexcept nogil:
    """Sends a frame, or drops and counts it: DONE or WAIT.

    offload: not NULL only where `vnet.keeps_offload` says so.
    """
    cdef int outcome = tx_drop(context, header, piece, len, offload)
    cdef bint captured = False, learned = True
    if outcome == DONE:
        if not context.anti_spoof and header.source != context.mac:
            learned = learn(nic, context, header)
        if unlikely(nic.capture != NULL) and surely_sent(nic, context, header):
            capture(nic.capture, context.index, CAPTURE_OUT, outcome, piece, len)
            captured = True
        outcome = route(nic, context, header, piece, n, len, flags, offload)
        if outcome == WAIT:
            return WAIT
        if not learned:
            context.stats.tx_unlearned += 1
    if unlikely(nic.capture != NULL) and not captured:
        capture(nic.capture, context.index, CAPTURE_OUT, outcome, piece, len)
    context.stats.tx_frames += 1
    context.stats.tx_bytes += len
    context.deficit -= len & nic.by_bytes
    nic.due -= <int32_t>(len + FRAME_BYTES)
    if context.rate_limited:
        context.tokens -= len
    return DONE


cdef inline int forward_flat(nic_t *nic, context_t *context, const uint8_t *frame, uint32_t len,
                             uint32_t flags, const offload_t *offload) noexcept nogil:
    """`forward` of a frame that lies in NIC memory, where at least 18 bytes can be read."""
    cdef header_t header
    cdef piece_t piece
    parse_header(&header, frame)
    piece.data = frame
    piece.len = len
    return forward(nic, context, &header, &piece, 1, len, flags, offload)
