"""Atomic operations of the Xen baseline beside those of `cdna.cpu`: see atomics.h."""

from libc.stdint cimport uint16_t, uint32_t, uint64_t

cdef extern from "compare/paths/xen3/atomics.h" nogil:
    uint16_t load_u16(const uint16_t *p)
    void store_u16(uint16_t *p, uint16_t v)
    bint cas_u16(uint16_t *p, uint16_t expected, uint16_t desired)
    bint cas_u32(uint32_t *p, uint32_t expected, uint32_t desired)
    uint16_t and_u16(uint16_t *p, uint16_t v)
    uint16_t or_u16(uint16_t *p, uint16_t v)
    uint64_t and_u64(uint64_t *p, uint64_t v)
