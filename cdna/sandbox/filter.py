"""The list of system calls as a seccomp filter, which libseccomp makes and the kernel gives to every thread.

A call that is not in the list, or has other arguments, ends the process (SIGSYS) before the kernel looks at
it. With `log` the kernel writes it down, where it is asked to (dmesg, the audit log), and carries it out.
"""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from cdna.extend.permits import Call, Only
from cdna.sandbox.calls import OWN_PID, calls_of

if TYPE_CHECKING:
    import pyseccomp

UNKNOWN = -1  # libseccomp: no name of a system call, at least none that it has heard of


def trouble() -> str | None:
    """Why there can be no filter here; None: there can."""
    try:
        import pyseccomp  # noqa: F401
    except (ImportError, RuntimeError, OSError):
        return "libseccomp is missing (apt-get install libseccomp2)"
    try:
        with open("/proc/sys/kernel/seccomp/actions_avail", encoding="ascii") as file:
            actions = file.read().split()
    except OSError:
        return "not in this kernel (CONFIG_SECCOMP_FILTER has it)"
    return None if "kill_process" in actions else "this kernel is too old (Linux 4.14 can end a process)"


def make_filter(permitted: Iterable[Call], *, log: bool = False) -> pyseccomp.SyscallFilter:
    """The filter of the list and these calls; `load` has every thread of this process keep to it."""
    import pyseccomp as seccomp

    made = seccomp.SyscallFilter(seccomp.LOG if log else seccomp.KILL_PROCESS)
    if not log:
        made.set_attr(seccomp.Attr.ACT_BADARCH, seccomp.KILL_PROCESS)
    made.set_attr(seccomp.Attr.CTL_TSYNC, 1)
    # Kernels before 5.16 otherwise slow down all loads and stores of a process with a filter, as if it ran
    # programs of others inside it (SECCOMP_FILTER_FLAG_SPEC_ALLOW).
    made.set_attr(seccomp.Attr.CTL_SSB, 1)
    for call in calls_of(permitted):
        number = seccomp.resolve_syscall(seccomp.Arch.NATIVE, call.name)
        if number == UNKNOWN:
            continue  # newer than libseccomp
        if call.instead_of and seccomp.resolve_syscall(seccomp.Arch.NATIVE, call.instead_of) >= 0:
            continue
        action = seccomp.ERRNO(errno.ENOSYS) if call.absent else seccomp.ALLOW
        for comparisons in alternatives(call.only):
            made.add_rule(action, number, *(_argument(seccomp, *compared) for compared in comparisons))
    return made


def count(permitted: Iterable[Call]) -> int:
    """How many system calls these are, whatever their arguments."""
    return len({call.name for call in calls_of(permitted) if not (call.instead_of or call.absent)})


def alternatives(only: Iterable[Only]) -> list[tuple[tuple[int, int | None, int], ...]]:
    """All ways to meet all conditions: (argument, mask or None, value) of each."""
    return list(
        itertools.product(*([(one.argument, one.mask, value.number) for value in one.values] for one in only))
    )


def _argument(seccomp: Any, argument: int, mask: int | None, value: int) -> Any:
    if value == OWN_PID:
        value = os.getpid()
    if mask is None:
        return seccomp.Arg(argument, seccomp.EQ, value)
    return seccomp.Arg(argument, seccomp.MASKED_EQ, mask, value)
