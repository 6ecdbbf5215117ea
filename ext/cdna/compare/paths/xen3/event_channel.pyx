"""Event channel operations in the hypervisor (Xen: xen/common/event_channel.c)."""

from cdna.compare.paths.xen3.domain cimport Hypervisor, evtchn_t, find_domain
from cdna.compare.paths.xen3.public cimport (
    ECS_FREE, ECS_INTERDOMAIN, ECS_UNBOUND, EVTCHN_WORDS, XEN_EINVAL, XEN_ENOENT, XEN_ENOSPC,
)
from cdna.compare.host cimport post_event


cdef inline void mark_upcall_pending(xen_t *xen, xen_domain_t *domain) noexcept nogil:
    if swap_u32(&domain.shared.evtchn_upcall_pending, 1) == 0:
        xen.stats.events_posted += 1
        post_event(xen.host, domain.index)


cdef inline void set_pending(xen_t *xen, xen_domain_t *domain, uint32_t port) noexcept nogil:
    cdef uint64_t bit = <uint64_t>1 << (port & 63)
    cdef uint32_t word = port >> 6
    if or_u64(&domain.shared.evtchn_pending[word], bit) & bit:
        return
    if load_u64(&domain.shared.evtchn_mask[word]) & bit:
        return
    bit = <uint64_t>1 << word
    if or_u64(&domain.shared.evtchn_pending_sel, bit) & bit:
        return
    mark_upcall_pending(xen, domain)


cdef int evtchn_send(xen_t *xen, xen_domain_t *domain, uint32_t port) noexcept nogil:
    """EVTCHNOP_send: 0, or an Errno."""
    cdef evtchn_t *channel
    cdef xen_domain_t *remote
    if port == 0 or port >= domain.ports:
        return XEN_EINVAL
    channel = &domain.port[port]
    if channel.state != ECS_INTERDOMAIN:
        return XEN_EINVAL
    remote = find_domain(xen, channel.remote_domid)
    if remote == NULL:
        return XEN_ENOENT
    xen.stats.events_sent += 1
    set_pending(xen, remote, channel.remote_port)
    return 0


cdef int free_port(xen_domain_t *domain) noexcept nogil:
    cdef uint32_t port
    for port in range(1, domain.ports):
        if domain.port[port].state == ECS_FREE:
            return port
    return XEN_ENOSPC


cdef int evtchn_alloc_unbound(xen_t *xen, xen_domain_t *domain, uint32_t remote_domid) noexcept nogil:
    """A port that `remote_domid` may bind to, or an Errno."""
    cdef int port = free_port(domain)
    if port > 0:
        domain.port[port].state = ECS_UNBOUND
        domain.port[port].remote_domid = remote_domid
    return port


cdef int evtchn_bind_interdomain(xen_t *xen, xen_domain_t *domain, uint32_t remote_domid,
                                 uint32_t remote_port) noexcept nogil:
    """Binds a new port of `domain` to an unbound one of another domain; returns it, or an Errno."""
    cdef xen_domain_t *remote = find_domain(xen, remote_domid)
    cdef evtchn_t *other
    cdef int port
    if remote == NULL:
        return XEN_ENOENT
    if remote_port == 0 or remote_port >= remote.ports:
        return XEN_EINVAL
    other = &remote.port[remote_port]
    if other.state != ECS_UNBOUND or other.remote_domid != domain.domid:
        return XEN_EINVAL
    port = free_port(domain)
    if port < 0:
        return port
    domain.port[port].state = ECS_INTERDOMAIN
    domain.port[port].remote_domid = remote_domid
    domain.port[port].remote_port = remote_port
    other.state = ECS_INTERDOMAIN
    other.remote_port = port
    set_pending(xen, domain, port)      # an event that was sent before the binding is not lost
    return port


cdef int evtchn_close(xen_t *xen, xen_domain_t *domain, uint32_t port) noexcept nogil:
    """Frees a port; the other side's becomes unbound."""
    cdef evtchn_t *channel
    cdef xen_domain_t *remote
    if port == 0 or port >= domain.ports or domain.port[port].state == ECS_FREE:
        return XEN_EINVAL
    channel = &domain.port[port]
    if channel.state == ECS_INTERDOMAIN:
        remote = find_domain(xen, channel.remote_domid)
        if remote != NULL:
            remote.port[channel.remote_port].state = ECS_UNBOUND
    channel.state = ECS_FREE
    and_u64(&domain.shared.evtchn_pending[port >> 6], ~(<uint64_t>1 << (port & 63)))
    return 0


cdef void evtchn_unmask(xen_t *xen, xen_domain_t *domain, uint32_t port) noexcept nogil:
    cdef uint64_t bit = <uint64_t>1 << (port & 63)
    cdef uint64_t selector = <uint64_t>1 << (port >> 6)
    if not and_u64(&domain.shared.evtchn_mask[port >> 6], ~bit) & bit:
        return
    if load_u64(&domain.shared.evtchn_pending[port >> 6]) & bit and \
            not or_u64(&domain.shared.evtchn_pending_sel, selector) & selector:
        mark_upcall_pending(xen, domain)


cdef class EventChannels:
    """A domain's event channels, one operation at a time, for tests and for trying things out.

    Operations return what Xen's do: 0 or a port, or a negative `cdna.compare.paths.xen3.public.Errno`.
    """
    cdef Hypervisor _hypervisor
    cdef uint32_t _index

    def __init__(self, Hypervisor hypervisor not None, uint32_t index):
        hypervisor.domain(index)
        self._hypervisor = hypervisor
        self._index = index

    def alloc_unbound(self, uint32_t remote_domid) -> int:
        return evtchn_alloc_unbound(self._hypervisor.c, self._hypervisor.domain(self._index), remote_domid)

    def bind_interdomain(self, uint32_t remote_domid, uint32_t remote_port) -> int:
        return evtchn_bind_interdomain(
            self._hypervisor.c, self._hypervisor.domain(self._index), remote_domid, remote_port)

    def send(self, uint32_t port) -> int:
        return evtchn_send(self._hypervisor.c, self._hypervisor.domain(self._index), port)

    def close(self, uint32_t port) -> int:
        return evtchn_close(self._hypervisor.c, self._hypervisor.domain(self._index), port)

    def mask(self, uint32_t port) -> None:
        if port >= EVTCHN_WORDS * 64:
            raise ValueError(f"port {port}: give one below {EVTCHN_WORDS * 64}")
        evtchn_mask(self._hypervisor.domain(self._index).shared, port)

    def unmask(self, uint32_t port) -> None:
        if port >= EVTCHN_WORDS * 64:
            raise ValueError(f"port {port}: give one below {EVTCHN_WORDS * 64}")
        evtchn_unmask(self._hypervisor.c, self._hypervisor.domain(self._index), port)

    @property
    def upcall_due(self) -> bool:
        """Whether a virtual interrupt is pending."""
        return evtchn_upcall_due(self._hypervisor.domain(self._index).shared)

    def upcall(self, int limit=64) -> list:
        """Takes the pending, unmasked ports, at most `limit` of up to 64."""
        cdef uint16_t port[64]
        cdef int n = evtchn_do_upcall(self._hypervisor.domain(self._index).shared, port, min(limit, 64))
        return [port[i] for i in range(n)]
