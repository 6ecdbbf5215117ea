"""Descriptors that a frontend has sent, and that nobody keeps.

To close one may take as long as somebody else likes: a TCP socket may linger until its peer has read, a file
may ask the process that serves its file system, a Unix socket may have such descriptors unread. What is not
sure to be quick is closed in a thread.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import threading

from cdna.nic.event_fd import has_unread, is_eventfd

WAITING = 64  # descriptors that one guest may have in closing


def closes_at_once(fd: int) -> bool:
    """Whether it is memory or an eventfd. What is asked here does not reach whoever serves the file."""
    with contextlib.suppress(OSError):
        fcntl.fcntl(fd, fcntl.F_GET_SEALS)  # which only memory files have
        return True
    with contextlib.suppress(OSError):
        return is_eventfd(fd)
    return False


class Discard:
    """Closes what the frontends of one guest have sent; no call waits."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting = 0

    @property
    def waiting(self) -> int:
        """How many are in closing."""
        return self._waiting

    @property
    def is_full(self) -> bool:
        """Whether so many are in closing that no more should be taken."""
        return self._waiting >= WAITING

    def close(self, fds: list[int]) -> None:
        """Takes them all out of the list."""
        slow = []
        while fds:
            fd = fds.pop()
            if closes_at_once(fd):
                os.close(fd)
            else:
                slow.append(fd)
        if slow:
            self._start(slow)

    def close_socket(self, sock: socket.socket) -> None:
        """Ends a stream socket's connection."""
        if has_unread(sock, socket.SHUT_RDWR):
            self._start([sock.detach()])
        else:
            sock.close()

    def _start(self, fds: list[int]) -> None:
        with self._lock:
            self._waiting += len(fds)
        threading.Thread(target=self._close, args=(fds,), name="cdna-close", daemon=True).start()

    def _close(self, fds: list[int]) -> None:
        for fd in fds:
            with contextlib.suppress(OSError):
                os.close(fd)
            with self._lock:
                self._waiting -= 1
