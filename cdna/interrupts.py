"""Interrupts of the main thread, and parts of a program that they do not cut in two.

A signal's handler calls `interrupt`. What takes long, or waits for other programs, ends with
KeyboardInterrupt wherever it is; what leaves something behind when it ends halfway, such as a socket at a
path, is `held`.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Protocol


class Ends(Protocol):
    """Whether a program has been asked to end."""

    def is_set(self) -> bool: ...


class _Held:
    depth = 0  # how many parts that must be whole the main thread is in
    came = False  # an interrupt, meanwhile


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Holds interrupts back; one that comes is raised behind it. Other threads have none anyway."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _Held.depth += 1
    try:
        yield
    finally:
        _Held.depth -= 1
        if _Held.came and not _Held.depth:
            _Held.came = False
            raise KeyboardInterrupt


def interrupt() -> None:
    """Raises KeyboardInterrupt, now or when nothing is held any more. For handlers of signals."""
    if _Held.depth:
        _Held.came = True
    else:
        raise KeyboardInterrupt
