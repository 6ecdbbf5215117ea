"""Bit vectors over contexts: bit i of word i / 64 is context i."""

from libc.stdint cimport uint32_t, uint64_t


cdef inline void set_bit(uint64_t *vector, uint32_t i) noexcept nogil:
    vector[i >> 6] |= <uint64_t>1 << (i & 63)


cdef inline void clear_bit(uint64_t *vector, uint32_t i) noexcept nogil:
    vector[i >> 6] &= ~(<uint64_t>1 << (i & 63))


cdef inline bint test_bit(const uint64_t *vector, uint32_t i) noexcept nogil:
    return vector[i >> 6] >> (i & 63) & 1
