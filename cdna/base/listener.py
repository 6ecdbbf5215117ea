"""A listening socket in a loop; while there is no time or no room, connections wait in the kernel's queue."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from cdna.base.sockets import remove

if TYPE_CHECKING:
    from cdna.base.loop import Loop

ACCEPT_AGAIN = 1.0  # seconds, when this process had no descriptor left for a connection


class Listener:
    """Has `loop` call `act` when there is a connection, but not before `due`; None: at once.

    path: of a Unix socket, which is removed at the end.
    """

    def __init__(
        self, loop: Loop, sock: socket.socket, path: str | None, act: Callable[[float], object]
    ) -> None:
        self.due: float | None = None
        self._loop = loop
        self._sock = sock
        self._path = path
        self._inode = os.stat(path).st_ino if path is not None else 0
        self._act = act
        self._watch(select.EPOLLIN)

    def accept(self, now: float) -> socket.socket | None:
        """The next connection, None if there is none. OSError: no descriptor is left for it; they wait."""
        try:
            sock, _ = self._sock.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return None
        except OSError:
            self.back_off(now)
            raise
        sock.setblocking(False)
        return sock

    def back_off(self, now: float) -> None:
        """Waits, as no descriptor is left: the socket would stay ready, and the loop would spin."""
        self.wait(now + ACCEPT_AGAIN)

    def wait(self, until: float) -> None:
        """Takes no connection until then."""
        self._watch(0)  # it stays registered: registering it anew could fail
        self.due = until if self.due is None else max(until, self.due)

    def tick(self, now: float) -> None:
        """Goes on when it is due."""
        if self.due is not None and now >= self.due:
            self.due = None
            self._watch(select.EPOLLIN)

    def _watch(self, events: int) -> None:
        self._loop.watch(self._sock.fileno(), self._ready, events)

    def _ready(self, now: float) -> None:
        if self.due is None:  # else it began to wait in this turn of the loop
            self._act(now)

    def close(self) -> None:
        self._loop.unwatch(self._sock.fileno())
        if self._path is not None:
            remove(self._path, self._inode)
        self._sock.close()
