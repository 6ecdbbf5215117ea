"""Words of a guest's memory that another thread rewrites while the engine works: see mutator.pyx."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

cpdef enum Pattern:
    PATTERN_FLIP = 0            # one of two values, in turn
    PATTERN_RANDOM = 1          # any value, of the low bits alone where `b` is a mask
    PATTERN_COUNT = 2           # one more each time
    PATTERN_TOGGLE = 3          # the bits of `a`, in a word of two bytes whose other bits stay

cdef struct target_t:
    uint8_t *at
    uint32_t size               # bytes: 1, 2, 4 or 8, and aligned so
    uint32_t pattern
    uint64_t a
    uint64_t b

cdef class Mutator:
    cdef target_t *target
    cdef uint32_t targets
    cdef uint32_t room
    cdef uint32_t stopped
    cdef uint64_t seed
    cdef readonly uint64_t writes
    cdef object _keep
    cdef object _thread
    cdef int _add(self, uint8_t *at, uint32_t size, uint32_t pattern, uint64_t a, uint64_t b) except -1
    cdef void _hammer(self) noexcept nogil
