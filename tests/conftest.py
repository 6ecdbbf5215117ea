"""For all tests."""

import logging
import signal

import pytest

from cdna.logs import Limit

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
