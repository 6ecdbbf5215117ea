"""Signals that ask a program to end, and what each does at which moment.

    at_once     KeyboardInterrupt at once. For a start, and for opening a FIFO, which waits for its other end
    soon        noted; KeyboardInterrupt if the block lasts GRACE seconds more. For writes to a reader
    otherwise   noted: the program looks (`Stop.is_set`) and ends by itself

Without the exception the interpreter goes on with a system call that a signal interrupts (PEP 475): it would
wait for ever until another program opens a FIFO.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from types import FrameType

from cdna.base.descriptors import readable
from cdna.interrupts import interrupt

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
GRACE = 0.5  # seconds that a write may still wait for its reader, after a signal


class _When(Enum):
    NOTED, SOON, AT_ONCE = range(3)


class Stop:
    """Whether a signal has asked this program to end. `stop_signals` makes it."""

    def __init__(self) -> None:
        self._when = _When.NOTED
        # A threading.Event has a lock, for which the handler could wait for ever.
        self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def is_set(self) -> bool:
        return readable(self._fd)

    def wait(self, seconds: float) -> bool:
        """Waits for a signal, at most this long. Returns whether one has come."""
        return readable(self._fd, seconds)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Ends the block by KeyboardInterrupt when a signal comes, or has come before."""
        self._when = _When.AT_ONCE  # before the look: a signal between the two would only be noted
        try:
            if self.is_set():
                raise KeyboardInterrupt
            yield
        finally:
            self._when = _When.NOTED

    @contextmanager
    def soon(self) -> Iterator[None]:
        """Ends the block GRACE seconds after a signal that comes within it; an earlier one does not count."""
        before = signal.signal(signal.SIGALRM, self._over)
        self._when = _When.SOON
        try:
            yield
        finally:
            self._when = _When.NOTED
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)

    def close(self) -> None:
        os.close(self._fd)

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Handles a signal that asks for the end."""
        os.eventfd_write(self._fd, 1)
        if self._when == _When.AT_ONCE:
            self._when = _When.NOTED  # what is undone now is not interrupted
            interrupt()
        elif self._when == _When.SOON:
            signal.setitimer(signal.ITIMER_REAL, GRACE)

    def _over(self, number: int, frame: FrameType | None) -> None:
        if self._when == _When.SOON:
            self._when = _When.NOTED
            raise KeyboardInterrupt


@contextmanager
def stop_signals() -> Iterator[Stop]:
    """Handles SIGNALS, however often they come: `timeout` sends SIGTERM twice. Yields their `Stop`."""
    stop = Stop()
    before = {number: signal.getsignal(number) for number in SIGNALS}
    heeded = [number for number in SIGNALS if before[number] is not signal.SIG_IGN]  # nohup
    for number in heeded:
        signal.signal(number, stop.handle)
    try:
        yield stop
    finally:
        for number in heeded:
            signal.signal(number, before[number])
        stop.close()
