"""The two ways to a frontend: listening on a path, and connecting to a frontend that listens.

Both hand out sockets by `take` when `fd` is readable or `due` has come, and are opened and closed as often as
the link goes up and down.
"""

from __future__ import annotations

import os
import socket

from cdna.base.sockets import ACCEPT_AGAIN, listen, remove
from cdna.errors import ResourceError

CONNECT_AGAIN = 0.5  # seconds between two attempts while nobody listens


class Listening:
    """A listening socket at `path`, mode 0600 unless `others` may come, who are to be checked."""

    mode = "server"

    def __init__(self, path: str, others: bool) -> None:
        self.path = path
        self.due: float | None = None
        self._others = others
        self._listener: socket.socket | None = None
        self._inode = 0

    @property
    def fd(self) -> int | None:
        return self._listener.fileno() if self._listener is not None else None

    def open(self) -> None:
        """Listens. ResourceError: it cannot."""
        if self._listener is None:
            self._listener = listen(self.path, self._others, socket.SOCK_STREAM)
            self._inode = os.stat(self.path).st_ino

    def take(self, now: float) -> socket.socket | None:
        """The next frontend that has connected. OSError: there is no descriptor left for it."""
        if self._listener is None:
            return None
        try:
            sock, _ = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return None
        except OSError:
            self.due = now + ACCEPT_AGAIN
            raise
        return sock

    def close(self) -> None:
        """Listens no more; nothing is left at the path."""
        if self._listener is not None:
            remove(self.path, self._inode)
            self._listener.close()
            self._listener = None
        self.due = None


class Connecting:
    """Connects to the frontend that listens at `path`, again and again until one does."""

    mode = "client"
    fd: int | None = None  # there is nothing to watch, only a time

    def __init__(self, path: str) -> None:
        if len(os.fsencode(path)) > 107:
            raise ResourceError(f"cannot connect to {path!r}: the path has more than 107 bytes; give another")
        self.path = path
        self.due: float | None = None

    def open(self) -> None:
        """The next `take` is due now."""
        self.due = 0.0

    def take(self, now: float) -> socket.socket | None:
        """A socket that has connected; None if nobody listens. Due again in a while, either way."""
        self.due = now + CONNECT_AGAIN
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.setblocking(False)
        try:
            sock.connect(self.path)
        except OSError:
            sock.close()
            return None
        return sock

    def close(self) -> None:
        self.due = None
