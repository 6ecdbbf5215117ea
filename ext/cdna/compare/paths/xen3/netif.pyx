"""A shared ring with both ends in one place, for tests of the notification rule."""

from libc.stdint cimport int16_t, uint16_t

from cdna.memory cimport SharedRegion


cdef class NetifRing:
    """One tx ring: the frontend writes requests, the backend takes them and answers with responses."""
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
        if not unconsumed_requests(&self._back):
            raise IndexError("no request")
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

    def take_response(self):
        """(id, status) of the next response."""
        if not unconsumed_responses(&self._front):
            raise IndexError("no response")
        entry = tx_entry(self._front.sring, self._front.rsp_cons)
        self._front.rsp_cons += 1
        return entry.rsp.id, entry.rsp.status

    def final_check_for_responses(self) -> bool:
        return final_check_for_responses(&self._front)

    def poke_req_prod(self, uint32_t value) -> None:
        """Writes the shared producer index as a hostile frontend can."""
        self._front.sring.req_prod = value
