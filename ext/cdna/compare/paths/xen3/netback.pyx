"""The driver domain's loop: events, NIC completions, netback's two sides, the NIC's ring.

It polls as NAPI does: it goes on as long as there is work of any kind, and blocks only then. Unmapping waits
until it can be done for many requests at once, or until there is nothing else to do.
"""

from cdna.abi cimport COMPLETION_F_EOP, RING_RX, completion_t
from cdna.compare.paths.xen3.event_channel cimport evtchn_do_upcall
from cdna.compare.paths.xen3.forward cimport bridge_input, nic_flush
from cdna.compare.paths.xen3.multicall cimport hypercall, multicall, set_call
from cdna.compare.paths.xen3.netback_rx cimport net_rx_action
from cdna.compare.paths.xen3.netback_tx cimport net_tx_action, net_tx_action_dealloc
from cdna.compare.paths.xen3.pseudo_physical cimport page_maddr
from cdna.compare.paths.xen3.public cimport EVTCHNOP_send, HYPERVISOR_event_channel_op
from cdna.compare.host cimport slice_over, stay_runnable
from cdna.cpu cimport cycles, lowest_bit, prefetch_read
from cdna.guest_driver.queues cimport NO_COOKIE, announce, post, room, rx_ready, rx_take, tx_take


cdef inline void take_events(netback_t *nb) noexcept nogil:
    """netif_be_int for every port with an event: requests to transmit, or to receive into."""
    cdef uint16_t port[64]
    cdef int i, n = evtchn_do_upcall(nb.self.shared, port, 64)
    cdef uint32_t v
    for i in range(n):
        v = nb.vif_of_port[port[i] & 127]
        if v == 0xFFFF:
            continue
        nb.tx_scheduled |= <uint64_t>1 << v
        nb.vif[v].stopped = 0
        if nb.vif[v].queue_head != nb.vif[v].queue_tail:
            nb.rx_scheduled |= <uint64_t>1 << v


cdef inline uint32_t nic_tx_clean(netback_t *nb) noexcept nogil:
    """Frees what the NIC has sent."""
    cdef uint32_t cookie = 0, n = 0
    while n < NIC_BURST and tx_take(nb.nic, &cookie):
        n += 1
        if cookie != NO_COOKIE:
            packet_put(nb, cookie)
    return n


cdef inline uint64_t buffer_offset(uint32_t pfn) noexcept nogil:
    return (pfn & (NIC_COLOURS - 1)) << 6


cdef inline void nic_rx_refill(netback_t *nb) noexcept nogil:
    """Posts free pages to the NIC."""
    cdef uint32_t n = room(&nb.nic.rx), pfn
    if n > nb.free_pages:
        n = nb.free_pages
    if n == 0:
        return
    while n:
        n -= 1
        nb.free_pages -= 1
        pfn = nb.free_page[nb.free_pages]
        post(nb.nic, &nb.nic.rx, RING_RX, page_maddr(nb.self, pfn) + buffer_offset(pfn), NIC_BUFFER, 0, pfn)
    announce(nb.nic, &nb.nic.rx, RING_RX)


cdef inline void prefetch_header(const netback_t *nb, uint32_t ahead) noexcept nogil:
    """The header of a completion that comes a little later: another core wrote it."""
    cdef uint32_t pfn = nb.nic.rx.slot[(nb.nic.rx.consumer + ahead) & (nb.nic.rx.size - 1)]
    prefetch_read(nb.memory + page_maddr(nb.self, pfn) + buffer_offset(pfn))


cdef inline uint32_t nic_rx(netback_t *nb) noexcept nogil:
    """Received frames, each a packet of one or more pages, to the bridge."""
    cdef completion_t completion
    cdef packet_t *p
    cdef uint32_t i, pfn, n = rx_ready(nb.nic)
    if n > NIC_BURST:
        n = NIC_BURST
    for i in range(n):
        if i + 4 < n:
            prefetch_header(nb, 4)
        pfn = rx_take(nb.nic, &completion)
        if nb.partial == NO_PACKET:
            if nb.free_packets == 0:
                nb.nic_rx_dropped += 1
                nb.free_page[nb.free_pages] = pfn
                nb.free_pages += 1
                continue
            nb.partial = packet_alloc(nb, NIC_PORT)
        p = &nb.packet[nb.partial]
        add_piece(p, page_maddr(nb.self, pfn) + buffer_offset(pfn), completion.len, PIECE_PAGE, pfn)
        p.len += completion.len
        if completion.flags & COMPLETION_F_EOP:
            nb.nic_rx_frames += 1
            bridge_input(nb, nb.partial)
            nb.partial = NO_PACKET
    return n


cdef inline void notify_frontends(netback_t *nb) noexcept nogil:
    """EVTCHNOP_send to every frontend that asked, in one hypercall."""
    cdef uint32_t n = 0, v
    while nb.notify:
        v = lowest_bit(nb.notify)
        nb.notify &= nb.notify - 1
        set_call(&nb.call[n], HYPERVISOR_event_channel_op, EVTCHNOP_send, nb.vif[v].port, 0)
        n += 1
    if n == 1:
        hypercall(nb.xen, nb.self, HYPERVISOR_event_channel_op, EVTCHNOP_send, nb.call[0].args[1], 0)
    elif n:
        multicall(nb.xen, nb.self, nb.call, n)


cdef uint32_t netback_turn(netback_t *nb) noexcept nogil:
    """One round over all there is to do. Returns work done."""
    cdef uint32_t work
    nb.now = cycles()
    take_events(nb)
    work = nic_tx_clean(nb)
    work += nic_rx(nb)
    work += net_rx_action(nb)
    work += net_tx_action(nb)
    work += nic_flush(nb)
    nic_rx_refill(nb)
    if nb.n_dealloc >= DEALLOC_BATCH or nb.n_dealloc and work == 0:
        work += net_tx_action_dealloc(nb)
    notify_frontends(nb)
    return work


cdef void netback_run(domain_t *self, host_t *host) noexcept nogil:
    cdef netback_t *nb = <netback_t *>self.state
    while netback_turn(nb):
        if slice_over(host):
            stay_runnable(host)
            return
