"""Netfront's receive side (Linux 2.6.16-xen: netif_poll and network_alloc_rx_buffers of netfront.c).

Copying: each request grants a page of the guest's for writing; the grant ends when the response is there.
Flipping: the guest unmaps pages and gives them up (one multicall of update_va_mapping and
XENMEM_decrease_reservation), and grants transfers in their place; what comes back is another machine frame,
which it maps, and whose M2P and P2M entries it writes (one multicall a batch).
"""

from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy

from cdna.abi cimport MAX_FRAME, PAGE_SHIFT, PAGE_SIZE
from cdna.compare.paths.xen3.grant_table cimport (
    end_foreign_access, end_foreign_transfer, get_free_ref, grant_foreign_access, grant_foreign_transfer,
    put_free_ref,
)
from cdna.compare.paths.xen3.multicall cimport multicall, set_call
from cdna.compare.paths.xen3.netfront cimport (
    BAD_CHAIN, BAD_GRANT, BAD_ID, BAD_STATUS, MAX_FRAME_PIECES, RX_MAX_TARGET, RX_MIN_TARGET, rx_piece_t,
    rx_slot_t,
)
from cdna.compare.paths.xen3.netif cimport NETIF_RING_SIZE, ring_free_requests, rx_entry, unconsumed_responses
from cdna.compare.paths.xen3.pseudo_physical cimport page_maddr, pfn_to_mfn, set_phys_to_machine
from cdna.compare.paths.xen3.public cimport (
    HYPERVISOR_memory_op, HYPERVISOR_mmu_update, HYPERVISOR_update_va_mapping, INVALID_MFN, INVALID_REF,
    MMU_MACHPHYS_UPDATE, NETRXF_more_data, PTE_PRESENT, PTE_WRITE, XENMEM_decrease_reservation,
    netif_rx_request_t, netif_rx_response_t,
)
from cdna.cpu cimport compiler_barrier, load_u32, prefetch_read, store_u64
from cdna.nic.traffic cimport (
    FRAME_FLOW, FRAME_LENGTH, FRAME_OK, FRAME_SEQUENCE, FRAME_TAIL, TAIL_BYTES, TRAFFIC_MIN_FRAME,
    frame_check,
    frame_stamp, frame_tail, load_length, stamp_t,
)


# --- posting ----------------------------------------------------------------------------------------------

cdef inline void grant_page(netfront_t *nf, uint32_t ref, uint32_t pfn) noexcept nogil:
    """Grants a page to be copied into, or gives it up and grants a transfer in its place."""
    cdef uint32_t mfn = pfn_to_mfn(nf.self, pfn)
    if not nf.flip:
        grant_foreign_access(nf.grants, ref, nf.backend, mfn, False)
        return
    grant_foreign_transfer(nf.grants, ref, nf.backend, pfn)
    set_phys_to_machine(nf.self, pfn, INVALID_MFN)
    set_call(&nf.call[nf.n_call], HYPERVISOR_update_va_mapping, pfn, 0, 0)
    nf.mfn[nf.n_call] = mfn
    nf.n_call += 1


cdef inline uint32_t refill_wanted(netfront_t *nf) noexcept nogil:
    """Requests to post now: none before half of the target is used up, then all that are missing.

    The target doubles when fewer than a quarter of it was left, as in Linux. Few requests in use means few
    pages in use, which stay in the cache.
    """
    cdef uint32_t posted = nf.rx.req_prod_pvt - nf.rx.rsp_cons
    cdef uint32_t left = nf.rx.req_prod_pvt - load_u32(&nf.rx.sring.rsp_prod)
    if posted > nf.rx_target // 2:
        return 0
    if left < nf.rx_target // 4:
        nf.rx_target = 2 * nf.rx_target if 2 * nf.rx_target < RX_MAX_TARGET else <uint32_t>RX_MAX_TARGET
    return nf.rx_target - posted


cdef inline void lower_target(netfront_t *nf) noexcept nogil:
    """Fewer pages when most of the requests were still there at a callback: by one, as in Linux."""
    if nf.rx.req_prod_pvt - load_u32(&nf.rx.sring.rsp_prod) > 3 * nf.rx_target // 4 and \
            nf.rx_target > RX_MIN_TARGET:
        nf.rx_target -= 1


