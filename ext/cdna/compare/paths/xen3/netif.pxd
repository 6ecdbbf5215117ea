"""The rings between netfront and netback (Xen: xen/io/ring.h), with Xen's rule of when to notify.

Producer indices on the shared page are the other side's word: each is read once, and checked against the
ring before it is believed. The side that produces notifies only when the other one asked for it by an event
index that this push passes:

    notify  <=>  new_prod - event < new_prod - old_prod        (free-running, modulo 2**32)
"""

from libc.stdint cimport uint32_t

from cdna.compare.paths.xen3.public cimport (
    NETIF_RING_SIZE, netif_rx_entry_t, netif_rx_sring_t, netif_tx_entry_t, netif_tx_sring_t, sring_t,
)
from cdna.cpu cimport fence, load_u32, store_u32

cdef struct front_ring_t:           # the frontend's own indices
    uint32_t req_prod_pvt           # requests written, announced or not
    uint32_t rsp_cons               # responses taken
    sring_t *sring

cdef struct back_ring_t:            # the backend's
    uint32_t rsp_prod_pvt           # responses written, announced or not
    uint32_t req_cons               # requests taken
    sring_t *sring


cdef inline void shared_ring_init(sring_t *s) noexcept nogil:
    s.req_prod = s.rsp_prod = 0
    s.req_event = s.rsp_event = 1


cdef inline netif_tx_entry_t *tx_entry(sring_t *s, uint32_t index) noexcept nogil:
    return &(<netif_tx_sring_t *>s).ring[index & (NETIF_RING_SIZE - 1)]


cdef inline netif_rx_entry_t *rx_entry(sring_t *s, uint32_t index) noexcept nogil:
    return &(<netif_rx_sring_t *>s).ring[index & (NETIF_RING_SIZE - 1)]


cdef inline uint32_t ring_free_requests(const front_ring_t *r) noexcept nogil:
    """RING_FREE_REQUESTS: slots without a request or a response that was not taken."""
    return NETIF_RING_SIZE - (r.req_prod_pvt - r.rsp_cons)


cdef inline uint32_t unconsumed_requests(const back_ring_t *r) noexcept nogil:
    """RING_HAS_UNCONSUMED_REQUESTS: requests to take, never more than there are slots without a response."""
    cdef uint32_t req = load_u32(&r.sring.req_prod) - r.req_cons
    cdef uint32_t rsp = NETIF_RING_SIZE - (r.req_cons - r.rsp_prod_pvt)
    return req if req < rsp else rsp


cdef inline bint request_prod_overflow(const back_ring_t *r) noexcept nogil:
    """RING_REQUEST_PROD_OVERFLOW: the frontend announced more requests than the ring holds."""
    return load_u32(&r.sring.req_prod) - r.rsp_prod_pvt > NETIF_RING_SIZE


cdef inline uint32_t unconsumed_responses(const front_ring_t *r) noexcept nogil:
    """Responses to take, never more than there are requests outstanding."""
    cdef uint32_t rsp = load_u32(&r.sring.rsp_prod) - r.rsp_cons
    cdef uint32_t outstanding = r.req_prod_pvt - r.rsp_cons
    return rsp if rsp <= outstanding else 0


cdef inline bint push_requests_and_check_notify(front_ring_t *r) noexcept nogil:
    """RING_PUSH_REQUESTS_AND_CHECK_NOTIFY: announces what was written; whether the backend wants an event."""
    cdef uint32_t old = r.sring.req_prod            # ours to write
    cdef uint32_t new = r.req_prod_pvt
    store_u32(&r.sring.req_prod, new)
    fence()                                         # the producer before the event index
    return new - load_u32(&r.sring.req_event) < new - old


cdef inline bint push_responses_and_check_notify(back_ring_t *r) noexcept nogil:
    """RING_PUSH_RESPONSES_AND_CHECK_NOTIFY."""
    cdef uint32_t old = r.sring.rsp_prod
    cdef uint32_t new = r.rsp_prod_pvt
    store_u32(&r.sring.rsp_prod, new)
    fence()
    return new - load_u32(&r.sring.rsp_event) < new - old


cdef inline bint final_check_for_requests(back_ring_t *r) noexcept nogil:
    """RING_FINAL_CHECK_FOR_REQUESTS: asks for an event at the next request, then looks once more."""
    if unconsumed_requests(r):
        return True
    store_u32(&r.sring.req_event, r.req_cons + 1)
    fence()
    return unconsumed_requests(r) != 0


cdef inline bint final_check_for_responses(front_ring_t *r) noexcept nogil:
    """RING_FINAL_CHECK_FOR_RESPONSES."""
    if unconsumed_responses(r):
        return True
    store_u32(&r.sring.rsp_event, r.rsp_cons + 1)
    fence()
    return unconsumed_responses(r) != 0
