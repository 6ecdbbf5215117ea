"""The system calls that a server still makes once it serves, and the arguments that matter.

The list is what the tests of `cdna serve` need, no more: `python -m cdna.sandbox.derive` runs them, and
compares. What they do not show has its reason beside it in `unseen`: another C library or architecture, an
error that no test causes.

Parts: a server's filter has ALWAYS, and those that its wire and its guests need.
"""

from __future__ import annotations

import fcntl
import socket
import termios
from dataclasses import dataclass

from cdna.nic import packet_socket, tap

ALWAYS = "always"
TAP = "tap"  # a wire to a tap, which is opened anew when it has gone
PACKET = "packet"  # a wire to an interface
NAMESPACES = "namespaces"  # guests that are namespaces: they come and go
PARTS = (ALWAYS, TAP, PACKET, NAMESPACES)


@dataclass(frozen=True)
class Value:
    name: str
    number: int
    unseen: str = ""  # why it is here although no test shows it


@dataclass(frozen=True)
class Only:
    """An argument that has one of these values, in the bits of `mask` where there is one."""

    argument: int  # from 0
    values: tuple[Value, ...]
    mask: int | None = None

    def allows(self, argument: int) -> Value | None:
        found = argument if self.mask is None else argument & self.mask
        return next((value for value in self.values if value.number == found), None)


@dataclass(frozen=True)
class Call:
    name: str
    only: tuple[Only, ...] = ()  # all of them hold
    parts: tuple[str, ...] = (ALWAYS,)
    unseen: str = ""  # why it is here although no test shows it
    instead_of: str = (
        ""  # a call that this architecture may lack; where it has that one, this one is left out
    )
    absent: bool = False  # fails with ENOSYS, and the C library asks in another way


def _one_of(argument: int, *values: tuple[str, int] | tuple[str, int, str]) -> Only:
    return Only(argument, tuple(Value(*value) for value in values))


def _option(level: int, name: str, option: int) -> tuple[Only, ...]:
    return (_one_of(1, ("", level)), _one_of(2, (name, option)))


OWN_PID = -1  # stands for this process's id
PROT_EXEC = 4
NETLINK_ROUTE = 0
ROUTE_NETLINK = (_one_of(0, ("AF_NETLINK", socket.AF_NETLINK)), _one_of(2, ("NETLINK_ROUTE", NETLINK_ROUTE)))
NO_CODE = (Only(2, (Value("no PROT_EXEC", 0),), PROT_EXEC),)
CLONE_VM, CLONE_SIGHAND, CLONE_THREAD = 0x100, 0x800, 0x10000  # linux/sched.h
CLONE_NAMESPACES = 0x7E020080  # CLONE_NEWTIME, NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET
CLONE_NEWNET = 0x40000000
THREAD = CLONE_VM | CLONE_SIGHAND | CLONE_THREAD
A_THREAD = (Only(0, (Value("a thread", THREAD),), THREAD | CLONE_NAMESPACES),)
PR_SET_NAME = 15  # linux/prctl.h
TCGETS2 = 0x802C542A  # asm-generic/ioctls.h
SIOCGIFNAME = 0x8910  # linux/sockios.h
TERMINAL = "on a terminal"
HEAP = "the C library's heap, when it grows"

CALLS: tuple[Call, ...] = (
    # --- descriptors --------------------------------------------------------------------------------------
    Call("read"),
    Call("write"),
    Call("writev"),
    Call("pwrite64"),
    Call("close"),
    Call("dup3", parts=(TAP,)),
    Call("lseek"),
    Call("ftruncate"),
    Call("fallocate"),
    Call("memfd_create"),
    Call("eventfd2"),
    Call("flock"),
    Call(
        "fcntl",
        (
            _one_of(
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
            _one_of(
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
    Call(
        "ioctl",
        (
            _one_of(
                1,
                ("TUNSETIFF", tap.TUNSETIFF),
                ("TUNSETOFFLOAD", tap.TUNSETOFFLOAD),
                ("TUNSETVNETHDRSZ", tap.TUNSETVNETHDRSZ),
                ("TUNSETCARRIER", tap.TUNSETCARRIER),
                ("TUNGETIFF", tap.TUNGETIFF),
                ("SIOCGIFINDEX", packet_socket.SIOCGIFINDEX),
            ),
        ),
        (TAP, NAMESPACES),
    ),
    Call("ioctl", (_one_of(1, ("SIOCETHTOOL", tap.SIOCETHTOOL)),), (NAMESPACES,)),
    Call(
        "ioctl",
        (
            _one_of(
                1,
                ("SIOCGIFNAME", SIOCGIFNAME),
                ("SIOCGIFFLAGS", packet_socket.SIOCGIFFLAGS),
                ("SIOCGIFHWADDR", packet_socket.SIOCGIFHWADDR),
                ("SIOCGIFINDEX", packet_socket.SIOCGIFINDEX),
                ("SIOCGIFMTU", packet_socket.SIOCGIFMTU),
            ),
        ),
        (PACKET,),
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
    # --- sockets ------------------------------------------------------------------------------------------
    Call("socket", (_one_of(0, ("AF_UNIX", socket.AF_UNIX)),)),
    Call("socket", ROUTE_NETLINK, (TAP, NAMESPACES)),
    Call("socketpair", (_one_of(0, ("AF_UNIX", socket.AF_UNIX)),)),
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
            _one_of(1, ("SOL_SOCKET", socket.SOL_SOCKET)),
            _one_of(
                2,
                ("SO_TYPE", socket.SO_TYPE),
                ("SO_PROTOCOL", socket.SO_PROTOCOL),
                ("SO_PEERCRED", socket.SO_PEERCRED),
                ("SO_ERROR", socket.SO_ERROR),
            ),
        ),
    ),
    Call("getsockopt", _option(packet_socket.SOL_PACKET, "PACKET_STATISTICS", 6), (PACKET,)),
    Call("setsockopt", _option(socket.SOL_SOCKET, "SO_SNDBUF", socket.SO_SNDBUF)),
    Call("setsockopt", _option(socket.SOL_SOCKET, "SO_RCVBUF", socket.SO_RCVBUF), (TAP, NAMESPACES)),
    Call("setsockopt", _option(packet_socket.SOL_PACKET, "PACKET_ADD_MEMBERSHIP", 1), (PACKET,)),
    Call("sendto"),
    Call("recvfrom"),
    Call("sendmsg"),
    Call("recvmsg"),
    # --- files: which ones is Landlock's to say -----------------------------------------------------------
    Call("openat"),
    Call("newfstatat"),
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
    Call("prctl", (_one_of(0, ("PR_SET_NAME", PR_SET_NAME, "Python 3.14 names its threads")),)),
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
    Call("tgkill", (_one_of(0, ("this process", OWN_PID, "abort(3)")),)),
    # --- namespaces, made for guests ------------------------------------------------------------------------
    Call("unshare", (_one_of(0, ("CLONE_NEWNET", CLONE_NEWNET)),), (NAMESPACES,)),
    Call("setns", (_one_of(1, ("CLONE_NEWNET", CLONE_NEWNET)),), (NAMESPACES,)),
    Call("pidfd_open", parts=(NAMESPACES,)),
)
