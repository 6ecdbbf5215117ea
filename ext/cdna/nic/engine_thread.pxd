"""The engine's thread, and its standing still, as Python controls them."""

from cdna.nic.state cimport nic_t

cdef class EngineThread:
    cdef nic_t *c
    cdef readonly object _lock
    cdef object _thread
    cdef list _afterwards       # calls for when the engine goes on
    cdef void _pause(self) noexcept
    cdef _resume(self)
