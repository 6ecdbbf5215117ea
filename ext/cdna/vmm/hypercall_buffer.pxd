"""Where the VMM receives hypercalls (hypercall_buffer.pyx)."""

from libc.stdint cimport uint32_t

from cdna.protocol.hypercall cimport hypercall_message_t
from cdna.vmm.tables cimport Tables

cpdef enum Served:              # what `HypercallBuffer.serve` did
    SERVED_NOTHING = 0          # there was no message
    SERVED_HYPERCALL = 1
    SERVED_STATUS = 2           # the caller answers
    SERVED_END = 3              # the guest has gone

cdef class HypercallBuffer:
    cdef hypercall_message_t _message
    cdef Tables _tables
    cdef int _dispatch(self, uint32_t domain, uint32_t context) noexcept nogil
