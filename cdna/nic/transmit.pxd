"""Transmission: a context's descriptors into frames, and frames to the wire or to another context.

The way of a frame: its descriptors are read once and checked; its first 64 bytes are copied to the NIC,
which decides by that copy alone; the rest is copied once, to the packet buffer for the wire or straight
into the receive buffer of another context. A guest that changes the bytes meanwhile changes its own
payload and nothing that was decided.

Contexts take turns by deficit round robin (Shreedhar and Varghese, SIGCOMM 1995): a turn is worth
`weight` quanta of bytes. A rate limit is a token bucket that skips turns.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from cdna.abi cimport (
    COMPLETION_F_CSUM_OK, CONTEXT_RUNNING, DESC_F_EOP, DESC_F_OFFLOAD, FAULT_ADDRESS, FAULT_FLAGS,
    FAULT_FRAGMENTS, FAULT_LENGTH,
    FAULT_OFFLOAD, FAULT_SEQUENCE, FAULT_TRANSLATION, MAX_FRAGMENTS, MAX_FRAME, MAX_TSO_FRAME, MIN_FRAME,
    PAGE_SIZE, PROTECTION_IOMMU, RING_TX, desc_t, offload_t,
)
from cdna.cpu cimport copy_bytes, lowest_bit, prefetch_read
from cdna.nic.context cimport BURST, VLAN_TRUNK, context_t, frame_t, nic_t, ring_t
from cdna.nic.demux cimport (
    ETHERTYPE_VLAN, MULTICAST_BIT, TAG_LENGTH, VID_MASK, find_mac, header_t, parse_header,
)
from cdna.nic.dma cimport dma_address, dma_copy, piece_t
from cdna.nic.offload cimport checksum_finish, tso_begin, tso_next, tso_t
from cdna.nic.receive cimport deliver_local
from cdna.nic.ring cimport clear_bit, consume, found_in, in_sequence, posted, read_desc, set_bit, stop_at

cdef enum:
    QUANTUM = 16384             # bytes of one turn at weight 1
    AHEAD = 16                   # descriptors whose frames are prefetched
    DESC_AHEAD = 32             # descriptors that are themselves prefetched
    HEADER_COPY = 64            # bytes of a frame that the NIC reads before it decides
    MIN_MSS = 64                # a segment costs the NIC about as much as a frame: no 65535 of them from one

cdef enum Verdict:              # where a frame goes
    TO_NOBODY = 0
    TO_CONTEXTS = 1
    TO_WIRE = 2


# --- the wire ---------------------------------------------------------------------------------------------

cdef inline bint wire_has_room(const nic_t *nic) noexcept nogil:
    return nic.txq_tail < BURST


cdef inline void flush_wire(nic_t *nic) noexcept nogil:
    """Offers the gathered frames to the wire; what it does not take stays for the next round."""
    cdef uint32_t waiting = nic.txq_tail - nic.txq_head
    cdef int taken
    if waiting == 0:
        return
    taken = nic.wire.tx(nic.wire, &nic.txq[nic.txq_head], waiting)
    while taken > 0:
        nic.wire.tx_frames += 1
        nic.wire.tx_bytes += nic.txq[nic.txq_head].len
        nic.txq_head += 1
        taken -= 1
    if nic.txq_head == nic.txq_tail:
        nic.txq_head = nic.txq_tail = 0
        nic.packet_used = 0


cdef inline uint8_t *packet_room(nic_t *nic) noexcept nogil:
    """Where the next frame for the wire goes; there is room for the largest, tag included."""
    return nic.packet_buffer + nic.packet_used


cdef inline void packet_done(nic_t *nic, uint8_t *frame, uint32_t len) noexcept nogil:
    """Puts the frame at `packet_room` (or behind it, where a tag was put in front) on the wire's queue."""
    nic.txq[nic.txq_tail].data = frame
    nic.txq[nic.txq_tail].len = len
    nic.txq[nic.txq_tail].timestamp_ns = 0
    nic.txq_tail += 1
    nic.packet_used = <uint32_t>((frame - nic.packet_buffer) + len + 63) & ~<uint32_t>63
    if nic.txq_tail == BURST:
        flush_wire(nic)


