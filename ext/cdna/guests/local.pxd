"""The native driver of a guest in the VMM's own process."""

from libc.stdint cimport uint32_t

from cdna.guest_driver.queues cimport Queues
from cdna.vmm.protection cimport vmm_t

cdef struct caller_t:           # who makes a hypercall
    vmm_t *vmm
    uint32_t domain

cdef class LocalQueues(Queues):
    cdef caller_t _caller
    cdef object _keep
