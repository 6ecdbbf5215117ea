/* The checks that this code makes against guests, by name, so that a test build can switch off any one of them.
 *
 * In an ordinary build a check is its condition, which seldom holds: what follows then is laid out apart, and nothing is
 * inlined there. In a test build
 * (CDNA_VARIANT=checks, or any other that defines CDNA_TEST_BUILD) each module finds one table at the same address;
 * the first that is loaded makes it, so modules share it without being linked to each other, and a forked process
 * has a copy of its own:
 *
 *     off[check]      1: this check lets everything through
 *     found[check]    how often it found something
 *     passed[check]   how often it would have, but was off
 *     plant[plant]    1: this double fetch is planted (tests/checks/plants.toml; no other build has it)
 *     steps           of the protocol, as `cdna_step` counts them; the process kills itself at step `kill_at`
 *
 * The names are in ext/cdna/checks.pxd.
 */
#ifndef CDNA_CHECKS_H
#define CDNA_CHECKS_H

#include <stdint.h>

#ifndef CDNA_TEST_BUILD

#define CDNA_IS_TEST_BUILD 0
#define broken(check, condition) __builtin_expect(!!(condition), 0)
#define cdna_step() ((void)0)
#define cdna_checks ((struct cdna_check_table *)0)

#else

#define CDNA_IS_TEST_BUILD 1
#define cdna_checks ((struct cdna_check_table *)0x20cd0a000000) /* in nobody's way, nor in that of a sanitizer's shadow */

#endif

#define CDNA_MAX_CHECKS 256
#define CDNA_MAX_PLANTS 64

struct cdna_check_table {
    uint8_t off[CDNA_MAX_CHECKS];
    uint8_t plant[CDNA_MAX_PLANTS];
    uint64_t found[CDNA_MAX_CHECKS];
    uint64_t passed[CDNA_MAX_CHECKS];
    uint64_t steps;
    uint64_t kill_at; /* 0: never */
};

#ifdef CDNA_TEST_BUILD

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif

__attribute__((constructor)) static void cdna_make_checks(void) {
    void *at = mmap(cdna_checks, sizeof(struct cdna_check_table), PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    if (at == (void *)cdna_checks || (at == MAP_FAILED && errno == EEXIST))
        return;
    fputs("cdna: a test build finds no room for its table of checks\n", stderr);
    abort();
}

/* Whether a rule is broken, by what a guest says or does; of a check that is off, never. */
static inline int broken(unsigned check, int condition) {
    if (!condition)
        return 0;
    if (cdna_checks->off[check]) {
        __atomic_fetch_add(&cdna_checks->passed[check], 1, __ATOMIC_RELAXED);
        return 0;
    }
    __atomic_fetch_add(&cdna_checks->found[check], 1, __ATOMIC_RELAXED);
    return 1;
}

/* What was read once; with a plant, what is there now: the flaw that a second read would be. */
#define CDNA_AGAIN(bits)                                                                                    \
    static inline uint##bits##_t again_u##bits(unsigned plant, uint##bits##_t local,                        \
                                               const volatile uint##bits##_t *memory) {                     \
        return cdna_checks->plant[plant] ? __atomic_load_n(memory, __ATOMIC_RELAXED) : local;               \
    }
CDNA_AGAIN(16)
CDNA_AGAIN(32)
CDNA_AGAIN(64)

/* A step of the protocol, between two of which a process may die. */
static inline void cdna_step(void) {
    if (__atomic_add_fetch(&cdna_checks->steps, 1, __ATOMIC_RELAXED) == cdna_checks->kill_at)
        kill(getpid(), SIGKILL);
}

#endif
#endif