cdef uint32_t rx_alloc(netfront_t *nf) noexcept nogil:
    cdef uint32_t n = refill_wanted(nf), i, id_, ref, pfn
    cdef netif_rx_request_t *req
    if n > ring_free_requests(&nf.rx):
        n = ring_free_requests(&nf.rx)
    if n > nf.page_frees:
        n = nf.page_frees
    if n > nf.rx_frees:
        n = nf.rx_frees
    if n > nf.refs.n_free:
        n = nf.refs.n_free
    if n == 0:
        return 0
    nf.n_call = 0
    for i in range(n):
        nf.rx_frees -= 1
        id_ = nf.rx_free[nf.rx_frees]
        nf.page_frees -= 1
        pfn = nf.page_free[nf.page_frees]
        ref = get_free_ref(&nf.refs)
        grant_page(nf, ref, pfn)
        nf.rx_slot[id_].ref = ref
        nf.rx_slot[id_].pfn = pfn
        req = &rx_entry(nf.rx.sring, nf.rx.req_prod_pvt + i).req
        req.id = id_
        req.gref = ref
    if nf.n_call:
        set_call(&nf.call[nf.n_call], HYPERVISOR_memory_op, XENMEM_decrease_reservation, <size_t>&nf.mfn[0],
                 nf.n_call)
        multicall(nf.xen, nf.self, nf.call, nf.n_call + 1)
        nf.balloon += nf.n_call
    nf.rx.req_prod_pvt += n             # announced by the caller: the backend may use them from then on
    return n


# --- taking responses -------------------------------------------------------------------------------------

cdef inline bint take_back(netfront_t *nf, const rx_slot_t *slot) noexcept nogil:
    """Ends the grant of a response. In flip mode notes the frame that came. False: there is no page."""
    cdef uint32_t mfn
    if not nf.flip:
        if not end_foreign_access(nf.grants, slot.ref):
            nf.bad[BAD_GRANT] += 1
            return False
    else:
        mfn = end_foreign_transfer(nf.grants, slot.ref)
        if mfn == INVALID_MFN:                  # unfulfilled request: the balloon stays one page larger
            put_free_ref(&nf.refs, slot.ref)
            nf.bad[BAD_GRANT] += 1
            return False
        nf.mmu_op[nf.n_call].ptr = <uint64_t>mfn << PAGE_SHIFT | MMU_MACHPHYS_UPDATE
        nf.mmu_op[nf.n_call].val = slot.pfn
        set_call(&nf.call[nf.n_call], HYPERVISOR_update_va_mapping, slot.pfn,
                 <uint64_t>mfn << PAGE_SHIFT | PTE_PRESENT | PTE_WRITE, 0)
        set_phys_to_machine(nf.self, slot.pfn, mfn)
        nf.n_call += 1
        nf.balloon -= 1
    put_free_ref(&nf.refs, slot.ref)
    return True


cdef inline void take_response(netfront_t *nf) noexcept nogil:
    """One response becomes a piece of the batch."""
    cdef netif_rx_response_t rsp = rx_entry(nf.rx.sring, nf.rx.rsp_cons).rsp
    cdef rx_piece_t *piece = &nf.piece[nf.n_piece]
    compiler_barrier()
    nf.rx.rsp_cons += 1
    if rsp.id >= NETIF_RING_SIZE or nf.rx_slot[rsp.id].ref == INVALID_REF:
        nf.bad[BAD_ID] += 1
        return
    piece.pfn = nf.rx_slot[rsp.id].pfn
    piece.offset = rsp.offset
    piece.flags = rsp.flags
    piece.status = rsp.status
    if rsp.status > PAGE_SIZE or rsp.offset > PAGE_SIZE - (rsp.status if rsp.status > 0 else 0):
        piece.status = -1
    piece.lost = not take_back(nf, &nf.rx_slot[rsp.id])
    nf.rx_slot[rsp.id].ref = INVALID_REF
    nf.rx_free[nf.rx_frees] = rsp.id
    nf.rx_frees += 1
    nf.n_piece += 1


cdef inline void remap(netfront_t *nf) noexcept nogil:
    """Page tables and M2P entries of all pages that came in this batch."""
    if nf.n_call:
        set_call(&nf.call[nf.n_call], HYPERVISOR_mmu_update, <size_t>&nf.mmu_op[0], nf.n_call, 0)
        multicall(nf.xen, nf.self, nf.call, nf.n_call + 1)


# --- frames -----------------------------------------------------------------------------------------------

cdef inline uint8_t *piece_data(const netfront_t *nf, const rx_piece_t *piece) noexcept nogil:
    return nf.memory + page_maddr(nf.self, piece.pfn) + piece.offset


cdef inline uint32_t gather(netfront_t *nf, const rx_piece_t *piece, uint32_t n, uint32_t first,
                            uint32_t length) noexcept nogil:
    """Copies bytes first .. first + length of a frame of n pieces to nf.flat; how many there were."""
    cdef uint32_t i, skip, chunk, done = 0
    for i in range(n):
        skip = first if first < <uint32_t>piece[i].status else <uint32_t>piece[i].status
        first -= skip
        chunk = piece[i].status - skip
        if chunk > length - done:
            chunk = length - done
        memcpy(nf.flat + done, piece_data(nf, &piece[i]) + skip, chunk)
        done += chunk
    return done


