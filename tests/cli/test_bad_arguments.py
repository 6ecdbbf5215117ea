"""Nonsense ends in status 2 and one line: the option, what was given, and what would be right."""

import os
from pathlib import Path

import pytest

from cdna.compare.plan import Plan
from tests.cli.conftest import Cdna

# option, value, what the line has to say besides
COMPARE = [
    ("--guest", "rock", "synthetic or vm"),
    ("--load", "tcp", "leave it out"),
    ("--guests", "0", "1 to 63"),
    ("--guests", "64", "1 to 63"),
    ("--guests", "-1", "1 to 63"),
    ("--guests", "1,x", "1 to 63"),
    ("--guests", "1,,2", "1 to 63"),
    ("--guests", "1.5", "1 to 63"),
    ("--guests", "", "1 to 63"),
    ("--guests", "2,2", "twice"),
    ("--guests", "\N{SUPERSCRIPT TWO}", "1 to 63"),
    ("--guests", "9" * 5000, "1 to 63"),
    ("--direction", "up", "tx, rx"),
    ("--direction", "", "tx, rx"),
    ("--direction", "tx,tx", "twice"),
    ("--path", "xen", "cdna, bridge"),
    ("--path", "cdna,,bridge", "cdna, bridge"),
    ("--protection", "strong", "validated, none"),
    ("--protection", "iommu", "iommu:single-use"),
    ("--protection", "iommu:lazy", "iommu:direct-map"),
    ("--domains", "vm", "process, inline"),
    ("--receive", "zero-copy", "flip, copy"),
    ("--seconds", "0", "above 0"),
    ("--seconds", "-1", "above 0"),
    ("--seconds", "nan", "above 0"),
    ("--seconds", "inf", "up to 3600"),
    ("--seconds", "soon", "seconds"),
    ("--seconds", "", "seconds"),
    ("--size", "59", "60 to 9018"),
    ("--size", "9019", "60 to 9018"),
    ("--size", "-64", "60 to 9018"),
    ("--size", "big", "no such file"),
    ("--size", "", "no such file"),
    ("--size", "/", "not a file"),
    ("--size", "/dev/null", "not a file"),
    ("--size", __file__, "pcap"),
    ("--line-rate", "fast", "10G"),
    ("--line-rate", "-1G", "10G"),
    ("--line-rate", "5", "1M"),
    ("--line-rate", "nan", "10G"),
    ("--line-rate", "infG", "10G"),
    ("--line-rate", "G", "10G"),
    ("--line-rate", "", "10G"),
    ("--json", "", "name"),
    ("--json", "/", "directory"),
    ("--json", "/no/such/place/out.json", "no directory"),
    ("--json", __file__ + "/out.json", "no directory"),
    ("--json", "x" * 300, "too long"),
    ("--report", "", "name"),
    ("--report", __file__, "not a directory"),
    ("--report", "/no/such/place/report", "no directory"),
]
BENCH = [
    ("--sizes", "0", "60 to 9018"),
    ("--sizes", "64,9019", "60 to 9018"),
    ("--sizes", "imix", "60 to 9018"),
    ("--sizes", "", "60 to 9018"),
    ("--sizes", "64,64", "twice"),
    ("--seconds", "-0.1", "above 0"),
    ("--json", "/no/such/place/out.json", "no directory"),
]


@pytest.mark.parametrize(
    ("command", "option", "value", "advice"),
    [("compare", *row) for row in COMPARE] + [("bench", *row) for row in BENCH],
    ids=lambda text: text[:20] or "empty",
)
def test_value(cdna: Cdna, command: str, option: str, value: str, advice: str) -> None:
    ended = cdna(command, option, value)
    assert ended.status == 2
    assert len(ended.err.splitlines()) == 1
    assert ended.err.startswith(f"cdna {command}: {option} ")
    assert advice in ended.err
    assert ended.out == ""
    assert cdna.fake.plans == []  # nothing was measured


@pytest.mark.parametrize(
    ("argv", "program", "said"),
    [
        ((), "cdna", "compare, bench"),
        (("--bogus",), "cdna", "--bogus"),
        (("race",), "cdna", "race"),
        (("compare", "--bogus"), "cdna compare", "--bogus"),
        (("compare", "--guests"), "cdna compare", "--guests"),
        (("compare", "--verify=maybe"), "cdna compare", "--verify"),
        (("compare", "extra"), "cdna compare", "extra"),
        (("bench", "--guests", "1"), "cdna bench", "--guests"),
    ],
)
def test_usage(cdna: Cdna, argv: tuple[str, ...], program: str, said: str) -> None:
    ended = cdna(*argv)
    assert ended.status == 2
    assert len(ended.err.splitlines()) == 1
    assert ended.err.startswith(f"{program}: ")
    assert said in ended.err
    assert ended.out == ""


def test_every_option_is_tried(cdna: Cdna) -> None:
    listed = {word for word in cdna("compare", "--help").out.split() if word.startswith("--")}
    assert listed - {"--help", "--verify"} <= {option for option, _, _ in COMPARE}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
@pytest.mark.parametrize(("option", "name"), [("--json", "out.json"), ("--report", "report")])
def test_place_without_permission(cdna: Cdna, tmp_path: Path, option: str, name: str) -> None:
    tmp_path.chmod(0o500)
    ended = cdna("compare", option, str(tmp_path / name))
    assert ended.status == 2
    assert "permission denied" in ended.err
    assert cdna.fake.plans == []


def test_checking_leaves_nothing_behind(cdna: Cdna, tmp_path: Path) -> None:
    cdna("compare", "--report", str(tmp_path / "r"), "--json", str(tmp_path / "no" / "such.json"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("magic", ["0a0d0d0a", "a1b2c3d4", "d4c3b2a1", "a1b23c4d", "4d3cb2a1"])
def test_capture_file_is_taken(cdna: Cdna, tmp_path: Path, magic: str) -> None:
    capture = tmp_path / "load.pcap"
    capture.write_bytes(bytes.fromhex(magic))
    assert cdna("compare", "--size", str(capture)).status == 0
    assert cdna.fake.plans == [Plan(size=str(capture))]
