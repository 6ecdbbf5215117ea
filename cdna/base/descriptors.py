"""Descriptors: how many there may be, waiting for one, whatever its number, and writing to one."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import resource
import select
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from cdna.errors import ResourceError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


LOOK_EVERY = 50  # milliseconds, whether a write that waits is to end
PATIENCE = 0.5  # seconds that it may still wait then


def readable(fd: int, timeout: float | None = 0.0) -> bool:
    """Whether there is something to read, waiting for `timeout` seconds, or for ever (None).

    select(2) takes no descriptor above 1023, of which a lab of many guests has several.
    """
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    return bool(poller.poll(None if timeout is None else math.ceil(timeout * 1000)))


def write_whole(fd: int, data: ReadableBuffer) -> int:
    """Writes all of `data`, after partial writes, too, and returns its size. Raises OSError."""
    with memoryview(data) as view, view.cast("B") as rest:
        done = 0
        while done < len(rest):
            try:
                done += os.write(fd, rest[done:])
            except BlockingIOError:  # another process has made the pipe or terminal nonblocking
                poller = select.poll()
                poller.register(fd, select.POLLOUT)
                poller.poll()
        return done


def write_patiently(fd: int, data: ReadableBuffer, over: Callable[[], bool]) -> int:
    """As `write_whole`, but where `over()` is true and the reader of a pipe takes nothing, TimeoutError.

    That is raised after PATIENCE seconds. A thread that waits for its reader can so be ended.
    """
    poller = select.poll()
    poller.register(fd, select.POLLOUT)
    with memoryview(data) as view, view.cast("B") as rest:
        done, since = 0, math.inf
        while done < len(rest):
            if poller.poll(LOOK_EVERY):
                with contextlib.suppress(BlockingIOError):
                    done += os.write(fd, rest[done : done + select.PIPE_BUF])  # so much never waits
                    since = math.inf
            elif over():
                since = min(since, time.monotonic())
                if time.monotonic() >= since + PATIENCE:
                    raise TimeoutError(errno.ETIMEDOUT, "its reader takes nothing")
        return done


def make_room(needed: int, what: str) -> None:
    """Raises this process's limit where it is too low for `needed` more. ResourceError: it may not be."""
    needed += len(os.listdir("/proc/self/fd"))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if resource.RLIM_INFINITY in (soft, hard) or needed <= soft:
        return
    if needed > hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (needed, needed))
            return
        raise ResourceError(
            f"{what}: {needed} open files are needed and {hard} allowed: ulimit -n {needed}, or give fewer"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
