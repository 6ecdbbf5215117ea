"""For all tests."""

import logging
import signal
from pathlib import Path

import pytest

import cdna
import tests.support
from cdna.logs import Limit

# Compiled modules of tests come from the build that the package is of, e.g. that for coverage.
tests.support.__path__ = [str(Path(cdna.__file__).parents[1] / "tests/support"), *tests.support.__path__]

# A shell has background jobs of a script ignore SIGINT; programs that tests interrupt would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def log_limits_anew() -> None:
    """Lines that tests before logged do not count against this one's."""
    for logger in list(logging.Logger.manager.loggerDict.values()):
        for limit in getattr(logger, "filters", ()):
            if isinstance(limit, Limit):
                limit.forget()
