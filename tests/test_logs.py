"""Lines of one kind are limited, what was left out is counted, and no text looks like another line."""

import io
import logging
import sys
from dataclasses import dataclass

import pytest

from cdna.logs import INTERVAL, KINDS, LINES, Limit, logger


@dataclass
class Report:
    whose: str


class Log:
    def __init__(self) -> None:
        self.now = 0.0
        self.limit = Limit(lambda: self.now)

    def __call__(self, message: str, *arguments: object, level: int = logging.WARNING) -> str | None:
        """The line, None if it is left out."""
        record = logging.LogRecord("cdna.test", level, "", 0, message, arguments, None)
        return record.getMessage() if self.limit.filter(record) else None


def test_one_line_a_second_and_how_many_were_left_out() -> None:
    log = Log()
    assert (LINES, INTERVAL) == (1, 1.0)
    lines = [log("no session: %s", OSError(f"error {i}")) for i in range(50)]
    assert lines == ["no session: error 0"] + [None] * 49
    assert log("another: %s", "error") == "another: error"
    log.now += 0.999
    assert log("no session: %s", OSError("error")) is None
    log.now += 0.001
    assert log("no session: %s", OSError("error")) == "no session: error (50 more of these left out)"
    assert log("no session: %s", OSError("error")) is None
    log.now += 10
    assert log("no session: %s", OSError("error")) == "no session: error (1 more of these left out)"
    log.now += 10
    assert log("no session: %s", OSError("error")) == "no session: error"


def test_guests_and_levels_are_counted_apart() -> None:
    log = Log()
    assert log("guest %r: gone", "a") == "guest 'a': gone"
    assert log("guest %r: gone", "a") is None
    assert log("guest %r: gone", "b") == "guest 'b': gone"
    assert log("guest %r: gone", "a", level=logging.INFO) == "guest 'a': gone"
    assert log("%s", Report("context 1")) is not None
    assert log("%s", Report("context 1")) is None
    assert log("%s", Report("context 2")) is not None


def test_kinds_have_a_bound() -> None:
    log = Log()
    passed = sum(log("guest %r", str(i)) is not None for i in range(3 * KINDS))
    assert passed == KINDS + LINES
    log.now += INTERVAL
    assert log("guest %r", "new") == "guest 'new'"
    left_out = 2 * KINDS - LINES  # of those that were others, and the next of them says so
    for i in range(2 * KINDS):
        line = log("guest %r", f"again {i}")
        if line is not None and "left out" in line:
            assert line.endswith(f" ({left_out} more of these left out)")
            return
    pytest.fail("it was never said")


def test_a_logger_has_one_limit() -> None:
    assert logger("cdna.vmm") is logging.getLogger("cdna.vmm")
    limits = [filter for filter in logger("cdna.vmm").filters if isinstance(filter, Limit)]
    assert len(limits) == 1


# --- text of others ---------------------------------------------------------------------------------------

FORGED = "web\ncdna serve: guest 'db': all is well\x1b[2J\x9b1m\r\u202e\u2028\ud800"
SHOWN = r"web\ncdna serve: guest 'db': all is well\x1b[2J\x9b1m\r\u202e\u2028\ud800"


def test_what_others_wrote_is_escaped() -> None:
    log = Log()
    assert log("path %s: gone", FORGED) == f"path {SHOWN}: gone"
    assert log(FORGED) == SHOWN
    assert log("100%") == "100%"
    assert log("%s", "100% \N{SNOWMAN} \\n") == "100% \N{SNOWMAN} \\n"


def test_a_traceback_is_no_other_line() -> None:
    log, out = Log(), io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(logging.Formatter("cdna serve: %(message)s"))
    try:
        raise ValueError(FORGED)
    except ValueError:
        record = logging.LogRecord("cdna.test", logging.ERROR, "", 0, "internal error", (), sys.exc_info())
    assert log.limit.filter(record)
    handler.handle(record)
    first, *rest = out.getvalue().splitlines()
    assert first == "cdna serve: internal error"
    assert rest[0] == "    Traceback (most recent call last):"
    assert any("all is well" in line for line in rest)
    assert all(line.startswith("    ") and line.isprintable() for line in rest)
