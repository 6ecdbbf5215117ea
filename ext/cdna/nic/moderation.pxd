"""Moderation: while many small frames come, a loop lets them gather, as a driver moderates its interrupts.

A round for one frame costs nearly as much as a round for sixteen, and the programs that send and receive the
frames want the processor too. Large segments never come as often, and a question with its answer does not.
"""

from libc.stdint cimport uint32_t, uint64_t

from cdna.cpu cimport cycles
from cdna.nic.wire cimport cycles_per_second

cdef extern from "<time.h>" nogil:
    struct timespec:
        long tv_sec
        long tv_nsec
    int nanosleep(const timespec *wanted, timespec *left)

cdef enum:
    CROWDED = 100               # frames in a window of a millisecond
    ENOUGH = 16                 # frames in a round that is worth itself
    GATHER_NS = 30_000

cdef struct moderation_t:
    uint64_t window_start       # cycles
    uint64_t window_cycles
    uint32_t frames             # in this window
    bint crowded                # so many came in the last one that they may gather


cdef inline void moderation_init(moderation_t *m) noexcept nogil:
    m.window_start = cycles()
    m.window_cycles = <uint64_t>(1e-3 * cycles_per_second())
    m.frames = 0
    m.crowded = False


cdef inline void moderate(moderation_t *m, uint32_t frames) noexcept nogil:
    """After a round that moved `frames`: sleeps for a moment where more of them should come together."""
    cdef uint64_t now = cycles()
    cdef timespec gather
    m.frames += frames
    if now - m.window_start >= m.window_cycles:
        m.crowded = m.frames >= CROWDED
        m.frames = 0
        m.window_start = now
    if m.crowded and frames < ENOUGH:
        gather.tv_sec = 0
        gather.tv_nsec = GATHER_NS
        nanosleep(&gather, NULL)