cdef int check_pieces(netfront_t *nf, const rx_piece_t *piece, uint32_t n, uint32_t length) noexcept nogil:
    """frame_check for a frame of several pages. Only where every byte is checked is it put together first."""
    cdef stamp_t *stamp
    cdef uint64_t tail
    if nf.load.verify:
        gather(nf, piece, n, 0, length)
        return frame_check(nf.flat, length, nf.load, nf.rx_flow, nf.rx_seq)
    if piece[0].status < TRAFFIC_MIN_FRAME:
        return FRAME_LENGTH
    stamp = frame_stamp(piece_data(nf, &piece[0]))
    if stamp.flow != nf.rx_flow:
        return FRAME_FLOW
    if stamp.seq != nf.rx_seq:
        return FRAME_SEQUENCE
    if length != load_length(nf.load, nf.rx_seq) or stamp.len != length:
        return FRAME_LENGTH
    gather(nf, piece, n, length - TAIL_BYTES, TAIL_BYTES)
    memcpy(&tail, nf.flat, 8)
    return FRAME_OK if tail == frame_tail(nf.rx_flow, nf.rx_seq) else FRAME_TAIL


cdef inline void receive_frame(netfront_t *nf, const rx_piece_t *piece, uint32_t n) noexcept nogil:
    """A whole frame: is it ours, and is it the one that comes next?"""
    cdef uint8_t *frame = piece_data(nf, &piece[0])
    cdef uint32_t length = 0, i
    cdef int error
    for i in range(n):
        length += piece[i].status
    if length > MAX_FRAME or piece[0].status < TRAFFIC_MIN_FRAME:
        nf.bad[<int>FRAME_LENGTH] += 1
        nf.rx_bad += 1
        return
    if for_other(frame, nf.mac):
        nf.rx_other += 1
        return
    if n == 1:
        error = frame_check(frame, length, nf.load, nf.rx_flow, nf.rx_seq)
    else:
        error = check_pieces(nf, piece, n, length)
    if error:
        nf.bad[error] += 1
        nf.rx_bad += 1
        if error == FRAME_SEQUENCE:             # go on from there, so that one loss is one bad frame
            nf.rx_seq = frame_stamp(frame).seq
    nf.rx_seq += 1
    nf.rx_frames += 1
    nf.rx_bytes += length


cdef inline bint for_other(const uint8_t *frame, uint64_t mac) noexcept nogil:
    """Whether the destination is another address than `mac`."""
    cdef uint64_t dst = 0
    memcpy(&dst, frame, 6)
    return dst != mac


cdef inline void free_pieces(netfront_t *nf, const rx_piece_t *piece, uint32_t n) noexcept nogil:
    cdef uint32_t i
    for i in range(n):
        if not piece[i].lost:
            nf.page_free[nf.page_frees] = piece[i].pfn
            nf.page_frees += 1


cdef inline uint32_t frame_pieces(netfront_t *nf, uint32_t first) noexcept nogil:
    """Pieces from `first` to the end of its frame; 0: the end has not come yet."""
    cdef uint32_t i
    for i in range(first, nf.n_piece):
        if not nf.piece[i].flags & NETRXF_more_data:
            return i - first + 1
    return 0


cdef inline bint whole(netfront_t *nf, const rx_piece_t *piece, uint32_t n) noexcept nogil:
    """Whether all pieces of a frame arrived in order."""
    cdef uint32_t i
    if n > MAX_FRAME_PIECES:
        nf.bad[BAD_CHAIN] += 1
        nf.rx_bad += 1
        return False
    for i in range(n):
        if piece[i].lost or piece[i].status < 0:
            nf.bad[BAD_STATUS] += 1
            nf.rx_bad += 1
            return False
    return True


cdef uint32_t rx_poll(netfront_t *nf) noexcept nogil:
    cdef uint32_t n = unconsumed_responses(&nf.rx), i = 0, pieces, _
    if n == 0:
        return 0
    lower_target(nf)
    if n > NETIF_RING_SIZE - nf.n_piece:
        n = NETIF_RING_SIZE - nf.n_piece
    nf.n_call = 0
    for _ in range(n):
        take_response(nf)
    remap(nf)
    while i < nf.n_piece:
        if i + 4 < nf.n_piece and not nf.piece[i + 4].lost:
            prefetch_read(piece_data(nf, &nf.piece[i + 4]))
        pieces = frame_pieces(nf, i)
        if pieces == 0:
            break
        if whole(nf, &nf.piece[i], pieces):
            receive_frame(nf, &nf.piece[i], pieces)
        free_pieces(nf, &nf.piece[i], pieces)
        i += pieces
    nf.n_piece -= i                             # of a frame whose end comes with the next batch
    for pieces in range(nf.n_piece):
        nf.piece[pieces] = nf.piece[i + pieces]
    store_u64(nf.ack, nf.rx_frames)
    return n
