"""The dispatch of hypercalls. Everything between enter and leave is hypervisor code.

| operation          | arguments                           |
|--------------------|-------------------------------------|
| mmu_update         | mmu_update_t *, n                   |
| update_va_mapping  | pseudo-physical frame, entry        |
| memory_op          | MemoryOp, uint32_t * of frames, n   |
| grant_table_op     | GrantOp, operations, n              |
| event_channel_op   | EVTCHNOP_send, port                 |
"""

from cdna.compare.paths.xen3.event_channel cimport evtchn_send
from cdna.compare.paths.xen3.grant_table cimport gnttab_op
from cdna.compare.paths.xen3.pseudo_physical cimport (
    decrease_reservation, increase_reservation, mmu_update, update_va_mapping,
)
from cdna.compare.paths.xen3.public cimport (
    EVTCHNOP_send, HYPERVISOR_event_channel_op, HYPERVISOR_grant_table_op, HYPERVISOR_memory_op,
    HYPERVISOR_mmu_update, HYPERVISOR_update_va_mapping, XENMEM_decrease_reservation,
    XENMEM_increase_reservation, XEN_ENOSYS, mmu_update_t,
)
from cdna.compare.host cimport hypercall_enter, hypercall_leave
from cdna.cpu cimport compiler_barrier


cdef inline int memory_op(xen_t *xen, xen_domain_t *domain, uint64_t command, uint32_t *mfn,
                          uint64_t n) noexcept nogil:
    if command == XENMEM_increase_reservation:
        return increase_reservation(xen, domain, mfn, <uint32_t>n)
    if command == XENMEM_decrease_reservation:
        return decrease_reservation(xen, domain, mfn, <uint32_t>n)
    return XEN_ENOSYS


cdef inline int dispatch(xen_t *xen, xen_domain_t *domain, const multicall_entry_t *call) noexcept nogil:
    if call.op == HYPERVISOR_update_va_mapping:
        xen.stats.va_updates += 1
        return update_va_mapping(xen, domain, call.args[0], call.args[1])
    if call.op == HYPERVISOR_grant_table_op:
        return gnttab_op(xen, domain, <uint32_t>call.args[0], <void *><size_t>call.args[1],
                         <uint32_t>call.args[2])
    if call.op == HYPERVISOR_event_channel_op:
        return evtchn_send(xen, domain,
                           <uint32_t>call.args[1]) if call.args[0] == EVTCHNOP_send else XEN_ENOSYS
    if call.op == HYPERVISOR_mmu_update:
        return mmu_update(xen, domain, <mmu_update_t *><size_t>call.args[0], <uint32_t>call.args[1])
    if call.op == HYPERVISOR_memory_op:
        return memory_op(xen, domain, call.args[0], <uint32_t *><size_t>call.args[1], call.args[2])
    return XEN_ENOSYS


cdef int multicall(xen_t *xen, xen_domain_t *domain, multicall_entry_t *call, uint32_t n) noexcept nogil:
    cdef multicall_entry_t copy
    cdef uint32_t i
    cdef int failed = 0
    hypercall_enter(xen.host)
    xen.stats.hypercalls += 1
    xen.stats.multicalls += 1
    for i in range(n):
        copy = call[i]
        compiler_barrier()
        call[i].result = dispatch(xen, domain, &copy)
        failed += call[i].result < 0
    hypercall_leave(xen.host)
    return failed


cdef int hypercall(xen_t *xen, xen_domain_t *domain, uint32_t op, uint64_t arg0, uint64_t arg1,
                   uint64_t arg2) noexcept nogil:
    cdef multicall_entry_t call
    cdef int result
    set_call(&call, op, arg0, arg1, arg2)
    hypercall_enter(xen.host)
    xen.stats.hypercalls += 1
    result = dispatch(xen, domain, &call)
    hypercall_leave(xen.host)
    return result
