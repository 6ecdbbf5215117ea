"""A CDNA guest as a domain: its native driver, and its hypercalls across the kernel's boundary.

The guest holds its context directly: it posts frames, makes the one hypercall of the data path, rings the
doorbell, and blocks when less than half of its ring is free, until an interrupt tells of completions.
"""

from libc.stdint cimport uint32_t

from cdna.abi cimport desc_t
from cdna.compare.host cimport (
    ACCOUNT_GUESTS, PHASE_LOAD, Host, domain_t, host_t, hypercall_enter, hypercall_leave, slice_over,
    stay_runnable,
)
from cdna.guest_driver.queues cimport tx_reclaim
from cdna.guests.synthetic cimport BATCH, SyntheticGuest, offer, synthetic_t, take
from cdna.memory cimport SharedRegion
from cdna.nic.generator cimport GeneratorWire
from cdna.vmm cimport protection

cdef enum:
    WORTHWHILE = 1              # a guest sends while half its ring is free, as drivers wake their queues


cdef int host_enqueue(void *caller, uint32_t context, uint32_t ring, const desc_t *request,
                      int n) noexcept nogil:
    cdef cdna_guest_t *guest = <cdna_guest_t *>caller
    cdef int taken
    hypercall_enter(guest.host)
    taken = protection.enqueue(guest.host.vmm, guest.domain, context, ring, request, n)
    hypercall_leave(guest.host)
    return taken


cdef int host_iommu(void *caller, uint32_t context, const uint32_t *io_page, const uint32_t *page,
                    int n) noexcept nogil:
    cdef cdna_guest_t *guest = <cdna_guest_t *>caller
    cdef int done
    hypercall_enter(guest.host)
    if page == NULL:
        done = protection.iommu_unmap(guest.host.vmm, guest.domain, context, io_page, n)
    else:
        done = protection.iommu_map(guest.host.vmm, guest.domain, context, io_page, page, n)
    hypercall_leave(guest.host)
    return done


cdef void run_transmit(domain_t *self, host_t *host) noexcept nogil:
    cdef synthetic_t *guest = (<cdna_guest_t *>self.state).synthetic
    while host.phase == PHASE_LOAD:
        if tx_reclaim(guest.driver) < guest.driver.tx.size >> WORTHWHILE:
            return
        offer(guest, BATCH)
        if slice_over(host):
            stay_runnable(host)
            return
    tx_reclaim(guest.driver)


cdef void run_receive(domain_t *self, host_t *host) noexcept nogil:
    cdef synthetic_t *guest = (<cdna_guest_t *>self.state).synthetic
    while take(guest, BATCH):
        if slice_over(host):
            stay_runnable(host)
            return


cdef class CdnaGuest:
    """A guest with its context, which adds itself to `host`; its hypercalls are crossings from then on.

    It transmits, or receives flow number `flow` of `wire`, which is closed by the guest's own count.
    """

    def __init__(self, Host host not None, SyntheticGuest synthetic not None, GeneratorWire wire=None,
                 uint32_t flow=0):
        cdef cdna_guest_t *guest
        cdef domain_t *domain
        self.synthetic, self._host = synthetic, host
        self._region = SharedRegion(sizeof(cdna_guest_t))
        guest = <cdna_guest_t *>self._region.base
        context = synthetic.driver.context
        guest.synthetic, guest.host, guest.domain = synthetic.c, host.c, context.guest.domain
        synthetic.c.driver.enqueue = host_enqueue
        synthetic.c.driver.iommu = host_iommu
        synthetic.c.driver.vmm = guest
        domain = host.add_domain(
            guest.domain, ACCOUNT_GUESTS, run_transmit if wire is None else run_receive, guest)
        host.own_context(context.index, domain)
        host.add_guest(&synthetic.c.sent, &synthetic.c.received, &synthetic.c.bytes_received)
        if wire is not None:
            wire.set_ack(flow, &synthetic.c.received)
        synthetic.driver.enable_interrupts(True)
