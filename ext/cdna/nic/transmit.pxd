"""Transmission: a context's descriptors into frames, and whose turn it is.

The way of a frame: its descriptor is read once and checked; its first 64 bytes are copied to the NIC, which
decides by that copy alone (`switch.pxd`); the rest is copied once, to the packet buffer for the wire or
straight into the receive buffer of another context. A guest that changes the bytes meanwhile changes its own
payload and nothing that was decided. Frames of several descriptors and those that need work are collected
first (`gathered.pxd`).

Contexts take turns by deficit round robin (Shreedhar and Varghese, SIGCOMM 1995): a turn is worth
`weight` quanta of bytes. A rate limit is a token bucket that skips turns.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from cdna.abi cimport (
    CONTEXT_RUNNING, DESC_F_EOP, FAULT_ADDRESS, FAULT_LENGTH, FAULT_OFFLOAD, FAULT_SEQUENCE, MAX_FRAME,
    MIN_FRAME, PROTECTION_IOMMU, RING_TX, VNET_HEADER, desc_t, offload_t, vnet_header_t,
)
from cdna.checks cimport (
    CHECK_TX_LONG, CHECK_TX_SHORT, CHECK_TX_VNET_LONG, CHECK_TX_VNET_SHORT, PLANT_DESC_LEN, again_u16, broken,
)
from cdna.cpu cimport lowest_bit, prefetch_read
from cdna.nic.context cimport context_t, nic_t, ring_t
from cdna.nic.demux cimport header_t, parse_header
from cdna.nic.dma cimport dma_address, piece_t
from cdna.nic.gathered cimport finish, segment, send_gathered
from cdna.nic.ring cimport clear_bit, found_in, in_sequence, posted, read_desc, stop_at
from cdna.nic.switch cimport forward
from cdna.nic.virtio_tx cimport virtio_turn
from cdna.nic.vnet cimport OFFLOAD_COPY, beyond_copy, keeps_offload, read_vnet
from cdna.nic.wire_queue cimport flush_wire, wire_has_room

cdef enum:
    QUANTUM = 16384             # bytes of one turn at weight 1
    AHEAD = 16                  # descriptors whose frames are prefetched
    DESC_AHEAD = 32             # descriptors that are themselves prefetched
    HEADER_COPY = 64            # bytes of a frame that the NIC reads before it decides

cdef enum:                      # what became of a frame
    SENT = 1
    WAIT = 0                    # for the wire, or for the rest of the frame
    SLOW = -1                   # send_gathered has to do it, unless the context was stopped


# --- one frame --------------------------------------------------------------------------------------------

cdef inline const uint8_t *frame_data(nic_t *nic, context_t *context, const desc_t *desc) noexcept nogil:
    """The bytes of a descriptor; NULL: they are not contiguous, or the context was stopped."""
    cdef const uint8_t *data = dma_address(nic, context, desc.addr, desc.len)
    if data == NULL and context.protection != PROTECTION_IOMMU:
        stop_at(nic, context, FAULT_ADDRESS, RING_TX, 0, found_in(desc, FAULT_ADDRESS))
    return data


cdef inline int send_simple(nic_t *nic, context_t *context, desc_t *desc) noexcept nogil:
    """A frame in one contiguous buffer: SENT, WAIT or SLOW."""
    cdef uint8_t copy[HEADER_COPY]
    cdef header_t header
    cdef piece_t piece[2]
    cdef uint32_t head = desc.len if desc.len < HEADER_COPY else HEADER_COPY
    cdef const uint8_t *data = frame_data(nic, context, desc)
    if data == NULL:
        return SLOW
    desc.len = again_u16(PLANT_DESC_LEN, desc.len,
                         &context.tx.desc[context.tx.consumer & (context.tx.size - 1)].len)
    if head < HEADER_COPY:
        memcpy(copy, data, head)
    else:
        memcpy(copy, data, HEADER_COPY)
    parse_header(&header, copy)
    piece[0].data = copy
    piece[0].len = head
    piece[1].data = data + head
    piece[1].len = desc.len - head
    return forward(nic, context, &header, piece, 2 if desc.len > head else 1, desc.len, 0, NULL)


cdef inline int send_vnet(nic_t *nic, context_t *context, const desc_t *desc) noexcept nogil:
    """A frame behind a virtio-net header in one contiguous buffer: SENT, WAIT or SLOW."""
    cdef uint8_t copy[OFFLOAD_COPY]
    cdef vnet_header_t vnet
    cdef header_t header
    cdef piece_t piece[2]
    cdef offload_t offload
    cdef bint wanted = False
    cdef uint32_t len = desc.len - VNET_HEADER, head = len if len < OFFLOAD_COPY else OFFLOAD_COPY
    cdef const uint8_t *data = frame_data(nic, context, desc)
    if data == NULL:
        return SLOW
    memcpy(&vnet, data, VNET_HEADER)
    data += VNET_HEADER
    if beyond_copy(&vnet, len):
        return SLOW
    memcpy(copy, data, head)
    if read_vnet(&vnet, copy, head, len, &offload, &wanted):
        stop_at(nic, context, FAULT_OFFLOAD, RING_TX, 0, vnet.gso_size if vnet.gso_type else vnet.csum_start)
        return SLOW
    parse_header(&header, copy)
    if wanted:
        if not keeps_offload(nic, context, &header, &offload, copy, len):
            return SLOW
    elif broken(CHECK_TX_VNET_LONG, len > MAX_FRAME):
        stop_at(nic, context, FAULT_LENGTH, RING_TX, 0, desc.len)
        return SLOW
    piece[0].data = copy
    piece[0].len = head
    piece[1].data = data + head
    piece[1].len = len - head
    return forward(nic, context, &header, piece, 2 if len > head else 1, len, 0, &offload if wanted else NULL)


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
    if context.vnet_header:
        if broken(CHECK_TX_VNET_SHORT, desc.len < <uint32_t>(MIN_FRAME + VNET_HEADER)):
            stop_at(nic, context, FAULT_LENGTH, RING_TX, 0, desc.len)
            return -1
        done = send_vnet(nic, context, &desc)
    elif broken(CHECK_TX_SHORT, desc.len < MIN_FRAME) or broken(CHECK_TX_LONG, desc.len > MAX_FRAME):
        stop_at(nic, context, FAULT_LENGTH, RING_TX, 0, desc.len)
        return -1
    else:
        done = send_simple(nic, context, &desc)
    if done == SLOW and context.state == CONTEXT_RUNNING:
        return send_gathered(nic, context)
    return finish(nic, context, 1) if done == SENT else done


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
    if context.virtio != NULL:
        return virtio_turn(nic, context, budget, stuck)
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
