"""`cdna compare --guest vm` from its arguments to its files, with synthetic figures."""

import json
from pathlib import Path

import pytest

from cdna.compare.result import Comparison
from cdna.compare.vm.plan import VmPlan
from cdna.errors import ResourceError
from tests.cli.conftest import Cdna
from tests.support.synthetic import synthetic_vm_comparison

VM = ("compare", "--guest", "vm")


def test_defaults(cdna: Cdna) -> None:
    assert cdna(*VM).status == 0
    assert cdna.fake.plans == [VmPlan()]


def test_arguments_reach_the_runner(cdna: Cdna) -> None:
    assert cdna(*VM, "--path", "bridge", "--load", "latency,tcp", "--seconds", "3").status == 0
    assert cdna.fake.plans == [VmPlan(path=("bridge",), load=("latency", "tcp"), seconds=3)]


def test_table_and_progress(cdna: Cdna) -> None:
    ended = cdna(*VM)
    assert "Virtual machines, 2 guests a path, QEMU 0.0 (TCG)" in ended.out
    rows = [line.split() for line in ended.out.splitlines()]
    assert ["TCP", "cdna", "0.500", "Gb/s", "2.00", "2.00-2.00", "120", "30", "10", "160"] in rows
    assert ["bridge", "0.250", "Gb/s", "1", "120", "0", "10", "130"] in rows
    said = " ".join(ended.out.split())
    assert "CDNA 400 us, 0.50 (0.50-0.50) times the bridge, less is better." in said
    assert len(ended.err.splitlines()) == 8  # a line a figure
    assert ended.err.splitlines()[-1].startswith("cdna compare: 100%  virtual machines, latency, bridge: ")


def test_one_path_has_no_ratio(cdna: Cdna) -> None:
    assert "times the bridge" not in cdna(*VM, "--path", "cdna").out


def test_json_and_report(cdna: Cdna, tmp_path: Path) -> None:
    out, report = tmp_path / "out.json", tmp_path / "report"
    assert cdna(*VM, "--json", str(out), "--report", str(report)).status == 0
    assert Comparison.from_json(out.read_text()) == synthetic_vm_comparison()
    assert [row["load"] for row in json.loads(out.read_text())["vm"]][:2] == ["tcp", "tcp"]
    page = (report / "index.html").read_text()
    assert "virtual machines" in page
    assert "round trip, p99" in page


def test_interrupted_shows_what_there_is(cdna: Cdna, tmp_path: Path) -> None:
    cdna.fake.fail, cdna.fake.after = KeyboardInterrupt(), 2
    ended = cdna(*VM, "--json", str(tmp_path / "out.json"))
    assert ended.status == 130
    assert ended.error == "cdna compare: interrupted; 2 finished rows are shown, no file was written"
    assert "TCP" in ended.out
    assert list(tmp_path.iterdir()) == []


def test_what_the_machine_lacks_is_one_line(cdna: Cdna) -> None:
    cdna.fake.fail = ResourceError("virtual machines need iperf3 (iperf3); make peers installs them")
    ended = cdna(*VM)
    assert (ended.status, ended.err.count("\n")) == (2, 1)


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["--guest", "rock"], "--guest rock: there is no such kind of guest; give synthetic or vm"),
        (["--guest", "vm", "--guests", "4"], "--guests 4: says nothing about vm guests; leave it out"),
        (["--guest", "vm", "--verify"], "--verify: says nothing about vm guests; leave it out"),
        (["--guest", "vm", "--size", "64"], "--size 64: says nothing about vm guests; leave it out"),
        (["--load", "tcp"], "--load tcp: says nothing about synthetic guests; leave it out"),
        (
            ["--guest", "vm", "--load", "ftp"],
            "--load ftp: there is no such load; give one or more of tcp, udp, latency",
        ),
        (
            ["--guest", "vm", "--load", ""],
            "--load '': nothing is named; give one or more of tcp, udp, latency",
        ),
        (
            ["--guest", "vm", "--path", "xen"],
            "--path xen: there is no such path; give one or more of cdna, bridge",
        ),
        (
            ["--guest", "vm", "--seconds", "0"],
            "--seconds 0: give a time above 0 and up to 3600, e.g. 0.5",
        ),
    ],
)
def test_bad_arguments(cdna: Cdna, argv: list[str], line: str) -> None:
    ended = cdna("compare", *argv)
    assert (ended.status, ended.err) == (2, f"cdna compare: {line}\n")
    assert cdna.fake.plans == []