cdef inline void send_pieces(nic_t *nic, const header_t *header, const piece_t *piece, uint32_t n,
                             uint32_t len) noexcept nogil:
    """Copies a frame to the packet buffer, with the tag of an access context, and queues it."""
    cdef uint8_t *room = packet_room(nic)
    cdef uint8_t *at = room
    cdef uint32_t i = 0, skip = 0
    if header.vid != 0 and not header.tagged:
        memcpy(room, piece[0].data, 12)
        room[12] = ETHERTYPE_VLAN >> 8
        room[13] = ETHERTYPE_VLAN & 0xFF
        room[14] = header.vid >> 8
        room[15] = header.vid & 0xFF
        at = room + 12 + TAG_LENGTH
        skip = 12
        len += TAG_LENGTH
    for i in range(n):
        copy_bytes(at, piece[i].data + skip, piece[i].len - skip)
        at += piece[i].len - skip
        skip = 0
    packet_done(nic, room, len)


# --- one frame --------------------------------------------------------------------------------------------

cdef inline bint may_send(context_t *context, header_t *header, uint32_t len) noexcept nogil:
    """Anti-spoof and VLAN rules; sets the frame's VLAN. A frame that breaks them is dropped and counted."""
    if context.anti_spoof and header.source != context.mac:
        context.stats.tx_drop_spoof += 1
        return False
    if header.tagged and len < 18:
        context.stats.tx_drop_vlan += 1
        return False
    if context.vlan != VLAN_TRUNK:
        if header.tagged and (header.vid != 0 or header.nested or context.vlan != 0):
            context.stats.tx_drop_vlan += 1
            return False
        header.vid = context.vlan
    return True


cdef inline bint route(nic_t *nic, context_t *context, const header_t *header, const piece_t *piece,
                       uint32_t n, uint32_t len, uint32_t flags) noexcept nogil:
    """Sends a frame that may be sent. False: the wire has no room, nothing was done, try again later."""
    cdef bint matched = False
    cdef uint32_t delivered = 0
    cdef bint wire = header.destination & MULTICAST_BIT or find_mac(nic, header.destination) == NULL
    if wire and not wire_has_room(nic):
        return False
    if not wire or nic.n_promiscuous or header.destination & MULTICAST_BIT:
        delivered = deliver_local(nic, context, header, piece, len, flags, &matched)
    if wire:
        if nic.wire.link:
            send_pieces(nic, header, piece, n, len)
        else:
            context.stats.tx_drop_link += 1
    else:
        context.stats.tx_local += delivered != 0
        context.stats.tx_drop_filter += not matched
    return True


cdef inline void sent(nic_t *nic, context_t *context, uint32_t len) noexcept nogil:
    context.stats.tx_frames += 1
    context.stats.tx_bytes += len
    context.deficit -= len
    if context.rate_limited:
        context.tokens -= len


cdef inline bint send_flat(nic_t *nic, context_t *context, const uint8_t *frame, uint32_t len,
                           uint32_t flags) noexcept nogil:
    """Sends a frame that lies in NIC memory. False: the wire has no room."""
    cdef header_t header
    cdef piece_t piece
    parse_header(&header, frame)
    if may_send(context, &header, len):
        piece.data = frame
        piece.len = len
        if not route(nic, context, &header, &piece, 1, len, flags):
            return False
    sent(nic, context, len)
    return True


cdef inline int send_simple(nic_t *nic, context_t *context, const desc_t *desc) noexcept nogil:
    """A frame in one contiguous buffer: 1 sent, 0 no room on the wire, -1 take the slow path, or stopped."""
    cdef uint8_t copy[64]
    cdef header_t header
    cdef piece_t piece[2]
    cdef uint32_t head = desc.len if desc.len < HEADER_COPY else HEADER_COPY
    cdef const uint8_t *data = dma_address(nic, context, desc.addr, desc.len, False)
    if data == NULL:
        if context.protection != PROTECTION_IOMMU:
            stop_at(nic, context, FAULT_ADDRESS, RING_TX, 0, found_in(desc, FAULT_ADDRESS))
        return -1
    if head < HEADER_COPY:
        memcpy(copy, data, head)
    else:
        memcpy(copy, data, HEADER_COPY)
    parse_header(&header, copy)
    if may_send(context, &header, desc.len):
        piece[0].data = copy
        piece[0].len = head
        piece[1].data = data + head
        piece[1].len = desc.len - head
        if not route(nic, context, &header, piece, 2 if desc.len > head else 1, desc.len, 0):
            return 0
    sent(nic, context, desc.len)
    return 1


# --- frames of several descriptors, and offloads ----------------------------------------------------------

