"""Every check that has a name is missed by some test when it is gone (docs/checks.md)."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest

from cdna import checks
from cdna.control_checks import Control, broken
from cdna.errors import ConfigError
from tests.checks.forked import Forked, with_tests, without
from tests.checks.missed_by import MISSED_BY

CHECKS = [check.name for check in (*checks.Check, *Control)]
SECONDS = 30  # of one test; one that never ends has missed its check, too

SIDE_BY_SIDE = 4  # many of them wait: for what a missing check lets happen

Outcomes = dict[str, tuple[int, str]]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    """Of each test of the table with all checks; of each check, its test without it. By their names."""
    folder = tmp_path_factory.mktemp("checks")
    nodes = sorted(set(MISSED_BY.values()))
    parts = [nodes[i::SIDE_BY_SIDE] for i in range(SIDE_BY_SIDE)]
    children = [Forked(partial(run_part, part, folder / str(i)), 900) for i, part in enumerate(parts)]
    found: Outcomes = {}
    for i, child in enumerate(children):
        outcome = child.outcome()
        assert (folder / str(i)).exists(), outcome.text
        found |= json.loads((folder / str(i)).read_text())
    return found


def run_part(nodes: list[str], path: Path) -> int:
    """Some tests, each with all checks, then without each check that it has to miss."""

    def run_all(items: dict[str, pytest.Item]) -> None:
        found = {node: without(items[node], [], SECONDS) for node in nodes}
        found |= {
            check: without(items[node], [check], SECONDS)
            for check, node in MISSED_BY.items()
            if node in found
        }
        path.write_text(json.dumps(found))

    return with_tests(nodes, run_all)


def test_the_table_names_every_check_once_any_build() -> None:
    assert sorted(MISSED_BY) == sorted(CHECKS)


@pytest.mark.timeout(900)  # the first one waits for all
@pytest.mark.parametrize("check", CHECKS)
def test_a_check_that_is_gone_is_missed(outcomes: Outcomes, check: str) -> None:
    code, text = outcomes[MISSED_BY[check]]
    assert code == 0, f"its test fails anyway: {text}"
    code, text = outcomes[check]
    assert code == 1 or code < 0, f"nothing misses it: {text}"


@pytest.mark.skipif(checks.is_test_build, reason="this build switches checks off")
@pytest.mark.parametrize("check", ["CHECK_TX_LONG", "CHECK_GUEST_REVOKED"])
def test_an_ordinary_build_switches_nothing_off_any_build(check: str) -> None:
    for switch in (checks.off, checks.on):
        with pytest.raises(ConfigError, match="checks can be switched off in a test build only"):
            switch(check)
    assert all(broken(control, True) and not broken(control, False) for control in Control)
