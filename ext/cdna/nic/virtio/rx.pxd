"""Reception into a virtio guest's rings: a frame behind its virtio-net header, in one buffer or several.

Several only where the driver took MRG_RXBUF: the header's num_buffers says how many (virtio 1.2, 5.1.6.4).
Which of several queues: by the frame's flow, so that the frames of a flow stay in order.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from cdna.abi cimport (
    COMPLETION_F_CSUM_OK, FAULT_AVAIL, FAULT_CHAIN, RING_RX, VNET_HEADER, offload_t, vnet_header_t,
)
from cdna.checks cimport (
    CHECK_FILL_FLAGS, CHECK_FILL_ROOM, CHECK_MERGED_AVAILABLE, CHECK_MERGED_CRUMBS, CHECK_MERGED_FEATURE,
    CHECK_MERGED_MANY, broken,
)
from cdna.cpu cimport copy_bytes, load_u16, prefetch_read, prefetch_write, unlikely
from cdna.nic.account cimport charge, charge_payer, in_debt
from cdna.nic.bits cimport set_bit
from cdna.nic.context cimport context_t
from cdna.nic.frame cimport MAX_PIECES, piece_t
from cdna.nic.offload.flow_hash cimport flow_hash, rss_hash, toeplitz_t
from cdna.nic.offload.vnet cimport write_vnet
from cdna.nic.state cimport nic_t
from cdna.nic.virtio.chain cimport CHAIN_WRITABLE, chain_t, read_chain
from cdna.nic.virtio.memory cimport guest_bytes, log_range
from cdna.nic.virtio.notify cimport stop_guest
from cdna.nic.virtio.queue cimport (
    BEYOND_RING, avail_ring, in_table, packed_available, publish_used, read_words, split_available,
    split_head, take, use, virtio_t, virtqueue_t,
)
from cdna.virtio cimport (
    VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT, VRING_DESC_F_WRITE, vring_desc_t, vring_packed_desc_t,
)

cdef enum:
    RX_AHEAD = 8                # buffers whose memory is fetched before their turn
    RX_DESC_AHEAD = 16          # and their descriptors
    RX_PUBLISH = 32             # used entries after which the driver sees them
    LEGACY_HEADER = 10          # bytes of the header without num_buffers (5.1.6)
    MAX_MERGED = 64             # buffers of one frame: of 1 KiB for 64 KiB

cdef struct merged_t:           # a buffer that takes part of a frame
    uint16_t id
    uint16_t slots
    uint32_t len


cdef inline virtqueue_t *receive_queue(virtio_t *v, const piece_t *piece) noexcept nogil:
    """The queue that a frame goes to, or NULL. The first piece holds the frame's headers."""
    cdef uint32_t hash = 0, which
    if v.receiving == 0 or not v.link:
        return NULL
    if v.receiving == 1:
        return &v.queue[v.receiveq[0]]
    if v.rss.types:
        which = v.rss.unclassified
        if rss_hash(<toeplitz_t *>v.rss.key, v.rss.types, piece.data, piece.len, &hash):
            which = v.rss.queue[hash & v.rss.mask]
        return &v.queue[2 * which] if v.queue[2 * which].ready else NULL
    which = <uint32_t>(<uint64_t>flow_hash(piece.data, piece.len) * v.receiving >> 32)
    return &v.queue[v.receiveq[which]]


cdef inline void rx_prefetch_split(const virtio_t *v, virtqueue_t *q, uint32_t len) noexcept nogil:
    """Fetches the descriptor and the memory of buffers whose turn comes soon; only what is available."""
    cdef uint16_t left = q.seen_avail - q.last_avail, head
    cdef vring_desc_t desc
    cdef uint8_t *data
    if left > RX_DESC_AHEAD:
        head = split_head(q, RX_DESC_AHEAD)
        if in_table(q, head):
            prefetch_read(q.desc + 16 * <uint64_t>head)
    if left > RX_AHEAD:
        head = split_head(q, RX_AHEAD)
        if in_table(q, head):
            read_words(q.desc, head, &desc)
            data = guest_bytes(v.memory, desc.addr, 1, &q.hint)
            if data != NULL:
                prefetch_write(data)
                prefetch_write(data + len - 1)


cdef inline void rx_prefetch_packed(const virtio_t *v, virtqueue_t *q, uint32_t len) noexcept nogil:
    cdef uint32_t at = q.last_avail + RX_AHEAD
    cdef vring_desc_t desc
    cdef uint8_t *data
    if at + RX_AHEAD >= q.size:
        return
    prefetch_read(q.desc + 16 * <uint64_t>(at + RX_AHEAD))
    read_words(q.desc, at, &desc)
    data = guest_bytes(v.memory, desc.addr, 1, &q.hint)
    if data != NULL:
        prefetch_write(data)
        prefetch_write(data + len - 1)