cdef inline int gather_frame(nic_t *nic, context_t *context, uint32_t *used, uint32_t *len,
                             offload_t *offload, bint *has_offload) noexcept nogil:
    """Copies a frame of several descriptors to the segment buffer: 1 whole, 0 not whole yet, -1 stopped."""
    cdef ring_t *ring = &context.tx
    cdef uint32_t available = posted(ring), limit = MAX_FRAME, fault = 0, n = 0
    cdef desc_t desc
    len[0] = 0
    has_offload[0] = False
    while n < available and n < MAX_FRAGMENTS:
        read_desc(ring, ring.consumer + n, &desc)
        if not in_sequence(context, ring, n, &desc):
            fault = FAULT_SEQUENCE
        elif desc.flags == DESC_F_OFFLOAD and n == 0:
            offload[0] = (<offload_t *>&desc.addr)[0]
            has_offload[0] = True
            limit = MAX_TSO_FRAME if offload.mss else MAX_FRAME
        elif desc.flags & ~<uint16_t>DESC_F_EOP:
            fault = FAULT_FLAGS
        elif desc.len == 0 or desc.len > limit - len[0]:
            fault = FAULT_LENGTH
        else:
            fault = dma_copy(nic, context, desc.addr, nic.segment_buffer + len[0], desc.len, False)
            len[0] += desc.len
        if not fault and desc.flags & DESC_F_EOP and len[0] < MIN_FRAME:
            fault = FAULT_LENGTH
        if fault:
            stop_at(nic, context, fault, RING_TX, n, found_in(&desc, fault))
            return -1
        n += 1
        if desc.flags & DESC_F_EOP:
            used[0] = n
            return 1
    if n == MAX_FRAGMENTS or n == ring.size:
        stop_at(nic, context, FAULT_FRAGMENTS, RING_TX, n, n)
        return -1
    return 0


cdef inline int segment(nic_t *nic, context_t *context) noexcept nogil:
    """Goes on with the segmentation under way: 1 done, 0 the wire has no room, -1 the context stopped."""
    cdef tso_t *tso = <tso_t *>nic.tso
    cdef uint32_t len
    while True:
        if context.state != CONTEXT_RUNNING:
            nic.tso_context = NULL
            return -1
        if nic.tso_ready == 0:
            len = tso_next(tso, nic.tso_frame, MAX_FRAME)
            if len == 0:
                nic.tso_context = NULL
                return 1
            nic.tso_ready = len
        if not send_flat(nic, context, nic.tso_frame, nic.tso_ready, COMPLETION_F_CSUM_OK):
            return 0
        nic.tso_ready = 0


cdef inline int finish(nic_t *nic, context_t *context, uint32_t used) noexcept nogil:
    """Completes the descriptors of a frame that was sent: 1, or -1 where its own frame stopped it."""
    if context.state != CONTEXT_RUNNING:
        return -1
    consume(&context.tx, used)
    set_bit(nic.dirty, context.index)
    return 1


cdef inline int send_gathered(nic_t *nic, context_t *context) noexcept nogil:
    """A frame of several descriptors or with an offload: 1 sent, 0 wait, -1 stopped."""
    cdef uint32_t used = 0, len = 0
    cdef bint has_offload = False
    cdef offload_t offload
    cdef int whole
    if not wire_has_room(nic) or nic.tso_context != NULL:   # before the copy, which would be made again
        return 0
    whole = gather_frame(nic, context, &used, &len, &offload, &has_offload)
    if whole != 1:
        return whole
    memcpy(nic.segment_buffer + len, b"\0\0\0\0\0\0\0\0", 8)      # a header can be read of the shortest frame
    if not has_offload:
        send_flat(nic, context, nic.segment_buffer, len, 0)
    elif offload.mss == 0:
        if checksum_finish(nic.segment_buffer, len, &offload):
            stop_at(nic, context, FAULT_OFFLOAD, RING_TX, 0, offload.csum_start)
            return -1
        send_flat(nic, context, nic.segment_buffer, len, 0)
    else:
        if offload.mss < MIN_MSS or offload.mss > MAX_FRAME - offload.hdr_len or \
                offload.hdr_len > MAX_FRAME or tso_begin(<tso_t *>nic.tso, nic.segment_buffer, len, &offload):
            stop_at(nic, context, FAULT_OFFLOAD, RING_TX, 0, offload.mss)
            return -1
        nic.tso_context = context
        nic.tso_ready = 0
        segment(nic, context)
    return finish(nic, context, used)


# --- turns ------------------------------------------------------------------------------------------------

