"""Netfront's transmit side (Linux 2.6.16-xen: netfront.c).

A frame is built in the guest's memory, each page that it touches is granted to the backend for reading, and a
request names the grant. The grant ends when the response arrives, as in Xen 3: no grant lives longer than its
frame.
"""

from libc.stdint cimport uint8_t, uint16_t, uint64_t

from cdna.abi cimport PAGE_SHIFT, PAGE_SIZE
from cdna.compare.paths.xen3.grant_table cimport (
    end_foreign_access, get_free_ref, grant_foreign_access, put_free_ref,
)
from cdna.compare.paths.xen3.netfront cimport BAD_GRANT, BAD_ID, NO_BUFFER, tx_slot_t
from cdna.compare.paths.xen3.netif cimport NETIF_RING_SIZE, ring_free_requests, tx_entry, unconsumed_responses
from cdna.compare.paths.xen3.pseudo_physical cimport pfn_to_mfn
from cdna.compare.paths.xen3.public cimport (
    INVALID_REF, NETIF_RSP_OKAY, NETTXF_more_data, netif_tx_request_t, netif_tx_response_t,
)
from cdna.cpu cimport compiler_barrier, fence, store_u32
from cdna.nic.traffic cimport frame_write, frame_write_payload, load_length


cdef uint32_t tx_buf_gc(netfront_t *nf) noexcept nogil:
    cdef uint32_t n = unconsumed_responses(&nf.tx), _
    cdef netif_tx_response_t rsp
    cdef tx_slot_t *slot
    for _ in range(n):
        rsp = tx_entry(nf.tx.sring, nf.tx.rsp_cons).rsp
        compiler_barrier()
        nf.tx.rsp_cons += 1
        if rsp.id >= NETIF_RING_SIZE or nf.tx_slot[rsp.id].ref == INVALID_REF:
            nf.bad[BAD_ID] += 1
            continue
        slot = &nf.tx_slot[rsp.id]
        if end_foreign_access(nf.grants, slot.ref):
            put_free_ref(&nf.refs, slot.ref)
        else:                                   # the backend still has it: the reference is lost, as in Linux
            nf.bad[BAD_GRANT] += 1
        slot.ref = INVALID_REF
        nf.tx_errors += rsp.status != NETIF_RSP_OKAY
        if slot.buffer != NO_BUFFER:
            nf.buffer_free[nf.buffer_frees] = slot.buffer
            nf.buffer_frees += 1
            nf.tx_done += 1
        nf.tx_free[nf.tx_frees] = rsp.id
        nf.tx_frees += 1
    return n


cdef inline uint64_t buffer_start(const netfront_t *nf, uint32_t buffer) noexcept nogil:
    """Offset of a frame from the first transmit page."""
    return <uint64_t>buffer * nf.buffer_stride + (buffer % nf.buffer_colours << 6)


cdef inline void add_request(netfront_t *nf, uint64_t start, uint32_t size, uint16_t flags,
                             uint32_t buffer) noexcept nogil:
    """A grant of one page and a request. `size` is the piece's, or the whole frame's in its first request."""
    cdef netif_tx_request_t *req = &tx_entry(nf.tx.sring, nf.tx.req_prod_pvt).req
    cdef uint32_t ref = get_free_ref(&nf.refs), id_
    nf.tx_frees -= 1
    id_ = nf.tx_free[nf.tx_frees]
    nf.tx_slot[id_].ref = ref
    nf.tx_slot[id_].buffer = buffer
    grant_foreign_access(nf.grants, ref, nf.backend, pfn_to_mfn(nf.self,
                                                                nf.tx_pfn + <uint32_t>(start >> PAGE_SHIFT)),
                         True)
    req.gref = ref
    req.offset = start & (PAGE_SIZE - 1)
    req.flags = flags
    req.id = id_
    req.size = size
    nf.tx.req_prod_pvt += 1


cdef inline void send_frame(netfront_t *nf) noexcept nogil:
    """The next frame of the flow: written, granted, requested."""
    cdef uint32_t buffer, length, rest, piece
    cdef uint64_t start
    cdef uint8_t *frame
    nf.buffer_frees -= 1
    buffer = nf.buffer_free[nf.buffer_frees]
    start = buffer_start(nf, buffer)
    frame = nf.memory + (<uint64_t>pfn_to_mfn(nf.self, nf.tx_pfn) << PAGE_SHIFT) + start
    length = frame_write(frame, nf.load, nf.tx_flow, nf.tx_seq, nf.tx_mac, nf.mac)
    if nf.load.payload != NULL and not nf.load.verify:
        frame_write_payload(frame, nf.load, nf.tx_flow, nf.tx_seq)
    nf.tx_seq += 1
    rest = length
    while True:
        piece = PAGE_SIZE - (start & (PAGE_SIZE - 1))
        if piece >= rest:
            add_request(nf, start, rest, 0, buffer)
            return
        add_request(nf, start, length if rest == length else piece, NETTXF_more_data, NO_BUFFER)
        start += piece
        rest -= piece


cdef inline uint32_t slots_of(const netfront_t *nf, uint32_t length) noexcept nogil:
    """Requests that a frame may take: it can cross one page more where it does not begin with its page."""
    return (length + PAGE_SIZE - 1) // PAGE_SIZE + (nf.buffer_stride > PAGE_SIZE)


cdef uint32_t tx_fill(netfront_t *nf) noexcept nogil:
    cdef uint32_t n = 0, slots
    while nf.buffer_frees:
        slots = slots_of(nf, load_length(nf.load, nf.tx_seq))
        if ring_free_requests(&nf.tx) < slots or nf.tx_frees < slots or nf.refs.n_free < slots:
            break
        send_frame(nf)
        n += 1
    return n


cdef bint tx_wait(netfront_t *nf) noexcept nogil:
    cdef uint32_t outstanding = nf.tx.req_prod_pvt - nf.tx.rsp_cons
    store_u32(&nf.tx.sring.rsp_event, nf.tx.rsp_cons + (outstanding >> 1) + 1)
    fence()
    return unconsumed_responses(&nf.tx) == 0
