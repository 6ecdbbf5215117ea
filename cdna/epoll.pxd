"""epoll, edge triggered, for loops that watch taps and sockets."""

from libc.stdint cimport uint32_t

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

cdef extern from "<sys/resource.h>" nogil:
    int setpriority(int which, unsigned who, int priority)
    enum:
        PRIO_PROCESS

cdef enum:
    SLACK_NS = 1000             # of the timers of a thread that naps
    NICE = -10                  # a NIC does not queue for a time slice behind those who send


cdef inline void prefer_this_thread() noexcept nogil:
    """Sets the calling thread's timer slack, and its priority where that is allowed."""
    prctl(PR_SET_TIMERSLACK, SLACK_NS)
    setpriority(PRIO_PROCESS, 0, NICE)
