"""`cdna bench` for real, for moments: what is counted and how it is written down, not how fast it was."""

import json

import pytest

from cdna.bench.result import BARE_RING, GUEST_TO_WIRE, PATHS, BenchPlan, BenchRow
from cdna.bench.runner import SLICES, measure
from cdna.progress import Progress

pytestmark = pytest.mark.alone

SECONDS = 0.1  # a row
PROTECTIONS = ("validated", "none", "iommu:shared")


@pytest.mark.parametrize("size", [64, 9000])
def test_every_row_moved_frames(size: int) -> None:
    plan = BenchPlan((size,), SECONDS, PROTECTIONS, (1, 40))
    seen: list[Progress[BenchRow]] = []
    result = measure(plan, seen.append)
    expected = {(BARE_RING, None, 1), (GUEST_TO_WIRE, "validated", 40)}
    expected |= {(path, protection, 1) for path in PATHS for protection in PROTECTIONS}
    assert {(row.path, row.protection, row.contexts) for row in result.rows} == expected
    assert len(result.rows) == len(expected)
    for row in result.rows:
        assert row.size == size
        assert row.mpps > 0
        assert row.gbps == pytest.approx(row.mpps * size * 8e-3)
        assert row.seconds > 0
        assert len(row.slices) == SLICES
        assert row.memcpy_mpps is not None
        assert row.memcpy_mpps > 0
        assert row.ratio_to_memcpy is not None
        assert row.spread is not None
        low, high = row.spread
        assert 0 <= low <= row.ratio_to_memcpy <= high  # a slice may fall into another program's turn
    assert [row for progress in seen for row in progress.finished] == result.rows
    assert (seen[0].done, seen[-1].done) == (0, seen[-1].total)


def test_its_json() -> None:
    result = measure(BenchPlan((64,), SECONDS, ("none",), (1,)))
    tree = json.loads(result.to_json())
    assert tree["host"] == dict(result.host)
    rows = [
        BenchRow(**{**r, "spread": tuple(r["spread"]), "slices": tuple(r["slices"])}) for r in tree["runs"]
    ]
    assert rows == result.rows


def test_a_time_that_is_over_before_it_begins() -> None:
    for row in measure(BenchPlan((64,), 1e-9, ("none",), (1,))).rows:
        assert row.memcpy_mpps is not None
        assert row.memcpy_mpps > 0
