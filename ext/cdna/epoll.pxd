"""epoll, edge triggered, for loops that watch taps and sockets."""

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memset

from cdna.cpu cimport cycles, sched_yield

cdef extern from "<sys/epoll.h>" nogil:
    ctypedef union epoll_data_t:
        uint32_t u32
    struct epoll_event:
        uint32_t events
        epoll_data_t data
    int epoll_create1(int flags)
    int epoll_ctl(int epfd, int op, int fd, epoll_event *event)
    int epoll_wait(int epfd, epoll_event *events, int maxevents, int timeout)
    enum:
        EPOLL_CLOEXEC
        EPOLL_CTL_ADD
        EPOLL_CTL_DEL
        EPOLLIN
        EPOLLET

cdef extern from "<sys/prctl.h>" nogil:
    int prctl(int option, unsigned long value)
    enum:
        PR_SET_TIMERSLACK

cdef enum:
    SLACK_NS = 1000             # of the timers of a thread that naps


cdef inline void precise_timers() noexcept nogil:
    """Has the calling thread's naps end when they should."""
    prctl(PR_SET_TIMERSLACK, SLACK_NS)


cdef inline int watch(int epoll, int fd, uint32_t which, uint32_t events) noexcept nogil:
    """Adds a descriptor, whose events carry the number `which`. Below 0: errno says why not."""
    cdef epoll_event event
    memset(&event, 0, sizeof(event))
    event.events = events
    event.data.u32 = which
    return epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event)


cdef inline bint spun_out(uint64_t *idle_since, int64_t spin_cycles) noexcept nogil:
    """After a round without a frame: whether the loop has spun long enough and should sleep.

    idle_since: 0 after a round that moved something. Set it to now after a sleep: what wakes a loop often
    comes in pairs, a question and its answer. spin_cycles: below 0, it never sleeps. While it spins, programs
    that want this core may have it.
    """
    cdef uint64_t now = cycles()
    if idle_since[0] == 0:
        idle_since[0] = now
        return False
    if spin_cycles >= 0 and <int64_t>(now - idle_since[0]) >= spin_cycles:
        return True
    sched_yield()
    return False