cdef inline void set_header(const virtio_t *v, vnet_header_t *vnet, const piece_t *piece, uint32_t flags,
                            const offload_t *offload) noexcept nogil:
    write_vnet(vnet, offload, piece, flags if v.checksums else flags & ~<uint32_t>COMPLETION_F_CSUM_OK)


cdef inline bint rx_simple(virtio_t *v, virtqueue_t *q, const vring_desc_t *desc, const piece_t *piece,
                           uint32_t len, uint32_t flags, const offload_t *offload) noexcept nogil:
    """Into a buffer of one descriptor that lies in one region, if it is long enough. Returns whether."""
    cdef vnet_header_t header
    cdef uint8_t *to
    cdef uint8_t *at
    cdef uint32_t total = len + v.header
    if broken(CHECK_FILL_ROOM, desc.len < total):
        return False
    to = guest_bytes(v.memory, desc.addr, total, &q.hint)
    if to == NULL:
        return False
    set_header(v, &header, piece, flags, offload)
    if v.header == VNET_HEADER:
        memcpy(to, &header, VNET_HEADER)
    else:
        memcpy(to, &header, LEGACY_HEADER)
    at = to + v.header
    while len:
        copy_bytes(at, piece.data, piece.len)
        at += piece.len
        len -= piece.len
        piece += 1
    if unlikely(v.memory.log != NULL):
        log_range(v.memory, desc.addr, total)
    return True


cdef inline void scatter_pieces(const piece_t *to, const piece_t *piece, uint32_t len) noexcept nogil:
    """Copies `len` bytes from a list of pieces to another list; both hold as many."""
    cdef uint32_t at = 0, skip = 0, n
    while len:
        n = to.len - at
        if n > piece.len - skip:
            n = piece.len - skip
        copy_bytes(<uint8_t *>to.data + at, piece.data + skip, n)
        at += n
        skip += n
        len -= n
        if at == to.len:
            to += 1
            at = 0
        if skip == piece.len:
            piece += 1
            skip = 0


cdef inline bint rx_stop(nic_t *nic, context_t *context, const virtqueue_t *q, uint32_t fault,
                         uint32_t found) noexcept nogil:
    stop_guest(nic, context, q, RING_RX, fault, found)
    return False


cdef inline bint rx_any(virtqueue_t *q, uint32_t offset) noexcept nogil:
    """Whether a buffer is available `offset` buffers (split) or slots (packed) behind the next one."""
    cdef uint32_t at
    if not q.packed:
        if offset >= <uint16_t>(q.seen_avail - q.last_avail):
            q.seen_avail = load_u16(&avail_ring(q).idx)
        return offset < <uint16_t>(q.seen_avail - q.last_avail)
    at = q.last_avail + offset
    if at >= q.size:
        return offset < q.size and packed_available(q, at - q.size, not q.avail_wrap)
    return packed_available(q, at, q.avail_wrap)


