"""The two ways to a frontend: listening on a path, and connecting to a frontend that listens.

Both call `act` in the server's loop when there may be a frontend to `take`: at `due`, if it is not None, or
when one has come. They are opened and closed as often as the link goes up and down.
"""

from __future__ import annotations

import os
import socket

from cdna.base.listener import Listener
from cdna.base.loop import Act, Loop
from cdna.base.sockets import listen
from cdna.errors import ResourceError

CONNECT_AGAIN = 0.5  # seconds between two attempts while nobody listens


class Listening:
    """A listening socket at `path`, mode 0600 unless `others` may come, who are to be checked."""

    mode = "server"

    def __init__(self, path: str, loop: Loop, others: bool) -> None:
        self.path = path
        self._loop = loop
        self._others = others
        self._listener: Listener | None = None

    @property
    def due(self) -> float | None:
        return self._listener.due if self._listener is not None else None

    def open(self, act: Act) -> None:
        """Listens. ResourceError: it cannot."""
        if self._listener is None:
            sock = listen(self.path, self._others, socket.SOCK_STREAM)
            self._listener = Listener(self._loop, sock, self.path, act)

    def tick(self, now: float) -> None:
        if self._listener is not None:
            self._listener.tick(now)

    def take(self, now: float) -> socket.socket | None:
        """The next frontend that has connected. OSError: there is no descriptor left for it."""
        return self._listener.accept(now) if self._listener is not None else None

    def wait(self, until: float) -> None:
        """Takes nobody before then."""
        if self._listener is not None:
            self._listener.wait(until)

    def attached(self) -> None:
        """Goes on listening: a frontend that connects now is told that another is attached."""

    def detached(self, now: float) -> None:
        """The next one may have come already."""

    def close(self) -> None:
        """Listens no more; nothing is left at the path."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None


class Connecting:
    """Connects to the frontend that listens at `path`, again and again until one does."""

    mode = "client"

    def __init__(self, path: str) -> None:
        if len(os.fsencode(path)) > 107:
            raise ResourceError(f"cannot connect to {path!r}: the path has more than 107 bytes; give another")
        self.path = path
        self.due: float | None = None
        self._act: Act = lambda now: None

    def open(self, act: Act) -> None:
        """The first attempt is due now."""
        self.due, self._act = 0.0, act

    def tick(self, now: float) -> None:
        if self.due is not None and now >= self.due:
            self._act(now)

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

    def wait(self, until: float) -> None:
        """It connects no more often than it does anyway."""

    def attached(self) -> None:
        """Connects to no other frontend."""
        self.due = None

    def detached(self, now: float) -> None:
        """Connects anew in a while: the frontend may be about to end."""
        self.due = now + CONNECT_AGAIN

    def close(self) -> None:
        """Connects no more."""
        self.due = None
