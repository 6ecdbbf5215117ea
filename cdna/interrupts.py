"""Interrupts of the main thread, and blocks that defer them.

A signal's handler calls `interrupt`. It raises KeyboardInterrupt wherever the program is, so a long start
or a wait for another program ends. A block that would leave something behind if it ended halfway, such as a
socket at a path, is `held`: the interrupt is raised at its end.
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
    depth = 0  # nested blocks that the main thread is in
    came = False  # an interrupt was deferred


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Defers an interrupt to the end of the block. Other threads get none anyway."""
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
