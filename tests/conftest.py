"""For all tests."""

import logging

import pytest

from cdna.logs import Limit


@pytest.fixture(autouse=True)
def log_limits_anew() -> None:
    """Lines that tests before logged do not count against this one's."""
    for logger in list(logging.Logger.manager.loggerDict.values()):
        for limit in getattr(logger, "filters", ()):
            if isinstance(limit, Limit):
                limit.forget()
