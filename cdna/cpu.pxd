"""The processor's own words: atomics, prefetch, the cycle counter, futexes (`ext/cpu.h`)."""

from libc.stdint cimport uint32_t, uint64_t

cdef extern from "cpu.h" nogil:
    uint32_t load_u32(const uint32_t *p)
    uint64_t load_u64(const uint64_t *p)
    void store_u32(uint32_t *p, uint32_t v)
    void store_u64(uint64_t *p, uint64_t v)
    uint32_t or_u32(uint32_t *p, uint32_t v)
    uint64_t or_u64(uint64_t *p, uint64_t v)
    uint32_t swap_u32(uint32_t *p, uint32_t v)
    uint64_t swap_u64(uint64_t *p, uint64_t v)
    uint32_t add_u32(uint32_t *p, uint32_t v)
    uint64_t read_once_u64(const uint64_t *p)
    void copy_bytes(void *to, const void *source, size_t n)
    void fence()
    void compiler_barrier()
    int lowest_bit(uint64_t word)
    int count_bits(uint64_t word)
    void prefetch_read(const void *p)
    void prefetch_write(const void *p)
    uint64_t cycles()
    void cpu_relax()
    uint64_t monotonic_ns()
    void null_system_call()
    void futex_wait(uint32_t *word, uint32_t while_it_is)
    void futex_wake(uint32_t *word)
    int sched_yield()
