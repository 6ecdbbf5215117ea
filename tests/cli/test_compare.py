"""`cdna compare` from its arguments to its files, with synthetic figures."""

import json
import os
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from cdna.compare.result import Comparison, Plan, Run
from cdna.errors import ResourceError
from tests.cli.conftest import Cdna
from tests.support.synthetic import synthetic_comparison

SHORT = ("compare", "--guests", "1,4", "--direction", "tx")


def test_defaults(cdna: Cdna) -> None:
    assert cdna("compare").status == 0
    assert cdna.fake.plans == [Plan()]


def test_arguments_reach_the_runner(cdna: Cdna) -> None:
    argv = "compare --guests 8,2 --direction rx --size imix --path bridge,cdna --verify --seconds 0.25"
    argv += " --protection iommu:shared,validated --domains inline,process --receive copy --line-rate 1.5g"
    assert cdna(*argv.split()).status == 0
    assert cdna.fake.plans == [
        Plan(
            guests=(8, 2),
            direction=("rx",),
            size="imix",
            path=("bridge", "cdna"),
            protection=("iommu:shared", "validated"),
            domains=("inline", "process"),
            receive=("copy",),
            seconds=0.25,
            line_rate=1.5e9,
            verify=True,
        )
    ]


@pytest.mark.parametrize(
    ("text", "rate"),
    [("0", 0), ("10G", 1e10), ("100M", 1e8), ("0.5T", 5e11), ("2500000K", 2.5e9), ("1e9", 1e9)],
)
def test_line_rates(cdna: Cdna, text: str, rate: float) -> None:
    assert cdna("compare", "--line-rate", text).status == 0
    (plan,) = cdna.fake.plans
    assert isinstance(plan, Plan)
    assert plan.line_rate == rate


def test_table_and_progress(cdna: Cdna) -> None:
    ended = cdna(*SHORT)
    assert "Transmit, 1514 B frames" in ended.out
    assert "cdna validated" in ended.out
    assert "times the bridge" in ended.out
    lines = ended.err.splitlines()  # no terminal: a line a case
    assert len(lines) == 6
    assert lines[0].startswith("cdna compare:  16%  tx, 1 guest, cdna validated: ")
    assert "100%" in lines[-1]


