"""Runs in a process of its own: what a missing check allows may be anything, up to a crash."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import pytest
from _pytest.runner import runtestprotocol

from cdna import checks

ROOT = Path(__file__).parents[2]
OPTIONS = ("-q", "-p", "no:cacheprovider", "-p", "no:timeout", "-o", "addopts=--import-mode=importlib")


class Outcome(NamedTuple):
    code: int  # exit status; negative: the signal that it died of
    text: str

    @property
    def passed(self) -> bool:
        return self.code == 0


class Forked:
    """`run` in a child, which dies of SIGALRM when the time is over; its children die with it."""

    def __init__(self, run: Callable[[], int], seconds: int) -> None:
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - `outcome` closes it
        sys.stdout.flush()
        self._child = os.fork()
        if self._child == 0:
            code = 70
            try:
                os.setpgid(0, 0)
                os.dup2(self._output.fileno(), 1)
                os.dup2(self._output.fileno(), 2)
                signal.signal(signal.SIGALRM, signal.SIG_DFL)
                signal.alarm(seconds)
                code = run()
            except BaseException as error:
                os.write(2, f"{type(error).__name__}: {error}\n".encode())
            finally:
                os._exit(code)

    def outcome(self) -> Outcome:
        """Waits for its end."""
        with self._output as output:
            _, status = os.waitpid(self._child, 0)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._child, signal.SIGKILL)
            size = output.seek(0, os.SEEK_END)
            output.seek(max(0, size - 4000))
            return Outcome(os.waitstatus_to_exitcode(status), output.read().decode(errors="replace"))


def forked(run: Callable[[], int], seconds: int) -> Outcome:
    return Forked(run, seconds).outcome()


def without(item: pytest.Item, off: Iterable[str], seconds: int) -> Outcome:
    """A test that was collected, without these checks, also in the processes that it starts."""

    def run() -> int:
        checks.off(*off)
        os.environ["CDNA_CHECKS_OFF"] = ",".join(off)
        reports = runtestprotocol(item, nextitem=None, log=False)
        for report in reports:
            os.write(1, str(report.longrepr or "").encode())
        if any(report.failed for report in reports):
            return 1
        return 5 if any(report.skipped for report in reports) else 0

    return forked(run, seconds)


class Collected:
    """A plugin that hands the collected tests to a function, instead of running them."""

    def __init__(self, use: Callable[[dict[str, pytest.Item]], None]) -> None:
        self.use = use

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        self.use({item.nodeid: item for item in session.items})
        return True


def with_tests(nodes: Iterable[str], use: Callable[[dict[str, pytest.Item]], None]) -> int:
    """Collects these tests once, and hands them over: a test costs a fork then. Returns pytest's status."""
    os.chdir(ROOT)
    return int(pytest.main([*OPTIONS, *nodes], plugins=[Collected(use)]))
