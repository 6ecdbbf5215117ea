"""Unix sockets: listening at a path where an ended process may have left its socket, and who connects."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import stat
import struct
import time
from collections.abc import Collection, Iterator

from cdna.errors import ResourceError

ACCEPT_AGAIN = 1.0  # seconds, when this process had no descriptor left for a connection
LOCKED = 1.0  # seconds that another may keep the lock of a directory
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
        with _alone(path):  # or two that start at once would both replace it
            if is_left_over(path):
                os.unlink(path)
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


@contextlib.contextmanager
def _umask(mask: int) -> Iterator[None]:
    """Sets the umask, which limits a socket's mode. It is the whole process's: hold it briefly."""
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@contextlib.contextmanager
def _alone(path: str) -> Iterator[None]:
    """Keeps other labs from replacing sockets of this directory meanwhile, by a lock on it.

    Whoever can read a directory can lock it, so a lock is waited for, but not for long.
    """
    directory = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        deadline = time.monotonic() + LOCKED
        while not _locked(directory) and time.monotonic() < deadline:
            time.sleep(0.01)
        yield
    finally:
        os.close(directory)  # which gives the lock back


def _locked(directory: int) -> bool:
    try:
        fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
