"""The frame of comparisons in turns (`benchmarks/netlab/program.py`): options, tables, JSON, exit status."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"
PROGRAMS = {"dpdk.py": "tx64", "sandbox.py": "tx64", "builds.py": "bench", "namespaces.py": "tcp"}

pytestmark = pytest.mark.skipif(not BENCHMARKS.exists(), reason="no benchmarks beside these tests")

# A comparison of one load. Then it fails, or is interrupted, as its first argument says.
COMPARISON = """
import sys
from cdna.errors import ResourceError
from netlab.program import compare, parse_turns, tell_mpps, turns_parser
from netlab.tables import judged
from netlab.turns import Load, figures, take_turns

def loads(given, facts):
    try:
        found = take_turns({"ours": 4.0, "theirs": 2.0}, 2, float, tell_mpps("a program", "some"))
        facts["setup"] = "any"
        yield judged(Load("some", "Some load", "Mpps", figures(found)), wanted="at least 1.5")
        if ENDING:
            raise ENDING
    finally:
        print("given back", file=sys.stderr)

ENDING = {"fail": ResourceError("no room"), "interrupt": KeyboardInterrupt()}.get(sys.argv.pop(1))
facts = {}
given = parse_turns(turns_parser("", ["some"], seconds=1.0, rounds=2), ["some"])
sys.exit(compare(given, loads(given, facts), facts))
"""


def run(*command: str) -> subprocess.CompletedProcess[str]:
    paths = f"{ROOT}{os.pathsep}{BENCHMARKS}"
    environment = os.environ | {"PYTHONPATH": paths}
    return subprocess.run(
        [sys.executable, *command], env=environment, capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_load_that_there_is_not(program: str) -> None:
    ended = run(str(BENCHMARKS / program), *["."] * (program == "builds.py"), "--only", "nothing")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith(f"{program}: --only nothing: give {PROGRAMS[program]}, ")
    assert ended.stderr.count("\n") == 1


def test_a_table_and_a_file(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    ended = run("-c", COMPARISON, "end", "--json", str(file))
    assert ended.returncode == 0
    assert "Some load" in ended.stdout
    assert "over it" in ended.stdout
    assert "ours over theirs, the better one: 2.00 (2.00-2.00) (wanted: at least 1.5)." in ended.stdout
    assert "a program: some: round 2 of 2: theirs: 2.00 Mpps\n" in ended.stderr
    written = json.loads(file.read_text())
    assert written["setup"] == "any"
    assert written["host"]["cores"]
    (load,) = written["loads"]
    assert (load["load"], load["figures"][0]) == ("some", {"contender": "ours", "values": [4.0, 4.0]})


@pytest.mark.parametrize(("ending", "status", "said"), [("fail", 2, "-c: no room\n"), ("interrupt", 130, "")])
def test_a_run_that_ends_early_gives_everything_back(
    tmp_path: Path, ending: str, status: int, said: str
) -> None:
    file = tmp_path / "figures.json"
    ended = run("-c", COMPARISON, ending, "--json", str(file))
    assert ended.returncode == status
    assert "Some load" in ended.stdout
    assert ended.stderr.endswith("given back\n" + said)
    assert not file.exists()
