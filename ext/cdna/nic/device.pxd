"""The NIC as Python controls it."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from cdna.memory cimport Memory, SharedRegion
from cdna.nic.context cimport context_t, nic_t
from cdna.nic.wire cimport Wire

cdef class Nic:
    cdef nic_t *c
    cdef readonly Memory memory
    cdef readonly Wire wire
    cdef readonly int contexts
    cdef readonly int max_ring
    cdef readonly tuple moderation      # (descriptors, microseconds) of a context that sets none
    cdef readonly object _lock
    cdef SharedRegion _state
    cdef SharedRegion _pages
    cdef SharedRegion _learned
    cdef list _buffers
    cdef uint64_t _stride               # bytes from a context's page to the next one's
    cdef uint64_t _extent               # of them, those that may be touched
    cdef object _thread
    cdef dict _io_tables
    cdef dict _exports
    cdef uint8_t *_buffer(self, size_t size) except NULL
    cdef context_t *_context(self, uint32_t index) except NULL
    cdef void _pause(self) noexcept
    cdef _resume(self)
    cdef _clear(self, context_t *context)
    cdef _set_rings(self, context_t *context, uint32_t tx_ring, uint32_t rx_ring, uint32_t seq_mask)
    cdef void _set_state(self, context_t *context, uint32_t state) noexcept
    cdef _stop(self, context_t *context)
    cdef _unexport(self, uint32_t index)
    cdef void _rebuild_mac_table(self) noexcept
    cdef _forget_learned(self, uint32_t index)
