"""Loggers whose lines are limited and escaped: neither a guest nor a local user fills or forges a log."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from cdna.base.shown import printable

LINES = 1  # of one kind in an interval
INTERVAL = 1.0  # seconds
KINDS = 1024  # counted apart; beyond that, further kinds count as one
OTHERS = (0, "", "")  # the kind of those

Kind = tuple[int, str, str]  # level, the message before its arguments, whose it is

_traceback = logging.Formatter()


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
    left_out: int = 0


class Limit(logging.Filter):
    """Passes LINES records of one kind in INTERVAL seconds; the next one says how many were left out.

    A kind is a level, the message before its arguments, and whose it is: the first argument if that is a
    text, such as a guest's name, or its attribute `whose`. So one guest's lines do not hide another's. Lines
    about users that are refused do not say whose they are: they are one kind, however many users come.

    A record that passes is escaped (`printable`), and the lines of its traceback are indented: no text in it
    looks like another line of the log.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._lock = threading.Lock()
        self._seen: dict[Kind, _Seen] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        with self._lock:
            left_out = self._count(_kind(record), self._clock())
        if left_out is None:
            return False
        told = f" ({left_out} more of these left out)" if left_out else ""
        record.msg, record.args = printable(record.getMessage()) + told, None
        if record.exc_info:
            lines = _traceback.formatException(record.exc_info).splitlines()
            record.exc_text = "\n".join(f"    {printable(line)}" for line in lines)
        return True

    def forget(self) -> None:
        """Starts counting anew."""
        with self._lock:
            self._seen.clear()

    def _count(self, kind: Kind, now: float) -> int | None:
        """Counts a line. Returns how many of its kind were left out before it; None: it is, too."""
        if kind not in self._seen and len(self._seen) >= KINDS:
            self._clear_out(now)
            if len(self._seen) >= KINDS:
                kind = OTHERS
        seen = self._seen.setdefault(kind, _Seen(now))
        if now - seen.since >= INTERVAL:
            seen.since, seen.lines = now, 0
        if seen.lines >= LINES:
            seen.left_out += 1
            return None
        seen.lines += 1
        left_out, seen.left_out = seen.left_out, 0
        return left_out

    def _clear_out(self, now: float) -> None:
        """Drops the kinds that are not being limited; what they left out counts as others."""
        old = [kind for kind, seen in self._seen.items() if now - seen.since >= INTERVAL and kind != OTHERS]
        left_out = sum(self._seen.pop(kind).left_out for kind in old)
        if left_out:
            self._seen.setdefault(OTHERS, _Seen(now - INTERVAL)).left_out += left_out


def _kind(record: logging.LogRecord) -> Kind:
    first = record.args[0] if isinstance(record.args, tuple) and record.args else None
    whose = getattr(first, "whose", first)
    return record.levelno, str(record.msg), whose if isinstance(whose, str) else ""
