"""The engine's thread, and its standing still, as Python controls them."""

from libc.stdint cimport uint32_t, uint64_t

from cdna.nic.context cimport context_t
from cdna.nic.state cimport nic_t

cdef class EngineThread:
    cdef nic_t *c
    cdef readonly object _lock
    cdef object _thread
    cdef list _afterwards       # calls for when the engine goes on
    cdef void _pause(self) noexcept
    cdef _resume(self)
    cdef context_t *_context(self, uint32_t index) except NULL
    cdef uint64_t _ns(self, uint64_t spent) noexcept