cdef inline bint rx_merged(nic_t *nic, context_t *context, virtqueue_t *q, const piece_t *piece,
                           uint32_t len, uint32_t flags, const offload_t *offload) noexcept nogil:
    """Into buffers that have to be walked, or several of them. Returns whether it was possible."""
    cdef virtio_t *v = context.virtio
    cdef chain_t chain
    cdef merged_t buffer[MAX_MERGED]
    cdef piece_t source[MAX_PIECES]
    cdef vnet_header_t vnet
    cdef uint32_t total = len + v.header, count = 0, offset = 0, fault, before, left = len, i
    chain.n = chain.len = chain.steps = 0
    while chain.len < total:
        if broken(CHECK_MERGED_MANY, count == MAX_MERGED) or \
                broken(CHECK_MERGED_FEATURE, count and not v.mergeable) or \
                broken(CHECK_MERGED_AVAILABLE, not rx_any(q, offset)):
            return False
        before = chain.len
        fault = read_chain(v.memory, q, &chain, offset, CHAIN_WRITABLE)
        if fault:
            return rx_stop(nic, context, q, fault, chain.found)
        buffer[count].id = chain.id
        buffer[count].slots = chain.slots
        buffer[count].len = chain.len - before
        offset += chain.slots if q.packed else 1
        count += 1
    before = 0
    for i in range(chain.n):
        if before >= total:
            break
        before += chain.piece[i].len
        # Next to nothing in each, and each may be a page yet to be made.
        if broken(CHECK_MERGED_CRUMBS, i >= 8 + total // 256):
            return rx_stop(nic, context, q, FAULT_CHAIN, i)
    set_header(v, &vnet, piece, flags, offload)
    vnet.num_buffers = count
    source[0].data = <const uint8_t *>&vnet
    source[0].len = v.header
    i = 1
    while left:
        source[i] = piece[0]
        left -= piece.len
        piece += 1
        i += 1
    scatter_pieces(chain.piece, source, total)
    if unlikely(v.memory.log != NULL):
        left = total
        i = 0
        while left:
            before = left if left < chain.piece[i].len else chain.piece[i].len
            log_range(v.memory, chain.addr[i], before)
            left -= before
            i += 1
    for i in range(count):
        before = buffer[i].len if buffer[i].len < total else total
        total -= before
        take(q, buffer[i].slots)
        use(q, buffer[i].id, before, buffer[i].slots)
    return True


cdef inline bint rx_slow(nic_t *nic, context_t *context, virtqueue_t *q, const piece_t *piece,
                         uint32_t len, uint32_t flags, const offload_t *offload) noexcept nogil:
    """`rx_merged`, at the receiver's cost: it has posted what has to be walked."""
    cdef bint done
    charge_payer(nic)
    done = rx_merged(nic, context, q, piece, len, flags, offload)
    charge(nic, context, &context.time.rx)
    return done


cdef inline bint rx_split(nic_t *nic, context_t *context, virtqueue_t *q, const piece_t *piece,
                          uint32_t len, uint32_t flags, const offload_t *offload) noexcept nogil:
    cdef vring_desc_t desc
    cdef uint16_t head
    cdef int available = split_available(q)
    if available <= 0:
        return rx_stop(nic, context, q, FAULT_AVAIL, q.seen_avail) if available == BEYOND_RING else False
    head = split_head(q, 0)
    if in_table(q, head):
        rx_prefetch_split(context.virtio, q, len)
        read_words(q.desc, head, &desc)
        if not broken(CHECK_FILL_FLAGS, desc.flags != VRING_DESC_F_WRITE) and \
                rx_simple(context.virtio, q, &desc, piece, len, flags, offload):
            take(q, 1)
            use(q, head, len + context.virtio.header, 1)
            return True
    return rx_slow(nic, context, q, piece, len, flags, offload)


cdef inline bint rx_packed(nic_t *nic, context_t *context, virtqueue_t *q, const piece_t *piece,
                           uint32_t len, uint32_t flags, const offload_t *offload) noexcept nogil:
    cdef vring_desc_t desc
    cdef const vring_packed_desc_t *packed = <const vring_packed_desc_t *>&desc
    cdef uint16_t kind
    if not packed_available(q, q.last_avail, q.avail_wrap):
        return False
    rx_prefetch_packed(context.virtio, q, len)
    read_words(q.desc, q.last_avail, &desc)
    kind = packed.flags & (VRING_DESC_F_WRITE | VRING_DESC_F_NEXT | VRING_DESC_F_INDIRECT)
    if not broken(CHECK_FILL_FLAGS, kind != VRING_DESC_F_WRITE) and \
            rx_simple(context.virtio, q, &desc, piece, len, flags, offload):
        take(q, 1)
        use(q, packed.id, len + context.virtio.header, 1)
        return True
    return rx_slow(nic, context, q, piece, len, flags, offload)


cdef inline void count_unfilled(context_t *context) noexcept nogil:
    """Counts a frame that was not written to a buffer, by the reason."""
    if not context.virtio.link:
        context.stats.rx_drop_link += 1
    elif context.virtio.receiving == 0:
        context.stats.rx_drop_no_driver += 1
    else:
        context.stats.rx_drop_no_buffer += 1


cdef inline bint fill_virtio(nic_t *nic, context_t *context, const piece_t *piece, uint32_t len,
                             uint32_t flags, const offload_t *offload) noexcept nogil:
    """Writes a frame of `len` bytes to the guest's next buffers. Returns whether it was possible.

    offload: what the receiver is to do, or NULL.
    """
    cdef virtio_t *v = context.virtio
    cdef virtqueue_t *q = receive_queue(v, piece)
    cdef bint done
    if q == NULL or in_debt(nic, context):
        done = False
    elif q.packed:
        done = rx_packed(nic, context, q, piece, len, flags, offload)
    else:
        done = rx_split(nic, context, q, piece, len, flags, offload)
    if not done:
        count_unfilled(context)
        return False
    context.stats.rx_frames += 1
    context.stats.rx_bytes += len
    set_bit(nic.virtio_used, context.index)
    if q.pending >= RX_PUBLISH:
        publish_used(v.memory, q)
    return True
