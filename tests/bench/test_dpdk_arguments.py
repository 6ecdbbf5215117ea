"""`benchmarks/dpdk.py`: what it says to what it cannot do."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / "benchmarks" / "dpdk.py"

pytestmark = pytest.mark.skipif(not PROGRAM.exists(), reason="no benchmarks beside these tests")


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(PROGRAM), *arguments],
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--only", "tx65"], "--only tx65: give tx64, "),
        (["--seconds", "0"], "--seconds above 0"),
        (["--seconds", "soon"], "--seconds"),
        (["--rounds", "0"], "--rounds of 1 or more"),
        (["--queue-size", "1000"], "a power of two"),
        (["--burst", "0"], "--burst 0: give 1 to 512"),
        (["--profile", "/no/such/place"], "no such directory"),
        (["--json", "/no/such/place/figures.json"], "/no/such/place/figures.json"),
        (["--bursts"], ""),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_arguments_get_one_line(arguments: list[str], said: str) -> None:
    ended = run(*arguments)
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert ended.stderr.count("\n") == 1
    assert said in ended.stderr


def test_without_dpdk_it_says_what_to_install(tmp_path: Path) -> None:
    ended = run("--only", "tx64", PATH=str(tmp_path))
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == "dpdk.py: dpdk-testpmd is missing: apt-get install dpdk\n"


def test_engine_and_guests_need_a_cpu_each(tmp_path: Path) -> None:
    (tmp_path / "dpdk-testpmd").touch(mode=0o755)
    cpu = str(min(os.sched_getaffinity(0)))
    ended = run("--engine-cpu", cpu, "--guest-cpu", cpu, PATH=str(tmp_path))
    assert ended.returncode == 2
    assert "one CPU" in ended.stderr.splitlines()[0]
