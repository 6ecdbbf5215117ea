"""Event channels: how a domain tells another one that there is work.

A port of one domain is bound to a port of another. A send sets the other's pending bit, then its selector
bit, then `evtchn_upcall_pending`; only when that last word goes from 0 to 1 does the domain get a virtual
interrupt. A masked or already pending port stops earlier. The receiver's upcall walks back the same way.
"""

from libc.stdint cimport uint16_t, uint32_t, uint64_t

from cdna.compare.paths.xen3.atomics cimport and_u64
from cdna.compare.paths.xen3.domain cimport xen_domain_t, xen_t
from cdna.compare.paths.xen3.public cimport shared_info_t
from cdna.cpu cimport load_u32, load_u64, lowest_bit, or_u64, swap_u32, swap_u64

# Hypervisor code.
cdef int evtchn_send(xen_t *xen, xen_domain_t *domain, uint32_t port) noexcept nogil
cdef int evtchn_alloc_unbound(xen_t *xen, xen_domain_t *domain, uint32_t remote_domid) noexcept nogil
cdef int evtchn_bind_interdomain(xen_t *xen, xen_domain_t *domain, uint32_t remote_domid,
                                 uint32_t remote_port) noexcept nogil


cdef inline bint evtchn_upcall_due(const shared_info_t *shared) noexcept nogil:
    return load_u32(&shared.evtchn_upcall_pending) != 0


cdef inline int evtchn_do_upcall(shared_info_t *shared, uint16_t *port, int n) noexcept nogil:
    """Takes the pending, unmasked ports, at most n; returns how many. One atomic operation a word."""
    cdef uint64_t words, ready, taken
    cdef int w, bit, found = 0
    if not evtchn_upcall_due(shared):
        return 0
    swap_u32(&shared.evtchn_upcall_pending, 0)      # before the selector: a send after this posts again
    words = swap_u64(&shared.evtchn_pending_sel, 0)
    while words:
        w = lowest_bit(words)
        words &= words - 1
        ready = load_u64(&shared.evtchn_pending[w]) & ~load_u64(&shared.evtchn_mask[w])
        taken = 0
        while ready and found < n:
            bit = lowest_bit(ready)
            ready &= ready - 1
            taken |= <uint64_t>1 << bit
            port[found] = w << 6 | bit
            found += 1
        and_u64(&shared.evtchn_pending[w], ~taken)
        if ready:                                   # no room in `port`: these come with the next upcall
            or_u64(&shared.evtchn_pending_sel, <uint64_t>1 << w)
            swap_u32(&shared.evtchn_upcall_pending, 1)
    return found
