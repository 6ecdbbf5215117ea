/* What a build with AddressSanitizer is told beside what the compiler tells it; nothing in any other build. */
#ifndef CDNA_SANITIZER_H
#define CDNA_SANITIZER_H

#include <stddef.h>

#if defined(__SANITIZE_ADDRESS__)
#define CDNA_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define CDNA_ASAN 1
#endif
#endif

/* Memory that nobody may touch until it is allowed again; the granularity is 8 bytes. */
#if defined(CDNA_ASAN)
void __asan_poison_memory_region(void const volatile *at, size_t size);
void __asan_unpoison_memory_region(void const volatile *at, size_t size);
static inline int is_sanitized(void) { return 1; }
static inline void forbid(const void *at, size_t size) { __asan_poison_memory_region(at, size); }
static inline void allow(const void *at, size_t size) { __asan_unpoison_memory_region(at, size); }
#else
static inline int is_sanitized(void) { return 0; }
static inline void forbid(const void *at, size_t size) { (void)at, (void)size; }
static inline void allow(const void *at, size_t size) { (void)at, (void)size; }
#endif

#endif
