"""Random numbers for attacks, the same for the same seed: SplitMix64 (Steele, Lea, Flood, OOPSLA 2014)."""

from libc.stdint cimport uint32_t, uint64_t

cdef struct rng_t:
    uint64_t state


cdef inline uint64_t next_u64(rng_t *rng) noexcept nogil:
    cdef uint64_t z
    rng.state += <uint64_t>0x9E3779B97F4A7C15
    z = rng.state
    z = (z ^ z >> 30) * <uint64_t>0xBF58476D1CE4E5B9
    z = (z ^ z >> 27) * <uint64_t>0x94D049BB133111EB
    return z ^ z >> 31


cdef inline uint32_t below(rng_t *rng, uint32_t n) noexcept nogil:
    """A number from 0 to n - 1; its bias is below n / 2**32."""
    return <uint32_t>((next_u64(rng) >> 32) * n >> 32)


cdef inline bint one_in(rng_t *rng, uint32_t n) noexcept nogil:
    return below(rng, n) == 0