cdef inline int send_next(nic_t *nic, context_t *context) noexcept nogil:
    """The next frame of a context: 1 sent, 0 wait for the wire or for the rest of the frame, -1 stopped."""
    cdef ring_t *ring = &context.tx
    cdef desc_t desc
    cdef int done
    read_desc(ring, ring.consumer, &desc)
    if not in_sequence(context, ring, 0, &desc):
        stop_at(nic, context, FAULT_SEQUENCE, RING_TX, 0, desc.seq)
        return -1
    if desc.flags != DESC_F_EOP:
        return send_gathered(nic, context)
    if desc.len < MIN_FRAME or desc.len > MAX_FRAME:
        stop_at(nic, context, FAULT_LENGTH, RING_TX, 0, desc.len)
        return -1
    done = send_simple(nic, context, &desc)
    if done < 0 and context.state == CONTEXT_RUNNING:
        return send_gathered(nic, context)
    return finish(nic, context, 1) if done == 1 else done


cdef inline void prefetch_ahead(const nic_t *nic, const ring_t *ring) noexcept nogil:
    """Fetches what the guest wrote last of a frame that comes soon: its first line and its last.

    They lie in the other core's cache, and a miss there costs as much as the rest of the frame. A prefetch
    never faults, whatever the address says.
    """
    cdef const desc_t *desc = &ring.desc[(ring.consumer + AHEAD) & (ring.size - 1)]
    cdef const uint8_t *data = nic.memory.base + desc.addr
    if ring.consumer & 3 == 0:
        prefetch_read(&ring.desc[(ring.consumer + DESC_AHEAD) & (ring.size - 1)])
    prefetch_read(data)
    prefetch_read(data + desc.len - 1)


cdef inline void refill_tokens(context_t *context, uint64_t now) noexcept nogil:
    context.tokens += (now - context.tokens_at) * context.tokens_per_cycle
    if context.tokens > context.tokens_max:
        context.tokens = context.tokens_max
    context.tokens_at = now


cdef inline int turn(nic_t *nic, context_t *context, int budget, bint *stuck) noexcept nogil:
    """Sends for one context until its deficit, its ring or the budget ends. `stuck`: the wire has no room."""
    cdef int n = 0, done = 1
    cdef bint simple = context.protection != PROTECTION_IOMMU
    if context.deficit <= 0:
        context.deficit += <int>QUANTUM * <int>context.weight
    while n < budget and context.deficit > 0 and posted(&context.tx) and \
            (not context.rate_limited or context.tokens > 0):
        if simple:
            prefetch_ahead(nic, &context.tx)
        done = send_next(nic, context)
        if done != 1 or nic.tso_context == context:
            break
        n += 1
    if context.state != CONTEXT_RUNNING or not posted(&context.tx):
        clear_bit(nic.tx_active, context.index)
        context.deficit = 0
    elif done == 0:
        if wire_has_room(nic) and nic.tso_context == NULL:  # the rest is missing: its doorbell comes
            clear_bit(nic.tx_active, context.index)
        else:
            stuck[0] = True
    return n


cdef inline uint32_t next_active(const nic_t *nic, uint32_t start) noexcept nogil:
    """The first context from `start` on that has something to send; nic.contexts where there is none."""
    cdef uint32_t word = start >> 6
    cdef uint64_t bits
    if word >= nic.words:
        return nic.contexts
    bits = nic.tx_active[word] >> (start & 63) << (start & 63)
    while bits == 0:
        word += 1
        if word == nic.words:
            return nic.contexts
        bits = nic.tx_active[word]
    return word * 64 + lowest_bit(bits)


cdef inline int transmit(nic_t *nic, int budget, uint64_t now) noexcept nogil:
    """Gives turns to the contexts that have something to send. Returns frames sent."""
    cdef uint32_t at = nic.tx_cursor, first_stuck = nic.contexts
    cdef bint wrapped = False, stuck
    cdef int n = 0
    cdef context_t *context
    flush_wire(nic)
    if nic.tso_context != NULL:
        segment(nic, nic.tso_context)
    while n < budget:
        at = next_active(nic, at)
        if at == nic.contexts:
            if wrapped:
                break
            wrapped = True
            at = 0
            continue
        if wrapped and at >= nic.tx_cursor:
            break
        context = &nic.context[at]
        if context == nic.tso_context:  # its next frame waits for the segments of this one
            at += 1
            continue
        if context.rate_limited:
            refill_tokens(context, now)
        stuck = False
        n += turn(nic, context, budget - n, &stuck)
        if stuck and first_stuck == nic.contexts:
            first_stuck = at            # the others still reach each other; this one is first next time
        if n < budget or context.deficit <= 0:  # its turn is over; otherwise it goes on in the next round
            at += 1
    if first_stuck != nic.contexts:
        at = first_stuck
    nic.tx_cursor = at if at < nic.contexts else 0
    flush_wire(nic)
    return n