def test_json(cdna: Cdna, tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    assert cdna(*SHORT, "--json", str(path)).status == 0
    assert [run["guests"] for run in json.loads(path.read_text())["runs"]] == [1, 1, 1, 4, 4, 4]
    assert list(tmp_path.iterdir()) == [path]


def test_json_replaces_the_target_of_a_link_and_keeps_its_mode(cdna: Cdna, tmp_path: Path) -> None:
    target, link = tmp_path / "target.json", tmp_path / "link.json"
    target.write_text("old")
    target.chmod(0o640)
    link.symlink_to(target)
    assert cdna(*SHORT, "--json", str(link)).status == 0
    assert link.is_symlink()
    assert json.loads(target.read_text())["runs"]
    assert stat.S_IMODE(target.stat().st_mode) == 0o640


def test_json_into_a_pipe_or_device_does_not_replace_it(cdna: Cdna) -> None:
    assert cdna(*SHORT, "--json", "/dev/null").status == 0
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_report(cdna: Cdna, tmp_path: Path) -> None:
    report = tmp_path / "report"
    ended = cdna(*SHORT, "--report", str(report), "--json", str(report / "mine.json"))
    assert (ended.status, sorted(path.name for path in report.iterdir())) == (
        0,
        ["comparison.json", "index.html", "mine.json"],
    )
    assert "<svg" in (report / "index.html").read_text()
    assert len(Comparison.from_json((report / "comparison.json").read_text()).runs) == 6


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full here")
def test_full_disk_costs_neither_table_nor_the_other_file(cdna: Cdna, tmp_path: Path) -> None:
    ended = cdna(*SHORT, "--json", "/dev/full", "--report", str(tmp_path / "r"))
    assert ended.status == 2
    assert ended.error.startswith("cdna compare: --json /dev/full: not written (no space left on device)")
    assert "Transmit" in ended.out
    assert (tmp_path / "r" / "index.html").exists()


def test_place_that_has_gone_meanwhile(cdna: Cdna, tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()

    def remove(run: Run) -> Run:
        if place.exists():  # while it measures
            place.rmdir()
        return run

    cdna.fake.change = remove
    ended = cdna(*SHORT, "--json", str(place / "out.json"))
    assert ended.status == 2
    assert "not written" in ended.error
    assert "Transmit" in ended.out


def test_failure_keeps_an_older_file(cdna: Cdna, tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    path.write_text("old")
    cdna.fake.fail, cdna.fake.after = ResourceError("contexts: none is left; give fewer guests"), 3
    ended = cdna(*SHORT, "--json", str(path), "--report", str(tmp_path / "r"))
    assert ended.status == 2
    assert ended.error == "cdna compare: contexts: none is left; give fewer guests"
    assert "cdna validated" in ended.out  # what was measured
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "error",
    [OSError(24, "Too many open files"), MemoryError(), PermissionError(1, "Operation not permitted")],
)
def test_the_machine_refuses(cdna: Cdna, error: BaseException) -> None:
    cdna.fake.fail = error
    ended = cdna(*SHORT)
    assert (ended.status, ended.out) == (2, "")
    assert len(ended.err.splitlines()) == 1


def test_interrupt_shows_what_was_measured(cdna: Cdna, tmp_path: Path) -> None:
    cdna.fake.fail, cdna.fake.after = KeyboardInterrupt(), 3
    ended = cdna(*SHORT, "--json", str(tmp_path / "out.json"))
    assert ended.status == 130
    assert ended.error == "cdna compare: interrupted; 3 finished rows are shown, no file was written"
    assert "cdna validated" in ended.out
    assert list(tmp_path.iterdir()) == []


def test_interrupt_before_anything_was_measured(cdna: Cdna) -> None:
    cdna.fake.fail = KeyboardInterrupt()
    ended = cdna(*SHORT)
    assert (ended.status, ended.out) == (130, "")
    assert len(ended.err.splitlines()) == 1


def test_lost_frames_fail_the_run(cdna: Cdna) -> None:
    cdna.fake.change = lambda run: replace(run, lost=7 if run.guests == 4 and run.path == "bridge" else 0)
    ended = cdna(*SHORT)
    assert ended.status == 1
    assert ended.error == "cdna compare: tx, 4 guests, bridge: 7 frames lost; its figures do not count"


def test_version_and_help(cdna: Cdna) -> None:
    assert cdna("--version").out.startswith("cdna ")
    for argv in (["--help"], ["compare", "--help"], ["bench", "-h"]):
        ended = cdna(*argv)
        assert (ended.status, ended.err) == (0, "")
        assert "Usage" in ended.out


def test_as_a_program() -> None:
    """The status reaches the shell, a bad argument costs no traceback, and plots are not imported for it."""
    code = "import sys; from cdna.cli import main; s = main(); sys.exit('matplotlib' in sys.modules or s)"
    done = subprocess.run(
        [sys.executable, "-c", code, "compare", "--guests", "0"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert done.stderr == "cdna compare: --guests 0: too few; give numbers from 1 to 63, e.g. 1,2,4\n"
    assert done.stdout == ""


# `cdna compare` as a program of its own, which measures nothing and shows the result it is given.
_SHOW = """
import sys
from cdna.cli import main
from cdna.cli.runners import Runners
from cdna.compare.result import Comparison
comparison = Comparison.from_json(sys.argv[1])
sys.exit(main(["compare"], Runners(compare=lambda plan, on_progress: comparison)))
"""
SHOW = (sys.executable, "-c", _SHOW, synthetic_comparison(Plan(guests=(1,))).to_json())


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full here")
def test_standard_output_on_a_full_disk() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(SHOW, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2
    assert done.stderr == "cdna compare: standard output: not written (no space left on device)\n"


def test_reader_that_leaves() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(SHOW, stdout=writing, stderr=subprocess.PIPE)
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")
