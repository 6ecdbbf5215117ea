"""The pages and native rings of all contexts, which their guests map."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from cdna.memory cimport SharedRegion

cdef class ContextMemory:
    cdef SharedRegion _region
    cdef uint64_t _stride               # bytes from a context's page to the next one's
    cdef readonly uint64_t extent       # of them, those that may be touched
    cdef dict _exports
    cdef uint8_t *page(self, uint32_t index) noexcept
    cdef take_back(self, uint32_t index)
