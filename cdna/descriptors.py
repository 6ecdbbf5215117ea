"""Descriptors: how many there may be, waiting for one, whatever its number, and writing to one."""

from __future__ import annotations

import contextlib
import math
import os
import resource
import select
from typing import TYPE_CHECKING

from cdna.errors import ResourceError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


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
