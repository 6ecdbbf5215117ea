"""Loggers that limit the lines of one kind: neither a guest nor a local user fills a disk with them."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

LINES = 20  # of one kind in an interval
INTERVAL = 60.0  # seconds
KINDS = 1024  # counted apart; beyond that, further kinds count as one


def logger(name: str) -> logging.Logger:
    """The logger of this name, with a limit of its own."""
    found = logging.getLogger(name)
    if not any(isinstance(there, Limit) for there in found.filters):
        found.addFilter(Limit())
    return found


@dataclass
class _Seen:
    since: float
    lines: int = 0


class Limit(logging.Filter):
    """Passes LINES records of one kind in INTERVAL seconds. Throttling is told of, and how many it left out.

    A kind is the message before its arguments, and the guest concerned if that is the first of them: one
    guest's lines do not hide another's.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._lock = threading.Lock()
        self._seen: dict[tuple[str, str], _Seen] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        with self._lock:
            seen, left_out = self._count(_kind(record), self._clock())
        if seen.lines > LINES:
            return False
        if seen.lines == LINES:
            record.msg = f"{record.msg} (further lines of this kind are left out for a minute)"
        elif left_out:
            record.msg = f"{record.msg} ({left_out} more lines of this kind were left out)"
        return True

    def forget(self) -> None:
        """Starts counting anew."""
        with self._lock:
            self._seen.clear()

    def _count(self, kind: tuple[str, str], now: float) -> tuple[_Seen, int]:
        """Counts a line; returns its kind's entry, and how many were left out in the interval before."""
        if kind not in self._seen and len(self._seen) >= KINDS:
            self._seen = {k: s for k, s in self._seen.items() if now - s.since < INTERVAL}
            if len(self._seen) >= KINDS:
                kind = ("", "")
        seen = self._seen.setdefault(kind, _Seen(now))
        left_out = 0
        if now - seen.since >= INTERVAL:
            left_out = max(0, seen.lines - LINES)
            seen.since, seen.lines = now, 0
        seen.lines += 1
        return seen, left_out


def _kind(record: logging.LogRecord) -> tuple[str, str]:
    first = record.args[0] if isinstance(record.args, tuple) and record.args else None
    guest = getattr(first, "guest", first)  # of a fault's report
    return str(record.msg), guest if isinstance(guest, str) else ""
