"""Hypercalls of the Xen baseline: the way in, the work, the way out; several in one as a multicall."""

from libc.stdint cimport uint32_t, uint64_t

from cdna.compare.paths.xen3.domain cimport xen_domain_t, xen_t
from cdna.compare.paths.xen3.public cimport multicall_entry_t

# One kernel crossing for n operations; each gets its result. Returns how many failed.
cdef int multicall(xen_t *xen, xen_domain_t *domain, multicall_entry_t *call, uint32_t n) noexcept nogil
# One operation.
cdef int hypercall(xen_t *xen, xen_domain_t *domain, uint32_t op, uint64_t arg0, uint64_t arg1,
                   uint64_t arg2) noexcept nogil


cdef inline void set_call(multicall_entry_t *call, uint32_t op, uint64_t arg0, uint64_t arg1,
                          uint64_t arg2) noexcept nogil:
    call.op = op
    call.args[0] = arg0
    call.args[1] = arg1
    call.args[2] = arg2
