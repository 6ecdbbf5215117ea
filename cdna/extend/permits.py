"""What a wire or a guest needs of a server's sandbox, declared beside the code that needs it.

    Permits(calls=(Call("socket", ROUTE_NETLINK),), paths={"/dev/net/tun": DEVICE}, modules=("pyroute2",))

`cdna.sandbox` makes a filter of system calls, Landlock rules and a set of capabilities of all of them.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, IntFlag


class Access(IntFlag):
    """What may be done to a file, or in a directory: LANDLOCK_ACCESS_FS_*."""

    EXECUTE = 1 << 0
    WRITE_FILE = 1 << 1
    READ_FILE = 1 << 2
    READ_DIR = 1 << 3
    REMOVE_DIR = 1 << 4
    REMOVE_FILE = 1 << 5
    MAKE_CHAR = 1 << 6
    MAKE_DIR = 1 << 7
    MAKE_REG = 1 << 8
    MAKE_SOCK = 1 << 9
    MAKE_FIFO = 1 << 10
    MAKE_BLOCK = 1 << 11
    MAKE_SYM = 1 << 12
    REFER = 1 << 13  # ABI 2
    TRUNCATE = 1 << 14  # ABI 3
    IOCTL_DEV = 1 << 15  # ABI 5


class Capability(IntEnum):
    """Those that a server may have a use for: linux/capability.h."""

    CAP_DAC_OVERRIDE = 1
    CAP_NET_ADMIN = 12
    CAP_SYS_ADMIN = 21


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
    unseen: str = ""  # why it is here although no test shows it
    instead_of: str = (
        ""  # a call that this architecture may lack; where it has that one, this one is left out
    )
    absent: bool = False  # fails with ENOSYS, and the C library asks in another way


def one_of(argument: int, *values: tuple[str, int] | tuple[str, int, str]) -> Only:
    return Only(argument, tuple(Value(*value) for value in values))


def option(level: int, name: str, option: int) -> tuple[Only, ...]:
    return (one_of(1, ("", level)), one_of(2, (name, option)))


# Rights and calls that several entries share.
DEVICE = Access.READ_FILE | Access.WRITE_FILE | Access.IOCTL_DEV
TUN = {"/dev/net/tun": DEVICE}
NETLINK_ROUTE = 0
ROUTE_NETLINK = (one_of(0, ("AF_NETLINK", socket.AF_NETLINK)), one_of(2, ("NETLINK_ROUTE", NETLINK_ROUTE)))


@dataclass(frozen=True)
class Permits:
    """What a server may still do in its sandbox for the sake of one entry, beside what every server does.

    calls: system calls. paths: what may be done at or beneath a path. keep: capabilities, of those that there
    are. listens: sockets that it listens on, and makes anew. modules: imported before the sandbox is entered,
    as no file can be read then.
    """

    calls: tuple[Call, ...] = ()
    paths: Mapping[str, Access] = field(default_factory=dict)
    keep: frozenset[Capability] = frozenset()
    listens: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
