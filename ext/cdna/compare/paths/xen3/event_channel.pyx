"""Event channel operations in the hypervisor (Xen: xen/common/event_channel.c)."""

from cdna.compare.paths.xen3.domain cimport evtchn_t, find_domain
from cdna.compare.paths.xen3.public cimport (
    ECS_FREE, ECS_INTERDOMAIN, ECS_UNBOUND, XEN_EINVAL, XEN_ENOENT, XEN_ENOSPC,
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
