"""The system calls that a server still makes once it serves, and the arguments that matter.

The list is what the tests of `cdna serve` need, no more: `python -m tests.sandbox.derive` runs them, and
compares. What they do not show has its reason beside it in `unseen`: another C library or architecture, an
error that no test causes.

A server's filter has these, and what the entries of its wire and its kinds of guests permit
(`cdna.extend.permits`).
"""

from __future__ import annotations

import fcntl
import socket
import termios
from collections.abc import Iterable

from cdna.extend.permits import Call, Only, Value, one_of, option

OWN_PID = -1  # stands for this process's id
PROT_EXEC = 4
NO_CODE = (Only(2, (Value("no PROT_EXEC", 0),), PROT_EXEC),)
CLONE_VM, CLONE_SIGHAND, CLONE_THREAD = 0x100, 0x800, 0x10000  # linux/sched.h
CLONE_NAMESPACES = 0x7E020080  # CLONE_NEWTIME, NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET
THREAD = CLONE_VM | CLONE_SIGHAND | CLONE_THREAD
A_THREAD = (Only(0, (Value("a thread", THREAD),), THREAD | CLONE_NAMESPACES),)
PR_SET_NAME = 15  # linux/prctl.h
TCGETS2 = 0x802C542A  # asm-generic/ioctls.h
TERMINAL = "on a terminal"
HEAP = "the C library's heap, when it grows"

CALLS: tuple[Call, ...] = (
    # --- descriptors --------------------------------------------------------------------------------------
    Call("read"),
    Call("write"),
    Call("writev"),
    Call("pwrite64"),
    Call("close"),
    Call("lseek"),
    Call("ftruncate"),
    Call("fallocate"),
    Call("memfd_create"),
    Call("eventfd2"),
    Call(
        "fcntl",
        (
            one_of(
                1,
                ("F_GETFL", fcntl.F_GETFL),
                ("F_SETFL", fcntl.F_SETFL),
                ("F_DUPFD_CLOEXEC", fcntl.F_DUPFD_CLOEXEC),
                ("F_ADD_SEALS", fcntl.F_ADD_SEALS),
                ("F_GET_SEALS", fcntl.F_GET_SEALS),
            ),
        ),
    ),
    Call(
        "ioctl",
        (
            one_of(
                1,
                ("FIONBIO", termios.FIONBIO),
                ("FIONREAD", termios.FIONREAD),
                ("TCGETS", termios.TCGETS),
                ("TCGETS2", TCGETS2, "what C libraries after glibc 2.41 ask"),
                ("TIOCGWINSZ", termios.TIOCGWINSZ, TERMINAL),
                ("TIOCGPGRP", termios.TIOCGPGRP, TERMINAL),
            ),
        ),
    ),
    # --- waiting, and being told ----------------------------------------------------------------------------
    Call("epoll_create1"),
    Call("epoll_ctl"),
    Call("epoll_wait"),
    Call("epoll_pwait", instead_of="epoll_wait"),
    Call("epoll_pwait2"),
    Call("poll"),
    Call("ppoll", instead_of="poll"),
    Call("io_setup"),
    Call("io_submit"),
    Call("io_destroy"),
    # --- sockets ------------------------------------------------------------------------------------------
    Call("socket", (one_of(0, ("AF_UNIX", socket.AF_UNIX)),)),
    Call("socketpair", (one_of(0, ("AF_UNIX", socket.AF_UNIX)),)),
    Call("bind"),
    Call("listen"),
    Call("connect"),
    Call("accept4"),
    Call("shutdown"),
    Call("getsockname"),
    Call("getpeername"),
    Call(
        "getsockopt",
        (
            one_of(1, ("SOL_SOCKET", socket.SOL_SOCKET)),
            one_of(
                2,
                ("SO_TYPE", socket.SO_TYPE),
                ("SO_PROTOCOL", socket.SO_PROTOCOL),
                ("SO_PEERCRED", socket.SO_PEERCRED),
                ("SO_ERROR", socket.SO_ERROR),
            ),
        ),
    ),
    Call("setsockopt", option(socket.SOL_SOCKET, "SO_SNDBUF", socket.SO_SNDBUF)),
    Call("sendto"),
    Call("recvfrom"),
    Call("sendmsg"),
    Call("recvmsg"),
    # --- files: which ones is Landlock's to say -----------------------------------------------------------
    Call("openat"),
    Call("newfstatat"),
    Call("fstatfs"),
    Call("fstat", unseen="what C libraries before glibc 2.33 ask, and other ones"),
    Call("readlink"),
    Call("readlinkat", instead_of="readlink"),
    Call("unlink"),
    Call("rmdir"),
    Call("unlinkat", instead_of="unlink"),
    Call("rename"),
    Call("renameat", instead_of="rename"),
    Call("fchmod"),
    Call("umask"),
    Call("getcwd", unseen="a client of the control socket may give a relative path"),
    Call("getdents64", unseen="an import that was not foreseen, from a directory that has changed"),
    # --- memory: none of it becomes code -------------------------------------------------------------------
    Call("mmap", NO_CODE),
    Call("mprotect", NO_CODE),
    Call("munmap"),
    Call("mremap"),
    Call("madvise"),
    Call("brk", unseen=HEAP),
    # --- threads, and no processes -------------------------------------------------------------------------
    Call("clone", A_THREAD),
    Call("clone3", absent=True),  # whose flags lie in memory, where no filter sees them
    Call("exit"),
    Call("exit_group"),
    Call("futex"),
    Call("set_robust_list"),
    Call("rseq"),
    Call("gettid"),
    Call("getpid"),
    Call("geteuid"),
    Call("sched_yield"),
    Call("sched_getaffinity", unseen=HEAP),
    Call("sysinfo", unseen="the C library, before it sorts much"),
    Call("getrandom"),
    Call("prctl", (one_of(0, ("PR_SET_NAME", PR_SET_NAME, "Python 3.14 names its threads")),)),
    # --- time ---------------------------------------------------------------------------------------------
    Call("clock_gettime"),
    Call("clock_nanosleep", unseen="waiting for an engine that does not stand still at once"),
    # --- signals ------------------------------------------------------------------------------------------
    Call("rt_sigaction"),
    Call("rt_sigprocmask"),
    Call("rt_sigreturn"),
    Call("setitimer"),
    Call("sigaltstack"),  # PYTHONFAULTHANDLER, PYTHONDEVMODE: undone at the end
    Call("restart_syscall", unseen="the kernel's own, after a stop"),
    Call("tgkill", (one_of(0, ("this process", OWN_PID, "abort(3)")),)),
)


def calls_of(permitted: Iterable[Call]) -> tuple[Call, ...]:
    """The calls of a server whose entries permit these, each once."""
    return tuple(dict.fromkeys((*CALLS, *permitted)))
