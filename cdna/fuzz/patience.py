"""A time limit for a user's code in this thread."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

AGAIN = 1.0  # seconds until code that has swallowed the exception gets another


class Endless(BaseException):
    """Raised where the code is when its time is over. No Exception, for `except Exception` is the user's."""


@contextmanager
def limit(seconds: float) -> Iterator[None]:
    """Raises Endless in the code inside after `seconds`; without a limit outside of the main thread.

    A call that does not return to the interpreter is not interrupted. A timer that ran before goes on.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def over(number: int, frame: FrameType | None) -> None:
        raise Endless

    started = time.monotonic()
    handler = signal.signal(signal.SIGALRM, over)
    left, interval = signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        if left:
            signal.setitimer(signal.ITIMER_REAL, max(1e-3, left - (time.monotonic() - started)), interval)
