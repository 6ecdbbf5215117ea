"""`cdna bench` from its arguments to its file, with synthetic figures."""

import json
from pathlib import Path

from cdna.bench.result import BenchPlan
from tests.cli.conftest import Cdna


def test_defaults(cdna: Cdna) -> None:
    ended = cdna("bench")
    assert ended.status == 0
    assert cdna.fake.plans == [BenchPlan()]
    assert "guest-to-guest" in ended.out
    assert "of the bare ring" in ended.out


def test_arguments_and_json(cdna: Cdna, tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    assert cdna("bench", "--sizes", "9000", "--seconds", "0.1", "--json", str(path)).status == 0
    assert cdna.fake.plans == [BenchPlan(sizes=(9000,), seconds=0.1)]
    rows = json.loads(path.read_text())["runs"]
    assert {row["size"] for row in rows} == {9000}
    assert {"path", "protection", "mpps", "gbps", "memcpy_mpps", "ratio_to_memcpy"} <= rows[0].keys()


def test_interrupt_shows_what_was_measured(cdna: Cdna) -> None:
    cdna.fake.fail, cdna.fake.after = KeyboardInterrupt(), 2
    ended = cdna("bench")
    assert ended.status == 130
    assert "bare-ring" in ended.out
    assert ended.error == "cdna bench: interrupted; 2 finished rows are shown, no file was written"
