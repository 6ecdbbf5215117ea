"""A shared ring of the Xen baseline, one operation at a time."""

from libc.stdint cimport int16_t, uint16_t, uint32_t

from cdna.compare.paths.xen3.netif cimport (
    back_ring_t, final_check_for_requests, final_check_for_responses, front_ring_t,
    push_requests_and_check_notify, push_responses_and_check_notify, request_prod_overflow,
    ring_free_requests, shared_ring_init, tx_entry, unconsumed_requests, unconsumed_responses,
)
from cdna.compare.paths.xen3.public cimport netif_tx_sring_t, sring_t
from cdna.memory cimport SharedRegion


cdef class NetifRing:
    """A tx ring with both ends: the frontend writes requests, the backend takes and answers them."""
    cdef SharedRegion _page
    cdef front_ring_t _front
    cdef back_ring_t _back

    def __cinit__(self, uint32_t start=0):
        """`start`: value of all indices, to begin near the wrap of 32 bits."""
        self._page = SharedRegion(sizeof(netif_tx_sring_t))
        cdef sring_t *s = <sring_t *>self._page.base
        shared_ring_init(s)
        s.req_prod = s.rsp_prod = start
        s.req_event = s.rsp_event = start + 1
        self._front.sring = self._back.sring = s
        self._front.req_prod_pvt = self._front.rsp_cons = start
        self._back.rsp_prod_pvt = self._back.req_cons = start

    @property
    def free_requests(self) -> int:
        return ring_free_requests(&self._front)

    def request(self, uint16_t id_) -> None:
        """Writes a request; `push_requests` announces it."""
        tx_entry(self._front.sring, self._front.req_prod_pvt).req.id = id_
        self._front.req_prod_pvt += 1

    def push_requests(self) -> bool:
        """Whether the backend is to be notified."""
        return push_requests_and_check_notify(&self._front)

    @property
    def unconsumed_requests(self) -> int:
        return unconsumed_requests(&self._back)

    @property
    def overflow(self) -> bool:
        """Whether the frontend has announced more than the ring holds."""
        return request_prod_overflow(&self._back)

    def take_request(self) -> int:
        """The id of the next request."""
        cdef uint16_t id_ = tx_entry(self._back.sring, self._back.req_cons).req.id
        self._back.req_cons += 1
        return id_

    def final_check_for_requests(self) -> bool:
        return final_check_for_requests(&self._back)

    def respond(self, uint16_t id_, int16_t status=0) -> None:
        tx_entry(self._back.sring, self._back.rsp_prod_pvt).rsp.id = id_
        tx_entry(self._back.sring, self._back.rsp_prod_pvt).rsp.status = status
        self._back.rsp_prod_pvt += 1

    def push_responses(self) -> bool:
        """Whether the frontend is to be notified."""
        return push_responses_and_check_notify(&self._back)

    @property
    def unconsumed_responses(self) -> int:
        return unconsumed_responses(&self._front)

    def take_response(self):
        """(id, status) of the next response."""
        entry = tx_entry(self._front.sring, self._front.rsp_cons)
        self._front.rsp_cons += 1
        return entry.rsp.id, entry.rsp.status

    def final_check_for_responses(self) -> bool:
        return final_check_for_responses(&self._front)

    def poke_req_prod(self, uint32_t value) -> None:
        """Writes the shared producer index as a hostile frontend can."""
        self._front.sring.req_prod = value
