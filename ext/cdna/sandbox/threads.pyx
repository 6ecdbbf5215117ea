"""System calls made by every thread of this process, for what the kernel keeps thread by thread.

Capabilities, users, no_new_privs and Landlock belong to a thread. When a sandbox is entered there are several
already, so each is interrupted by a signal whose handler makes the calls, as the C library does for setuid(2)
and libpsx for capset(2). A thread that is made meanwhile is found by looking again; one that is made by a
thread that has been here starts with what that has.
"""
# build: control

import os
import time

from libc.errno cimport errno
from libc.stdint cimport int32_t, uint32_t
from libc.string cimport memset

from cdna.cpu cimport load_u32, store_u32

from cdna.errors import ResourceError

cdef extern from "<signal.h>" nogil:
    ctypedef struct siginfo_t:
        pass
    ctypedef struct sigset_t:
        pass
    struct sigaction_t "sigaction":
        void (*sa_sigaction)(int, siginfo_t *, void *) noexcept nogil
        sigset_t sa_mask
        int sa_flags
    int sigaction(int number, const sigaction_t *act, sigaction_t *old)
    int sigfillset(sigset_t *set)
    int SIGRTMAX
    enum:
        SA_SIGINFO
        SA_RESTART

cdef extern from "<unistd.h>" nogil:
    long syscall(long number, ...)

cdef extern from *:
    """
    #include <sys/syscall.h>
    #ifndef SYS_landlock_restrict_self      /* the same on every architecture */
    #define SYS_landlock_restrict_self 446
    #endif
    """
    enum:
        SYS_capset
        SYS_gettid
        SYS_landlock_restrict_self
        SYS_prctl
        SYS_setgroups
        SYS_setresgid
        SYS_setresuid
        SYS_tgkill

cdef extern from *:
    """
    #include <errno.h>
    static inline void cdna_set_errno(int number) { errno = number; }
    static inline unsigned cdna_take_number(unsigned *at)
    {
        return __atomic_fetch_add(at, 1, __ATOMIC_ACQ_REL);
    }
    """
    void set_errno "cdna_set_errno"(int number) noexcept nogil
    uint32_t take_number "cdna_take_number"(uint32_t *at) noexcept nogil

cdef enum:
    MAX_CALLS = 16
    MAX_THREADS = 8192
    ARGUMENTS = 5
    PATIENCE = 10               # seconds that a thread has to get the signal

cdef struct call_t:
    long number
    long argument[ARGUMENTS]

# Their numbers on this architecture.
NUMBERS = {
    "capset": SYS_capset,
    "landlock_restrict_self": SYS_landlock_restrict_self,
    "prctl": SYS_prctl,
    "setgroups": SYS_setgroups,
    "setresgid": SYS_setresgid,
    "setresuid": SYS_setresuid,
}

cdef call_t _call[MAX_CALLS]
cdef uint32_t _calls
cdef uint32_t _done                         # threads that have made the calls
cdef int32_t _thread[MAX_THREADS]           # their ids; 0: being written
cdef uint32_t _failed                       # 0, or 1 + the index of a call that failed somewhere
cdef int32_t _why                           # its errno


cdef void make_calls() noexcept nogil:
    cdef uint32_t i
    cdef call_t *call
    global _why
    for i in range(_calls):
        call = &_call[i]
        if syscall(call.number, call.argument[0], call.argument[1], call.argument[2], call.argument[3],
                   call.argument[4]) < 0:
            _why = errno
            store_u32(&_failed, i + 1)
            break


cdef void on_signal(int number, siginfo_t *info, void *context) noexcept nogil:
    cdef int before = errno
    cdef uint32_t which
    make_calls()
    which = take_number(&_done)
    if which < MAX_THREADS:
        store_u32(<uint32_t *>&_thread[which], <uint32_t>syscall(SYS_gettid))
    set_errno(before)


def every_thread(calls):
    """Makes the system calls, each a number and up to five arguments, in every thread, in this one last.

    OSError: one of them failed, in some thread; `filename` is its index. ResourceError: some thread does not
    answer.
    """
    cdef sigaction_t action
    cdef sigaction_t before
    cdef uint32_t i, j
    global _calls, _done, _failed
    calls = list(calls)
    if len(calls) > MAX_CALLS:
        raise ValueError(f"{len(calls)} calls; up to {<int>MAX_CALLS} fit")
    memset(_call, 0, sizeof(_call))
    for i, call in enumerate(calls):
        _call[i].number = call[0]
        for j, argument in enumerate(call[1:]):
            _call[i].argument[j] = argument
    _calls = len(calls)
    _done = _failed = 0
    memset(_thread, 0, sizeof(_thread))
    memset(&action, 0, sizeof(action))
    action.sa_sigaction = on_signal
    action.sa_flags = SA_SIGINFO | SA_RESTART
    sigfillset(&action.sa_mask)
    sigaction(SIGRTMAX, &action, &before)
    try:
        _signal_others(SIGRTMAX)
    finally:
        sigaction(SIGRTMAX, &before, NULL)
    make_calls()
    if _failed:
        raise OSError(_why, os.strerror(_why), _failed - 1)


cdef _signal_others(int number):
    """Returns when every other thread has made the calls, those that began meanwhile among them."""
    cdef uint32_t i
    own, asked = syscall(SYS_gettid), set()
    deadline = time.monotonic() + PATIENCE
    while True:
        there = set(map(int, os.listdir("/proc/self/task"))) - {own}
        left = there - {_thread[i] for i in range(min(load_u32(&_done), <uint32_t>MAX_THREADS))}
        if not left:
            return
        for thread in left - asked:
            syscall(SYS_tgkill, <long>os.getpid(), <long>thread, <long>number)     # or it has ended
        asked |= left
        if time.monotonic() > deadline:
            raise ResourceError(f"{len(left)} threads do not answer")
        time.sleep(0.0002)
