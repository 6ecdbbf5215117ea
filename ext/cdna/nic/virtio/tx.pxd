"""Transmission from a virtio guest's rings: buffers into frames, a batch at a time.

A batch goes through three steps, so that what another core wrote is on its way before it is needed: which
descriptors, what they say, what lies there. A buffer of one descriptor is a frame with its virtio-net header
in front; others are walked (`chain.pxd`). The way of the frame is that of any context's: the first
bytes are copied and decide, the rest is copied once (`native/tx.pxd`, `switch.pxd`).
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from cdna.abi cimport (
    CONTEXT_RUNNING, FAULT_AVAIL, FAULT_HEADER, MAX_FRAME, MAX_TSO_FRAME, MIN_FRAME, RING_TX, offload_t,
    vnet_header_t,
)
from cdna.checks cimport (
    CHECK_BUFFER_FLAGS, CHECK_BUFFER_HEADER, CHECK_CHAIN_HEADER, CHECK_COLLECTED_LONG, CHECK_COLLECTED_WORK,
    CHECK_FLAT_LONG, CHECK_FLAT_SHORT, CHECK_PIECES_SHORT, CHECK_PIECES_WORK, broken,
)
from cdna.cpu cimport load_u32, prefetch_read, unlikely
from cdna.nic.account cimport FRAME_BYTES, charge
from cdna.nic.bits cimport clear_bit, set_bit
from cdna.nic.context cimport context_t
from cdna.nic.demux cimport header_t, parse_header
from cdna.nic.frame cimport FRAME_PIECES, HEADER_COPY, gather, piece_t
from cdna.nic.offload.perform cimport perform
from cdna.nic.offload.vnet cimport OFFLOAD_COPY, beyond_copy, keeps_offload, read_vnet
from cdna.nic.outcome cimport DONE, STOPPED, WAIT
from cdna.nic.rate cimport has_tokens
from cdna.nic.state cimport nic_t
from cdna.nic.switch cimport forward, forward_flat
from cdna.nic.virtio.chain cimport CHAIN_READABLE, chain_t, read_chain
from cdna.nic.virtio.memory cimport guest_bytes
from cdna.nic.virtio.notify cimport stop_guest, tx_available
from cdna.nic.virtio.queue cimport (
    BEYOND_RING, in_table, packed_available, publish_used, read_words, split_available, split_head,
    take, use, virtio_t, virtqueue_t,
)
from cdna.nic.wire_queue cimport wire_has_room
from cdna.virtio cimport (
    VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT, VRING_DESC_F_WRITE, vring_desc_t, vring_packed_desc_t,
)

cdef enum:
    TX_BATCH = 16               # buffers looked at before the first of them is sent
    LINE = 64
    MIN_COUNTED = 64            # bytes of a rate that a buffer without a frame takes
    WALK_COST = 64              # bytes of its turn that a descriptor costs beside the frame's own

cdef struct staged_t:           # a buffer of a batch
    const uint8_t *data         # of its one descriptor; NULL: it has to be walked
    uint32_t len
    uint16_t id


# --- one frame --------------------------------------------------------------------------------------------

cdef inline int tx_invalid(nic_t *nic, context_t *context) noexcept nogil:
    """A frame that cannot be one, or whose header asks for what cannot be done. Its guest may go on."""
    context.stats.tx_drop_invalid += 1
    context.deficit -= <uint32_t>WALK_COST & nic.by_bytes
    nic.due -= FRAME_BYTES
    if context.rate_limited:
        context.tokens -= MIN_COUNTED
    return DONE


cdef inline int tx_flat(nic_t *nic, context_t *context, const uint8_t *data, uint32_t len) noexcept nogil:
    """A frame without an offload in one run of memory, which may still change: DONE or WAIT."""
    cdef uint8_t copy[HEADER_COPY]
    cdef header_t header
    cdef piece_t piece[2]
    cdef uint32_t head = len
    if broken(CHECK_FLAT_SHORT, len < MIN_FRAME) or broken(CHECK_FLAT_LONG, len > MAX_FRAME):
        return tx_invalid(nic, context)
    if len < HEADER_COPY:
        memcpy(copy, data, len)
    else:
        memcpy(copy, data, HEADER_COPY)
        head = HEADER_COPY
    parse_header(&header, copy)
    piece[0].data = copy
    piece[0].len = head
    piece[1].data = data + head
    piece[1].len = len - head
    return forward(nic, context, &header, piece, 2 if len > head else 1, len, 0, NULL)


cdef inline uint32_t behind(piece_t *to, const piece_t *piece, uint32_t n, uint32_t skip) noexcept nogil:
    """The pieces behind the first `skip` bytes, which they have. Returns how many, at most FRAME_PIECES."""
    cdef uint32_t i, m = 0
    for i in range(n):
        if skip >= piece[i].len:
            skip -= piece[i].len
            continue
        if m == FRAME_PIECES:
            return FRAME_PIECES + 1
        to[m].data = piece[i].data + skip
        to[m].len = piece[i].len - skip
        skip = 0
        m += 1
    return m


cdef inline int tx_collected(nic_t *nic, context_t *context, const vnet_header_t *vnet, const piece_t *piece,
                             uint32_t skip, uint32_t len) noexcept nogil:
    """A frame in many pieces or with work to do, by way of NIC memory: DONE or WAIT."""
    cdef uint8_t *frame = nic.segment_buffer
    cdef offload_t offload
    cdef bint wanted = False
    if broken(CHECK_COLLECTED_LONG, len > MAX_TSO_FRAME):
        return tx_invalid(nic, context)
    if not wire_has_room(nic) or nic.tso_context != NULL:
        return WAIT
    nic.due = 0
    gather(frame, piece, skip, len)
    memset(frame + len, 0, 8)           # a header can be read of the shortest frame
    if read_vnet(vnet, frame, len, len, &offload, &wanted):
        context.deficit -= len & nic.by_bytes   # it was copied, which costs as much as to send it
        return tx_invalid(nic, context)
    if wanted:
        perform(nic, context, frame, len, &offload)
        return DONE
    if broken(CHECK_COLLECTED_WORK, len > MAX_FRAME):   # the headers have changed since they were read
        return tx_invalid(nic, context)
    return forward_flat(nic, context, frame, len, 0, NULL)


cdef inline int tx_pieces(nic_t *nic, context_t *context, const vnet_header_t *vnet, const piece_t *piece,
                          uint32_t n, uint32_t skip, uint32_t len) noexcept nogil:
    """A frame of `len` bytes behind the first `skip` bytes of pieces of guest memory: DONE or WAIT."""
    cdef uint8_t copy[OFFLOAD_COPY + 8]
    cdef piece_t out[FRAME_PIECES + 1]
    cdef header_t header
    cdef offload_t offload
    cdef bint wanted = False
    cdef uint32_t head = len if len < OFFLOAD_COPY else OFFLOAD_COPY, m, fault
    # The longest is CHECK_PIECES_WORK's and `read_vnet`'s, or `tx_collected`'s.
    if broken(CHECK_PIECES_SHORT, len < MIN_FRAME):
        return tx_invalid(nic, context)
    if beyond_copy(vnet, len):
        return tx_collected(nic, context, vnet, piece, skip, len)
    gather(copy, piece, skip, head)
    fault = read_vnet(vnet, copy, head, len, &offload, &wanted)
    if fault or (not wanted and broken(CHECK_PIECES_WORK, len > MAX_FRAME)):
        return tx_invalid(nic, context)
    parse_header(&header, copy)
    m = behind(&out[1], piece, n, skip + head)
    if m > FRAME_PIECES or (wanted and not keeps_offload(nic, context, &header, &offload, copy, len)):
        return tx_collected(nic, context, vnet, piece, skip, len)
    out[0].data = copy
    out[0].len = head
    return forward(nic, context, &header, out, m + 1, len, 0, &offload if wanted else NULL)


# --- one buffer -------------------------------------------------------------------------------------------

cdef inline int tx_stop(nic_t *nic, context_t *context, const virtqueue_t *q, uint32_t fault,
                        uint32_t found) noexcept nogil:
    stop_guest(nic, context, q, RING_TX, fault, found)
    return STOPPED


cdef inline int tx_buffer(nic_t *nic, context_t *context, const virtqueue_t *q, const uint8_t *data,
                          uint32_t len) noexcept nogil:
    """A buffer of one descriptor."""
    cdef vnet_header_t vnet
    cdef piece_t piece
    cdef uint32_t skip = context.virtio.header
    if broken(CHECK_BUFFER_HEADER, len < skip):
        return tx_stop(nic, context, q, FAULT_HEADER, len)
    memcpy(&vnet, data, 10)             # which all drivers have; num_buffers is not read (5.1.6.2.1)
    if vnet.flags | vnet.gso_type == 0:
        return tx_flat(nic, context, data + skip, len - skip)
    piece.data = data
    piece.len = len
    return tx_pieces(nic, context, &vnet, &piece, 1, skip, len - skip)


cdef inline int tx_chain(nic_t *nic, context_t *context, virtqueue_t *q, uint16_t *id,
                         uint32_t *slots) noexcept nogil:
    """A buffer that has to be walked. Sets what gives it back."""
    cdef chain_t chain
    cdef vnet_header_t vnet
    cdef uint32_t fault, skip = context.virtio.header
    chain.n = chain.len = chain.steps = 0
    fault = read_chain(context.virtio.memory, q, &chain, 0, CHAIN_READABLE)
    if fault:
        return tx_stop(nic, context, q, fault, chain.found)
    context.deficit -= <uint32_t>WALK_COST * chain.steps & nic.by_bytes
    nic.due = 0
    id[0] = chain.id
    slots[0] = chain.slots
    if broken(CHECK_CHAIN_HEADER, chain.len < skip):
        return tx_stop(nic, context, q, FAULT_HEADER, chain.len)
    memset(&vnet, 0, sizeof(vnet))
    gather(<uint8_t *>&vnet, chain.piece, 0, skip)
    return tx_pieces(nic, context, &vnet, chain.piece, chain.n, skip, chain.len - skip)


# --- a batch ----------------------------------------------------------------------------------------------

cdef inline void stage(const virtio_t *v, virtqueue_t *q, staged_t *staged, const vring_desc_t *desc,
                       uint32_t flags) noexcept nogil:
    """Looks up the memory of a descriptor that is a buffer of its own, and has it fetched."""
    staged.data = NULL
    staged.len = desc.len
    if broken(CHECK_BUFFER_FLAGS, flags & (VRING_DESC_F_NEXT | VRING_DESC_F_INDIRECT | VRING_DESC_F_WRITE)):
        return
    staged.data = guest_bytes(v.memory, desc.addr, desc.len, &q.hint)
    if staged.data != NULL:
        prefetch_read(staged.data)
        prefetch_read(staged.data + LINE)
        prefetch_read(staged.data + desc.len - 1)


cdef inline int stage_split(const virtio_t *v, virtqueue_t *q, staged_t *staged, int limit) noexcept nogil:
    """The next buffers of a split ring: how many, or BEYOND_RING."""
    cdef vring_desc_t desc
    cdef uint16_t head
    cdef int available = split_available(q), n = available, i
    if n > limit:
        n = limit
    for i in range(n):
        staged[i].id = split_head(q, i)
        if in_table(q, staged[i].id):
            prefetch_read(q.desc + 16 * <uint64_t>staged[i].id)
    for i in range(n, available if available < n + TX_BATCH else n + TX_BATCH):     # of the next batch
        head = split_head(q, i)
        if in_table(q, head):
            prefetch_read(q.desc + 16 * <uint64_t>head)
    for i in range(n):
        staged[i].data = NULL           # a descriptor outside the ring: the walk says so
        if in_table(q, staged[i].id):
            read_words(q.desc, staged[i].id, &desc)
            stage(v, q, &staged[i], &desc, desc.flags)
    return n


cdef inline int stage_packed(const virtio_t *v, virtqueue_t *q, staged_t *staged, int limit) noexcept nogil:
    """The next buffers of a packed ring, up to the first of several slots: how many."""
    cdef vring_desc_t desc
    cdef vring_packed_desc_t *packed = <vring_packed_desc_t *>&desc
    cdef uint32_t at = q.last_avail
    cdef bint wrap = q.avail_wrap
    cdef int n = 0
    while n < limit and packed_available(q, at, wrap):
        read_words(q.desc, at, &desc)
        staged[n].id = packed.id
        stage(v, q, &staged[n], &desc, packed.flags)
        n += 1
        if packed.flags & VRING_DESC_F_NEXT:
            break
        at += 1
        if at == q.size:
            at = 0
            wrap = not wrap
    return n


cdef inline int next_batch(nic_t *nic, context_t *context, virtqueue_t *q, staged_t *staged,
                           int limit) noexcept nogil:
    cdef int n
    if limit > TX_BATCH:
        limit = TX_BATCH
    if q.packed:
        return stage_packed(context.virtio, q, staged, limit)
    n = stage_split(context.virtio, q, staged, limit)
    if n == BEYOND_RING:
        return tx_stop(nic, context, q, FAULT_AVAIL, q.seen_avail)
    return n


cdef inline bint may_send(const nic_t *nic, const context_t *context) noexcept nogil:
    return context.deficit > 0 and not nic.over and has_tokens(context)


cdef inline int tx_queue(nic_t *nic, context_t *context, virtqueue_t *q, int budget,
                         int *done) noexcept nogil:
    """Sends from one queue; `done` is the last frame's. Returns frames sent."""
    cdef staged_t staged[TX_BATCH]
    cdef uint32_t slots
    cdef uint16_t id
    cdef int n = 0, count, i
    while n < budget and may_send(nic, context):
        count = next_batch(nic, context, q, staged, budget - n)
        if count <= 0:
            break
        for i in range(count):
            if not may_send(nic, context):
                break
            id = staged[i].id
            slots = 1
            if staged[i].data != NULL:
                done[0] = tx_buffer(nic, context, q, staged[i].data, staged[i].len)
            else:
                done[0] = tx_chain(nic, context, q, &id, &slots)
            if done[0] != DONE or context.state != CONTEXT_RUNNING:
                publish_used(context.virtio.memory, q)
                return n
            take(q, slots)
            use(q, id, 0, slots)
            n += 1
            if unlikely(nic.due <= 0):
                charge(nic, context, &context.time.tx)
            if nic.tso_context == context:      # the next one waits for the segments of this
                publish_used(context.virtio.memory, q)
                return n
        publish_used(context.virtio.memory, q)
    return n


cdef inline int virtio_turn(nic_t *nic, context_t *context, int budget, bint *stuck) noexcept nogil:
    """A virtio guest's turn (`schedule.pxd`): its queues take turns within the context's."""
    cdef virtio_t *v = context.virtio
    cdef uint32_t _
    cdef int n = 0, done = DONE
    if load_u32(&v.memory.gone):        # no turn: the look at the rings stops it
        clear_bit(nic.tx_active, context.index)
        return 0
    for _ in range(v.sending):
        n += tx_queue(nic, context, &v.queue[v.transmitq[v.tx_cursor]], budget - n, &done)
        if done != DONE or nic.tso_context == context or context.state != CONTEXT_RUNNING or \
                (n >= budget and may_send(nic, context)):
            break                       # it goes on with this queue
        v.tx_cursor = v.tx_cursor + 1 if v.tx_cursor + 1 < v.sending else 0
        if not may_send(nic, context):
            break
    if n:
        set_bit(nic.virtio_used, context.index)
    if context.state != CONTEXT_RUNNING or not tx_available(v):
        clear_bit(nic.tx_active, context.index)
        if context.deficit > 0 or not nic.timed:
            context.deficit = 0
    elif done == WAIT:
        stuck[0] = True
    return n
