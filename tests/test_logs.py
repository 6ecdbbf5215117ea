"""Lines of one kind are limited, and throttling is told of."""

import logging
from dataclasses import dataclass

from cdna.logs import INTERVAL, KINDS, LINES, Limit, logger


@dataclass
class Report:
    guest: str


class Log:
    def __init__(self) -> None:
        self.now = 0.0
        self.limit = Limit(lambda: self.now)

    def __call__(self, message: str, *arguments: object) -> str | None:
        """The line, None if it is left out."""
        record = logging.LogRecord("cdna.test", logging.WARNING, "", 0, message, arguments, None)
        return record.getMessage() if self.limit.filter(record) else None


TOLD = " (further lines of this kind are left out for a minute)"


def test_lines_of_one_kind() -> None:
    log = Log()
    lines = [log("no session: %s", OSError(f"error {i}")) for i in range(3 * LINES)]
    assert lines[: LINES - 1] == [f"no session: error {i}" for i in range(LINES - 1)]
    assert lines[LINES - 1] == f"no session: error {LINES - 1}{TOLD}"
    assert lines[LINES:] == [None] * (2 * LINES)
    assert log("another: %s", "error") == "another: error"
    log.now += INTERVAL
    left_out = f" ({2 * LINES} more lines of this kind were left out)"
    assert log("no session: %s", OSError("error")) == f"no session: error{left_out}"
    assert log("no session: %s", OSError("error")) == "no session: error"


def test_guests_are_counted_apart() -> None:
    log = Log()
    for _ in range(2 * LINES):
        log("guest %r: gone", "a")
        log("%s", Report("a"))
    assert log("guest %r: gone", "a") is None
    assert log("guest %r: gone", "b") == "guest 'b': gone"
    assert log("%s", Report("a")) is None
    assert log("%s", Report("b")) is not None


def test_kinds_have_a_bound() -> None:
    log = Log()
    passed = sum(log("guest %r", str(i)) is not None for i in range(3 * KINDS))
    assert passed == KINDS + LINES
    log.now += INTERVAL
    assert log("guest %r", "new") is not None


def test_a_logger_has_one_limit() -> None:
    assert logger("cdna.vmm") is logging.getLogger("cdna.vmm")
    limits = [filter for filter in logger("cdna.vmm").filters if isinstance(filter, Limit)]
    assert len(limits) == 1
