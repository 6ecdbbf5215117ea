"""A guest's memory table as Python controls it: files mapped and unmapped while the engine stands still."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from cdna.nic.virtio.memory cimport guest_memory_t

cdef class GuestMapping:
    cdef guest_memory_t *c
    cdef list _maps             # by region, as `_map` returns them
    cdef list _left             # mappings that the table has no more
    cdef object _lent           # what counts them, or None
    cdef object _log
    cdef object _inflight
    cdef _place(self, uint32_t which, mapped)
    cdef uint8_t *map_inflight(self, int fd, uint64_t size, uint64_t offset) except? NULL
