"""The NIC as Python controls it."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from cdna.memory cimport Memory, SharedRegion
from cdna.nic.context cimport context_t
from cdna.nic.context_memory cimport ContextMemory
from cdna.nic.engine_thread cimport EngineThread
from cdna.nic.wire cimport Wire

cdef class Nic(EngineThread):
    cdef readonly Memory memory
    cdef readonly Wire wire
    cdef readonly int contexts
    cdef readonly int max_ring
    cdef readonly tuple moderation      # (descriptors, microseconds) of a context that sets none
    cdef object signaller               # Signaller of slow signals, or None before the first virtio device
    cdef SharedRegion _state
    cdef ContextMemory _pages
    cdef SharedRegion _learned
    cdef list _buffers
    cdef dict _io_tables
    cdef uint8_t *_buffer(self, size_t size) except NULL
    cdef _clear(self, context_t *context)
    cdef _set_rings(self, context_t *context, uint32_t tx_ring, uint32_t rx_ring, uint32_t seq_mask)
    cdef void _rebuild_mac_table(self) noexcept
    cdef _forget_learned(self, uint32_t index)
