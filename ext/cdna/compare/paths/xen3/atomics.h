/* Atomic operations on the 16- and 32-bit fields of grant entries, and on event channel words. */
#ifndef CDNA_BASELINE_ATOMICS_H
#define CDNA_BASELINE_ATOMICS_H

#include <stdint.h>

#include "cpu.h"

/* Compare and swap: 1 when *p was `expected` and is `desired` now. */
static inline int cas_u16(volatile uint16_t *p, uint16_t expected, uint16_t desired) {
    return __atomic_compare_exchange_n(p, &expected, desired, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}
static inline int cas_u32(volatile uint32_t *p, uint32_t expected, uint32_t desired) {
    return __atomic_compare_exchange_n(p, &expected, desired, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

static inline uint16_t and_u16(volatile uint16_t *p, uint16_t v) { return __atomic_fetch_and(p, v, __ATOMIC_SEQ_CST); }
static inline uint16_t or_u16(volatile uint16_t *p, uint16_t v) { return __atomic_fetch_or(p, v, __ATOMIC_SEQ_CST); }
static inline uint64_t and_u64(volatile uint64_t *p, uint64_t v) { return __atomic_fetch_and(p, v, __ATOMIC_SEQ_CST); }

#endif
