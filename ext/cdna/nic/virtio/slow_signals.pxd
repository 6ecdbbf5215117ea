"""Slow signals: a second thread tells the guests whose descriptors take long to signal.

What a signal costs is for its readers to choose: the kernel calls each waiter of an eventfd in the thread
that writes it, and a frontend can have thousands. So the engine looks at what the signals of a context cost
it. Those of one that is slow are handed over, and one word says what is to be signalled, however often:

    engine                                  second thread
    ------                                  -------------
    fd[which] = descriptor                  at = context + 1
    pending |= 1 << which      -------->    pending, which becomes 0
    handed += 1, wake                       signals fd[which] unless that is NO_FD
                                            at = 0

Who closes a descriptor first has the engine stand still and sets fd[which] to NO_FD; then, while the engine
goes on, it waits until the second thread is not at that context.
"""

from libc.stdint cimport uint32_t, uint64_t

from cdna.cpu cimport add_u32, futex_wake, load_u64, or_u32, store_u32, store_u64, swap_u32
from cdna.nic.slow cimport SLOW_FOR, goes_beyond

cdef enum:
    SLOW_SIGNAL_NS = 10_000     # of the engine's time: a signal that costs more is slow
    SLOW_SIGNALS_NS = 100_000   # that those of a context may cost beyond that, before they are handed over
    NO_FD = 0xFFFFFFFF
    REST_FOR = 9                # times what a slow signal took: a tenth of the second thread is for a context
    ERRORS = 16                 # fd[i]: call descriptor of queue i; fd[ERRORS + i]: its error descriptor

cdef struct handed_t:           # of a context
    uint64_t excess             # cycles that its signals cost beyond what they may
    uint64_t slow_until         # cycle count; 0: they are not slow
    uint64_t not_before         # cycle count: then the next one may be handed over
    uint32_t pending            # bit i: fd[i] is to be signalled
    uint32_t fd[32]             # NO_FD: none

cdef struct signaller_t:
    handed_t *context
    uint32_t contexts
    double cycles_per_ns
    uint64_t slow_signal        # SLOW_SIGNAL_NS, SLOW_SIGNALS_NS in cycles
    uint64_t slow_signals
    uint32_t handed             # a futex: changes when something is handed over
    uint32_t asleep             # 1: the second thread waits for `handed` to change
    uint32_t at                 # a futex: the context that it is at, plus 1; 0: none
    uint32_t waiting            # threads that wait for `at` to change
    uint32_t stop
    uint64_t signals            # that it has sent


cdef inline void hand_over(signaller_t *signaller, uint32_t index, uint32_t which, int fd) noexcept nogil:
    """Has the second thread signal a descriptor of a context."""
    cdef handed_t *handed = &signaller.context[index]
    store_u32(&handed.fd[which], <uint32_t>fd)
    or_u32(&handed.pending, <uint32_t>1 << which)
    add_u32(&signaller.handed, 1)
    if swap_u32(&signaller.asleep, 0):
        futex_wake(&signaller.handed)


cdef inline bint has_slow_signals(signaller_t *signaller, uint32_t index, uint64_t now) noexcept nogil:
    """Whether the signals of a context are for the second thread. now: cycle count."""
    cdef handed_t *handed = &signaller.context[index]
    cdef uint64_t until = load_u64(&handed.slow_until)
    if until == 0:
        return False
    if now < until:
        return True
    store_u64(&handed.slow_until, 0)
    return False


cdef inline bint rests(const signaller_t *signaller, uint32_t index, uint64_t now) noexcept nogil:
    """Whether the next slow signal of a context has to wait. now: cycle count."""
    cdef const handed_t *handed = &signaller.context[index]
    return load_u64(&handed.slow_until) != 0 and now < load_u64(&handed.not_before)


cdef inline void judge_signals(signaller_t *signaller, uint32_t index, uint64_t now, uint64_t spent,
                               uint64_t sent) noexcept nogil:
    """Looks at the cycles that `sent` signals of a context cost the engine: too many, and they are slow."""
    cdef handed_t *handed = &signaller.context[index]
    cdef uint64_t due = signaller.slow_signal * (sent if sent else 1)
    if goes_beyond(&handed.excess, spent, due, signaller.slow_signals):
        store_u64(&handed.slow_until, now + SLOW_FOR * handed.excess)
        handed.excess = 0
