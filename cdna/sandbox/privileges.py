"""Capabilities, users and limits: what a server gives up (capabilities(7), prctl(2), setrlimit(2)).

All but the limits belong to a thread, so these are system calls for `every_thread` to make.
"""

from __future__ import annotations

import array
import contextlib
import os
import pwd
import resource
from collections.abc import Iterable
from dataclasses import dataclass
from grp import getgrnam

from cdna.errors import ConfigError
from cdna.extend.permits import Capability
from cdna.sandbox.threads import NUMBERS

PR_SET_DUMPABLE, PR_SET_KEEPCAPS, PR_SET_NO_NEW_PRIVS = 4, 8, 38  # linux/prctl.h
CAPABILITY_VERSION_3 = 0x20080522  # linux/capability.h

Call = tuple[int, ...]


@dataclass(frozen=True)
class User:
    """Who a server becomes."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]


def user_of(option: str, text: str) -> User:
    """USER or USER:GROUP, each a name or a number. ConfigError: there is none."""
    name, colon, group = text.partition(":")
    try:
        entry = pwd.getpwuid(int(name)) if name.isdecimal() else pwd.getpwnam(name)
        gid = entry.pw_gid
        if colon:
            gid = int(group) if group.isdecimal() else getgrnam(group).gr_gid
    except (KeyError, ValueError, OverflowError):
        raise ConfigError(
            f"{option} {text!r:.60}: no such user here; give USER or USER:GROUP, such as nobody"
        ) from None
    if os.geteuid() != 0 and (entry.pw_uid, gid) != (os.geteuid(), os.getegid()):
        raise ConfigError(f"{option} {text}: only root becomes somebody else; leave it out, or run as root")
    if entry.pw_uid == 0:
        raise ConfigError(f"{option} {text}: that is root; give another user")
    return User(entry.pw_name, entry.pw_uid, gid, (gid,) if colon else tuple(_groups(entry.pw_name, gid)))


def _groups(name: str, gid: int) -> list[int]:
    with contextlib.suppress(OSError):
        return os.getgrouplist(name, gid)
    return [gid]


def held() -> int:
    """The mask of the capabilities that this thread may use."""
    with open("/proc/thread-self/status", encoding="ascii") as status:
        return next(int(line.split()[1], 16) for line in status if line.startswith("CapPrm:"))


def names(mask: int) -> list[str]:
    return [c.name.removeprefix("CAP_").lower() for c in Capability if mask >> c & 1]


class Drop:
    """The system calls that leave this process these capabilities, of those it has, and make it `user`.

    It has to be kept until they were made: they point into it.
    """

    def __init__(self, keep: Iterable[Capability], user: User | None) -> None:
        self.kept = held() & sum(1 << capability for capability in keep)
        low, high = self.kept & 0xFFFFFFFF, self.kept >> 32
        # struct cap_user_header {version, pid}, then two of cap_user_data {effective, permitted, inheritable}
        self._header = array.array("I", [CAPABILITY_VERSION_3, 0])
        self._data = array.array("I", [low, low, 0, high, high, 0])
        self._groups = array.array("I", user.groups if user is not None else ())
        self.calls: list[Call] = []
        if user is not None and (user.uid, user.gid) != (os.geteuid(), os.getegid()):
            self.calls += self._become(user)
        self.calls.append((NUMBERS["capset"], _address(self._header), _address(self._data)))
        self.calls.append((NUMBERS["prctl"], PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))

    def _become(self, user: User) -> list[Call]:
        prctl = NUMBERS["prctl"]
        return [
            (prctl, PR_SET_KEEPCAPS, 1, 0, 0, 0),  # capset lets go of them
            (NUMBERS["setgroups"], len(self._groups), _address(self._groups)),
            (NUMBERS["setresgid"], user.gid, user.gid, user.gid),
            (NUMBERS["setresuid"], user.uid, user.uid, user.uid),
        ]


def not_dumpable() -> Call:
    """Nobody but root traces this process or reads its memory; it is the whole process's."""
    return (NUMBERS["prctl"], PR_SET_DUMPABLE, 0, 0, 0, 0)


def _address(of: array.array[int]) -> int:
    return of.buffer_info()[0]


def set_limits() -> None:
    """No core files, which would hold guests' memory; no more descriptors than are allowed already.

    The number of processes is not limited, as that counts all of a user's; the filter of system calls allows
    no new one anyway. Nor is the size of files: memory files and logs are files, too.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, soft))
