"""Frames that a network device has dropped before its driver saw them, as the kernel counts them.

A tap's queue is full when its reader is slow or held back by a rate limit: the kernel drops what comes then,
and counts it in the device's tx_dropped. It is read over rtnetlink (RTM_GETSTATS), by a socket that belongs
to the network namespace of the thread that makes it, and stays usable from everywhere.
"""

from __future__ import annotations

import contextlib
import socket
import struct

NETLINK_ROUTE = 0  # linux/netlink.h
NLM_F_REQUEST = 0x1
RTM_NEWSTATS, RTM_GETSTATS = 92, 94  # linux/rtnetlink.h
IFLA_STATS_LINK_64 = 1  # linux/if_link.h; the filter has bit 0 for it
TX_DROPPED = 7  # position in struct rtnl_link_stats64
LONGEST = 4096  # bytes of an answer

_HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence number, port
_REQUEST = struct.Struct("=BBHII")  # if_stats_msg: family, padding, index, filter
_ATTRIBUTE = struct.Struct("=HH")  # nlattr: length, type
_COUNTERS = struct.Struct("=8Q")  # the beginning of rtnl_link_stats64


class DeviceDrops:
    """Counts the drops of the device `name` of this thread's network namespace, from 0 on."""

    def __init__(self, name: str) -> None:
        self._total = 0  # of devices before this one
        self._socket: socket.socket | None = None
        self._sequence = 0
        self._last = self._before = self._index = 0
        with contextlib.suppress(OSError):  # a kernel without it counts nothing
            kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
            self._socket = socket.socket(socket.AF_NETLINK, kind, NETLINK_ROUTE)
        self.follow(name)

    def follow(self, name: str) -> None:
        """Goes on with the device that has this name in this thread's namespace, another one by now."""
        self._total += self._last
        self._last = 0
        with contextlib.suppress(OSError):
            self._index = socket.if_nametoindex(name)
        self._before = self._ask() or 0

    def count(self) -> int:
        """Frames that were dropped so far. Of a device that is gone: until it was last looked at."""
        now = self._ask()
        if now is not None:
            self._last = max(now - self._before, 0)
        return self._total + self._last

    def _ask(self) -> int | None:
        """The device's tx_dropped; None: the device is gone, or the kernel does not tell."""
        if self._socket is None:
            return None
        self._sequence += 1
        body = _REQUEST.pack(socket.AF_UNSPEC, 0, 0, self._index, 1 << IFLA_STATS_LINK_64 - 1)
        size = _HEADER.size + len(body)
        try:
            self._socket.send(_HEADER.pack(size, RTM_GETSTATS, NLM_F_REQUEST, self._sequence, 0) + body)
            while True:
                answer = self._socket.recv(LONGEST)
                _, kind, _, sequence, _ = _HEADER.unpack_from(answer)
                if sequence == self._sequence:
                    return _tx_dropped(answer) if kind == RTM_NEWSTATS else None
        except (OSError, struct.error):
            return None

    def close(self) -> None:
        """Closing twice is harmless; what was counted stays."""
        opened, self._socket = self._socket, None
        if opened is not None:
            opened.close()


def _tx_dropped(answer: bytes) -> int | None:
    """The counter in an RTM_NEWSTATS message, whose attributes are aligned to 4 bytes."""
    at = _HEADER.size + _REQUEST.size
    while at + _ATTRIBUTE.size <= len(answer):
        length, kind = _ATTRIBUTE.unpack_from(answer, at)
        if kind == IFLA_STATS_LINK_64:
            return int(_COUNTERS.unpack_from(answer, at + _ATTRIBUTE.size)[TX_DROPPED])
        at += max(_ATTRIBUTE.size, -(-length // 4) * 4)
    return None
