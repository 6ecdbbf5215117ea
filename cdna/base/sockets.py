"""Unix sockets: listening at a path where an ended process may have left its socket, and who connects.

No lock keeps two that start at once apart: whoever can read a directory can lock it, and never give the lock
back. A socket that was left is renamed, removed, and put back if it turns out to be another one.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import struct
import time
from collections.abc import Collection, Iterator

from cdna.errors import ResourceError

SETTLED = 0.1  # seconds from a socket's file to its listening, at most
_PEERCRED = "iII"  # struct ucred: process, user, group


def peer(sock: socket.socket) -> tuple[int, int]:
    """Process and user at the other end; of a socket that has connected, those that listen."""
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize(_PEERCRED))
    pid, uid, _ = struct.unpack(_PEERCRED, raw)
    return pid, uid


def may_connect(uid: int, others: Collection[int] = ()) -> bool:
    """Whether a peer's user is root, this process's own, or one of `others`."""
    return uid in (0, os.geteuid()) or uid in others


def listen(path: str, others: bool = False, kind: socket.SocketKind = socket.SOCK_SEQPACKET) -> socket.socket:
    """A nonblocking socket that listens at `path`. ResourceError: it cannot be.

    `others` than its owner find it open, and are to be checked when they come. A socket that is left there of
    a process that has ended is replaced.
    """
    listener = socket.socket(socket.AF_UNIX, kind)
    try:
        listener.setblocking(False)
        os.fchmod(
            listener.fileno(), 0o666 if others else 0o600
        )  # Linux gives the file this mode, from the start
        _take_away(path)
        with _umask(0o111 if others else 0o177):
            listener.bind(path)
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise ResourceError(
            f"cannot listen on {path!r}: {error.strerror or error}; give another path"
        ) from None
    return listener


def remove(path: str, inode: int) -> None:
    """Removes the socket at `path`, unless another has taken its place meanwhile."""
    with contextlib.suppress(FileNotFoundError):
        if os.stat(path).st_ino == inode:
            os.unlink(path)


def is_left_over(path: str) -> bool:
    """Whether a socket lies at `path` that nobody listens on."""
    return listener_pid(path) == 0


def listener_pid(path: str) -> int | None:
    """The process that listens at `path`; 0: none does, None: no socket lies there, or none of ours."""
    if not os.path.exists(path) or not stat.S_ISSOCK(os.stat(path).st_mode):
        return None
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
            return peer(probe)[0]
        except ConnectionRefusedError:
            return 0
        except OSError:
            return None


def _take_away(path: str) -> None:
    """Removes the socket that an ended process has left at `path`. OSError: another has come meanwhile."""
    # Where nothing is there, or another process took it away, the path is free for whoever binds first.
    with contextlib.suppress(FileNotFoundError):
        found = os.stat(path)
        if not is_left_over(path):
            return
        age = time.time() - found.st_mtime
        if 0 <= age < SETTLED:  # perhaps its process is about to listen
            time.sleep(SETTLED - age)
            if not is_left_over(path):
                return
        aside = os.path.join(os.path.dirname(path), f".cdna-left-{os.urandom(8).hex()}")
        os.rename(path, aside)  # it succeeds for one of two processes that try
        if _identity(os.stat(aside)) == _identity(found):
            os.unlink(aside)
            return
        if not os.path.lexists(path):
            os.rename(aside, path)
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


def _identity(found: os.stat_result) -> tuple[int, int]:
    """Tells a socket from one that comes after it, which may have the same inode number, at another time."""
    return found.st_ino, found.st_mtime_ns


@contextlib.contextmanager
def _umask(mask: int) -> Iterator[None]:
    """Sets the umask, which limits a socket's mode. It is the whole process's: hold it briefly."""
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)
