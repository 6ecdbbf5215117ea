"""The guest's loop: its event, what was sent, what came, what to send next."""

from cdna.compare.paths.xen3.event_channel cimport evtchn_do_upcall
from cdna.compare.paths.xen3.multicall cimport hypercall
from cdna.compare.paths.xen3.netfront_rx cimport rx_alloc, rx_poll
from cdna.compare.paths.xen3.netfront_tx cimport tx_buf_gc, tx_fill, tx_wait
from cdna.compare.paths.xen3.netif cimport final_check_for_responses, push_requests_and_check_notify
from cdna.compare.paths.xen3.public cimport EVTCHNOP_send, HYPERVISOR_event_channel_op
from cdna.compare.host cimport PHASE_LOAD, slice_over, stay_runnable


cdef inline void notify_backend(netfront_t *nf) noexcept nogil:
    hypercall(nf.xen, nf.self, HYPERVISOR_event_channel_op, EVTCHNOP_send, nf.port, 0)


cdef inline uint32_t netfront_turn(netfront_t *nf, host_t *host) noexcept nogil:
    """One round over both rings; at most one event to the backend. Returns work done."""
    cdef uint32_t work
    cdef bint notify = False
    work = rx_poll(nf)
    if rx_alloc(nf):
        notify = push_requests_and_check_notify(&nf.rx)
    work += tx_buf_gc(nf)
    if nf.transmit and host.phase == PHASE_LOAD and tx_fill(nf):
        work += 1
        notify |= push_requests_and_check_notify(&nf.tx)
    if notify:
        notify_backend(nf)
    return work


cdef inline bint may_block(netfront_t *nf) noexcept nogil:
    """Asks for the events that end the wait; False when there is something to do after all."""
    if nf.tx.req_prod_pvt != nf.tx.rsp_cons and not tx_wait(nf):
        return False
    return not final_check_for_responses(&nf.rx)


cdef void netfront_run(domain_t *self, host_t *host) noexcept nogil:
    cdef netfront_t *nf = <netfront_t *>self.state
    cdef uint16_t port[4]
    evtchn_do_upcall(nf.self.shared, port, 4)
    while True:
        if netfront_turn(nf, host) == 0 and may_block(nf):
            return
        if slice_over(host):
            stay_runnable(host)
            return
