"""`benchmarks/isolation.py`: what it says to what it cannot do, and that every attack can be mounted."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / "benchmarks" / "isolation.py"

pytestmark = pytest.mark.skipif(not PROGRAM.exists(), reason="no benchmarks beside these tests")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(PROGRAM), *arguments],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=600,
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--only", "none"], "--only none: give fair, small, "),
        (["--served", "--only", "table"], "--only table: give fair, small, "),
        (["--seconds", "0"], "--seconds above 0"),
        (["--rounds", "0"], "--rounds of 1 or more"),
        (["--attackers", "0"], "--attackers 0: give 1 to 16"),
        (["--contexts", "7"], "--contexts"),
        (["--json", "/no/such/place/figures.json"], "/no/such/place/figures.json"),
        (["--attackerz"], ""),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_one_line_and_status_2(arguments: list[str], said: str) -> None:
    ended = run(*arguments)
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    assert said in ended.stderr
    assert ended.stdout == ""


def test_every_attack_is_measured(tmp_path: Path) -> None:
    """How fast anything is, is not looked at."""
    file = tmp_path / "isolation.json"
    ended = run("--seconds", "1e-6", "--rounds", "1", "--trips", "1", "--json", str(file))
    assert ended.returncode == 0, ended.stderr
    found = json.loads(file.read_text())
    names = [row["attack"] for row in found["attacks"]]
    assert {"fair", "small", "broadcasts-200", "chains", "dirty-log", "waiters", "table"} <= {*names}
    for row in found["attacks"]:
        assert row["beside"][0]["rate"] > 0
        assert row["share"]["median"] > 0
        assert row["worst"] > 0
        assert row["what"] in ended.stdout


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="engine and guests poll, a core each")
def test_attacks_at_the_sockets_of_a_server() -> None:
    ended = run(
        *("--served", "--only", "small,broadcasts-24", "--seconds", "0.01", "--rounds", "1", "--trips", "1")
    )
    assert ended.returncode == 0, ended.stderr
    assert "frames of 14 B" in ended.stdout
    assert "broadcasts of 14 B to 24 receivers" in ended.stdout
