"""Waiters of an epoll: the more a file has of them, the longer a write to it takes the thread that writes."""

from __future__ import annotations

import contextlib
import os
import resource
import select
from collections.abc import Iterator

import pytest

WAITERS = 4000  # some 300 microseconds of a write: three times what counts as slow


@contextlib.contextmanager
def many_waiters(fd: int) -> Iterator[None]:
    """Within it, a write to the file of `fd` is slow."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2 * WAITERS:
        pytest.skip(f"needs {2 * WAITERS} descriptors; see ulimit -Hn")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with contextlib.ExitStack() as undo:
        undo.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        epoll = undo.enter_context(select.epoll())
        for _ in range(WAITERS):
            copy = os.dup(fd)
            undo.callback(os.close, copy)
            epoll.register(copy, select.EPOLLIN | select.EPOLLET)
        yield
