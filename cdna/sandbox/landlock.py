"""Landlock: which files and ports this process still reaches (landlock(7), linux/landlock.h).

Rights that the kernel's ABI does not have are left out, so an older kernel restricts less. A right that is
handled and not granted beneath a path is denied with EACCES; descriptors that are open stay as they are.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Mapping

from cdna.extend.permits import Access

SYS_CREATE_RULESET, SYS_ADD_RULE, SYS_RESTRICT_SELF = 444, 445, 446  # the same on every architecture
CREATE_RULESET_VERSION = 1
RULE_PATH_BENEATH = 1

FILE = Access.EXECUTE | Access.WRITE_FILE | Access.READ_FILE | Access.TRUNCATE | Access.IOCTL_DEV
NET_BIND_TCP, NET_CONNECT_TCP = 1 << 0, 1 << 1  # LANDLOCK_ACCESS_NET_*, ABI 4
SCOPE_ABSTRACT_UNIX, SCOPE_SIGNAL = 1 << 0, 1 << 1  # LANDLOCK_SCOPE_*, ABI 6

_libc = ctypes.CDLL(None, use_errno=True)


class _Ruleset(ctypes.Structure):
    _fields_ = (("fs", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("parent_fd", ctypes.c_int32))


def _call(number: int, *arguments: object) -> int:
    result = int(_libc.syscall(ctypes.c_long(number), *arguments))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def abi() -> tuple[int, str]:
    """The kernel's version of Landlock, 0 where there is none, and then why."""
    try:
        return _call(
            SYS_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(CREATE_RULESET_VERSION)
        ), ""
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            return 0, "turned off when the kernel was booted (lsm=landlock,... turns it on)"
        return 0, "not in this kernel (Linux 5.13 with CONFIG_SECURITY_LANDLOCK has it)"


def handled_access(version: int) -> Access:
    """All that this version can deny."""
    known = Access.REFER - 1
    for least, right in ((2, Access.REFER), (3, Access.TRUNCATE), (5, Access.IOCTL_DEV)):
        known |= right if version >= least else 0
    return Access(known)


def lacks(version: int) -> list[str]:
    """What this version cannot deny yet, in words."""
    later = ((3, "truncation"), (4, "TCP ports"), (5, "ioctl of devices"), (6, "signals, abstract sockets"))
    return [what for least, what in later if version < least]


def ruleset(version: int, allowed: Mapping[str, Access], *, abstract: bool = False) -> int:
    """A descriptor of rules by which nothing is allowed but this, beneath these paths. OSError: none.

    No TCP port is bound or connected to, no process outside is signalled. abstract: sockets of the abstract
    name space that others made can be connected to. A path that does not exist allows nothing.
    """
    handled = handled_access(version)
    scoped = SCOPE_SIGNAL | (0 if abstract else SCOPE_ABSTRACT_UNIX)
    attributes = _Ruleset(
        handled, NET_BIND_TCP | NET_CONNECT_TCP if version >= 4 else 0, scoped if version >= 6 else 0
    )
    size = 8 if version < 4 else 16 if version < 6 else 24  # older kernels know a shorter one
    rules = _call(SYS_CREATE_RULESET, ctypes.byref(attributes), ctypes.c_size_t(size), ctypes.c_uint32(0))
    try:
        for path, access in allowed.items():
            _allow(rules, path, access & handled)
    except BaseException:
        os.close(rules)
        raise
    return rules


def _allow(rules: int, path: str, access: Access) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        if not os.path.isdir(f"/proc/self/fd/{fd}"):
            access &= FILE
        if access:
            rule = _PathBeneath(access, fd)
            _call(
                SYS_ADD_RULE,
                ctypes.c_int(rules),
                ctypes.c_int(RULE_PATH_BENEATH),
                ctypes.byref(rule),
                ctypes.c_uint32(0),
            )
    finally:
        os.close(fd)
