"""Event descriptors that other processes give us: checked, and taken over."""

from __future__ import annotations

import fcntl
import os

from cdna.errors import ConfigError


def is_eventfd(fd: int) -> bool:
    """Whether it is one. OSError: there is no such descriptor."""
    return os.readlink(f"/proc/self/fd/{fd}").startswith("anon_inode:[eventfd")


def event_descriptor(fd: int, what: str) -> None:
    """Has writes to `fd` never wait. ConfigError: it is no eventfd."""
    try:
        found = is_eventfd(fd)
    except OSError as error:
        raise ConfigError(f"{what}: {error.strerror}") from None
    if not found:
        raise ConfigError(f"{what}: {os.readlink(f'/proc/self/fd/{fd}')} is no eventfd")
    fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_NONBLOCK)


def exchanged(old: int, new: int) -> int:
    """`new`, after closing `old`; -1 is none."""
    if old >= 0:
        os.close(old)
    return new
