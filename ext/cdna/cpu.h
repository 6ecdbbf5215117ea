/* What the data path needs of the processor and the kernel and C has no portable word for. */
#ifndef CDNA_CPU_H
#define CDNA_CPU_H

#include <limits.h>
#include <stdint.h>
#include <string.h>
#include <sched.h>
#include <time.h>
#include <unistd.h>
#include <sys/syscall.h>
#include <linux/futex.h>

#include "sanitizer.h"

#define CDNA_LOAD(p) __atomic_load_n((p), __ATOMIC_ACQUIRE)
#define CDNA_STORE(p, v) __atomic_store_n((p), (v), __ATOMIC_RELEASE)
#define CDNA_OR(p, v) __atomic_fetch_or((p), (v), __ATOMIC_SEQ_CST)
#define CDNA_XOR(p, v) __atomic_fetch_xor((p), (v), __ATOMIC_SEQ_CST)
#define CDNA_SWAP(p, v) __atomic_exchange_n((p), (v), __ATOMIC_SEQ_CST)

static inline uint16_t load_u16(const volatile uint16_t *p) { return CDNA_LOAD(p); }
static inline void store_u16(volatile uint16_t *p, uint16_t v) { CDNA_STORE(p, v); }
static inline uint32_t load_u32(const volatile uint32_t *p) { return CDNA_LOAD(p); }
static inline uint64_t load_u64(const volatile uint64_t *p) { return CDNA_LOAD(p); }
static inline void store_u32(volatile uint32_t *p, uint32_t v) { CDNA_STORE(p, v); }
static inline void store_u64(volatile uint64_t *p, uint64_t v) { CDNA_STORE(p, v); }
static inline uint16_t xor_u16(volatile uint16_t *p, uint16_t v) { return CDNA_XOR(p, v); }
static inline uint8_t or_u8(volatile uint8_t *p, uint8_t v) { return CDNA_OR(p, v); }
static inline uint32_t or_u32(volatile uint32_t *p, uint32_t v) { return CDNA_OR(p, v); }
static inline uint64_t or_u64(volatile uint64_t *p, uint64_t v) { return CDNA_OR(p, v); }
static inline uint32_t swap_u32(volatile uint32_t *p, uint32_t v) { return CDNA_SWAP(p, v); }
static inline uint64_t swap_u64(volatile uint64_t *p, uint64_t v) { return CDNA_SWAP(p, v); }
static inline uint32_t add_u32(volatile uint32_t *p, uint32_t v) { return __atomic_fetch_add(p, v, __ATOMIC_SEQ_CST); }
static inline void fence(void) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }

/* Makes the compiler forget what it knows of memory: a value read before is not read again after. */
static inline void compiler_barrier(void) { __asm__ __volatile__("" ::: "memory"); }

static inline int lowest_bit(uint64_t word) { return __builtin_ctzll(word); } /* word != 0 */
static inline int count_bits(uint64_t word) { return __builtin_popcountll(word); }
static inline void prefetch_read(const void *p) { __builtin_prefetch(p, 0, 3); }
/* For writing: without ownership of the line the store would wait for the other core once more. The compiler's own
 * makes a prefetch for reading of it, unless it is told of a processor that has this instruction; all of them do. */
#if defined(__x86_64__)
static inline void prefetch_write(const void *p) { __asm__ volatile("prefetchw %0" : : "m"(*(const char *)p)); }
#else
static inline void prefetch_write(const void *p) { __builtin_prefetch(p, 1, 3); }
#endif

/* Reads a word that somebody else may be writing, exactly once. */
static inline uint64_t read_once_u64(const volatile uint64_t *p) { return __atomic_load_n(p, __ATOMIC_RELAXED); }

#if defined(__x86_64__) && !defined(CDNA_ASAN) /* which sees what functions copy, and no assembler */
#define CDNA_MOVES_LONG 1
#include <cpuid.h>
#define CDNA_LONG_COPY 256 /* bytes */
static int moves_long; /* 1: "enhanced rep movsb", which need not fetch the lines that it writes whole */
__attribute__((constructor)) static inline void look_for_long_moves(void) {
    unsigned a, b, c, d;
    moves_long = __get_cpuid_count(7, 0, &a, &b, &c, &d) && b >> 9 & 1;
}
#endif

/* A condition that seldom holds. The compiler inlines up to a limit for a whole module: what it spends on rare ways it
 * has not for those of every frame. */
#define cdna_unlikely(condition) __builtin_expect(!!(condition), 0)

/* 16 bytes in a register, from and to anywhere. */
typedef uint64_t cdna_line_t __attribute__((vector_size(16), aligned(1), may_alias));

/* memcpy whose common small cases cost no call: a frame of 64 to 128 bytes is eight registers, all loaded before the first
 * is stored. Buffers may overlap, as a guest may have posted such; what they then hold is that guest's affair. */
static inline __attribute__((always_inline)) void copy_bytes(void *to, const void *from, size_t n) {
    if (n >= 64 && n <= 128) {
        const cdna_line_t *head = (const cdna_line_t *)from;
        const cdna_line_t *tail = (const cdna_line_t *)((const uint8_t *)from + n - 64);
        cdna_line_t *to_head = (cdna_line_t *)to, *to_tail = (cdna_line_t *)((uint8_t *)to + n - 64);
        cdna_line_t a = head[0], b = head[1], c = head[2], d = head[3];
        cdna_line_t e = tail[0], f = tail[1], g = tail[2], h = tail[3];
        to_head[0] = a, to_head[1] = b, to_head[2] = c, to_head[3] = d;
        to_tail[0] = e, to_tail[1] = f, to_tail[2] = g, to_tail[3] = h;
        return;
    }
#if defined(CDNA_MOVES_LONG)
    if (n >= CDNA_LONG_COPY && moves_long) {
        __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
        return;
    }
#endif
    memmove(to, from, n);
}

/* A cycle counter of constant rate: the time stamp counter, or nanoseconds where there is none. */
#if defined(__x86_64__)
#include <x86intrin.h>
static inline uint64_t cycles(void) { return __rdtsc(); }
static inline void cpu_relax(void) { _mm_pause(); }
#else
static inline uint64_t cycles(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}
static inline void cpu_relax(void) { __asm__ __volatile__("" ::: "memory"); }
#endif

static inline uint64_t monotonic_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Of the calling thread: what it had of its core. */
static inline uint64_t thread_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Since 1970. */
static inline uint64_t realtime_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* One crossing into the kernel and back that does nothing there. */
static inline void null_system_call(void) { syscall(SYS_getppid); }

/* Futexes across processes: the words lie in shared memory. */
static inline void futex_wait(volatile uint32_t *word, uint32_t while_it_is) {
    syscall(SYS_futex, word, FUTEX_WAIT, while_it_is, NULL, NULL, 0);
}
static inline void futex_wake(volatile uint32_t *word) { syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0); }

#endif
