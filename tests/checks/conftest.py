"""What is here needs a build in which checks can be switched off: `make checks`."""

import os

import pytest

from cdna import checks


def pytest_collection_modifyitems(items):
    if not checks.is_test_build:
        if os.environ.get("CDNA_VARIANT") == "checks":
            raise pytest.UsageError(f"{checks.__file__} is no test build; take that of build/checks/lib")
        for item in items:
            if "tests/checks/" in item.nodeid and "any_build" not in item.name:
                item.add_marker(pytest.mark.skip(reason="needs a test build: make checks"))
