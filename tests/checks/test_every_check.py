"""Every check that is made against guests is missed by some test when it is gone (`ext/cdna/checks.pxd`)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cdna import checks
from tests.checks.forked import forked, with_tests, without
from tests.checks.missed_by import MISSED_BY

CHECKS = [check.name for check in checks.Check]
SECONDS = 30  # of one test; one that never ends has missed its check, too

Outcomes = dict[str, tuple[int, str]]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    """Of each test of the table with all checks; of each check, its test without it. By their names."""
    path = Path(tmp_path_factory.mktemp("checks"), "outcomes")

    def run_all(items: dict[str, pytest.Item]) -> None:
        found = {node: without(items[node], [], SECONDS) for node in set(MISSED_BY.values())}
        found |= {check: without(items[node], [check], SECONDS) for check, node in MISSED_BY.items()}
        path.write_text(json.dumps(found))

    outcome = forked(lambda: with_tests(sorted(set(MISSED_BY.values())), run_all), 900)
    assert path.exists(), outcome.text
    found: Outcomes = json.loads(path.read_text())
    return found


def test_the_table_names_every_check_once_any_build() -> None:
    assert sorted(MISSED_BY) == sorted(CHECKS)


@pytest.mark.timeout(900)  # the first one waits for all
@pytest.mark.parametrize("check", CHECKS)
def test_a_check_that_is_gone_is_missed(outcomes: Outcomes, check: str) -> None:
    code, text = outcomes[MISSED_BY[check]]
    assert code == 0, f"its test fails anyway: {text}"
    code, text = outcomes[check]
    assert code == 1 or code < 0, f"nothing misses it: {text}"
