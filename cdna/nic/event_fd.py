"""Event descriptors that other processes give us: checked, and taken over.

To be signalled, a frontend gives an eventfd or, as User-Mode Linux does, one end of a pair of Unix stream
sockets (`ext/cdna/eventfd.h` signals both).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
import termios

from cdna.control_checks import Control, broken
from cdna.errors import ConfigError

_INT = struct.Struct("i")


def is_eventfd(fd: int) -> bool:
    """Whether it is one. OSError: there is no such descriptor."""
    return os.readlink(f"/proc/self/fd/{fd}").startswith("anon_inode:[eventfd")


def event_descriptor(fd: int, what: str) -> None:
    """Has writes to `fd` never wait. ConfigError: it is no eventfd."""
    try:
        found = is_eventfd(fd)
    except OSError as error:
        raise ConfigError(f"{what}: {error.strerror}") from None
    if broken(Control.CHECK_EVENT_FD, not found):
        raise ConfigError(f"{what}: {os.readlink(f'/proc/self/fd/{fd}')} is no eventfd")
    fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_NONBLOCK)


def signal_descriptor(fd: int, what: str) -> None:
    """Make `fd` ready to signal: neither that nor closing it may wait.

    ConfigError: it is neither an eventfd nor a connected Unix stream socket.
    """
    if not is_unix_stream(fd):
        event_descriptor(fd, what)
        return
    # Nothing more may be queued here: descriptors that are left unread would be closed with the socket.
    with socket.socket(fileno=os.dup(fd)) as sock:
        try:
            sock.getpeername()
            if broken(Control.CHECK_SIGNAL_UNREAD, has_unread(sock, socket.SHUT_RD)):
                raise ConfigError(f"{what}: a socket with unread data; give one that is only written to")
        except OSError:
            raise ConfigError(f"{what}: a socket that is not connected; give one of a pair") from None


def is_unix_stream(fd: int) -> bool:
    """Whether it is a Unix stream socket, which the two ends of vhost-user may give each other."""
    try:
        sock = socket.socket(fileno=fd)
    except OSError:
        return False
    found = sock.family == socket.AF_UNIX and sock.type == socket.SOCK_STREAM
    sock.detach()
    return found


def has_unread(sock: socket.socket, how: int) -> bool:
    """Shut a stream socket down (socket.SHUT_RD or SHUT_RDWR). Returns whether something is left in it."""
    with contextlib.suppress(OSError):
        sock.shutdown(how)
    try:
        (unread,) = _INT.unpack(fcntl.ioctl(sock, termios.FIONREAD, bytes(_INT.size)))
    except OSError:
        return True
    return bool(unread)


def exchanged(old: int, new: int) -> int:
    """`new`, after closing `old`; -1 is none."""
    if old >= 0:
        os.close(old)
    return new
