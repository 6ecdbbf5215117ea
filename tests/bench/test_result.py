"""Ratios between rows of a bench. All figures here are synthetic."""

from typing import Any

import pytest

from cdna.bench.result import BARE_RING, GUEST_TO_WIRE, BenchPlan, BenchRow
from cdna.errors import BadSetting
from tests.support.synthetic import synthetic_bench


def the(row: BenchRow | None) -> BenchRow:
    assert row is not None
    return row


def test_ratios() -> None:
    result = synthetic_bench()
    validated = the(result.find(GUEST_TO_WIRE, 64, "validated"))
    none = the(result.find(GUEST_TO_WIRE, 64, "none"))
    crowded = the(result.find(GUEST_TO_WIRE, 64, "validated", contexts=1024))
    ring = the(result.find(BARE_RING, 64))
    for ratio, expected in (
        (result.to_none(validated), 23.5 / 24),
        (result.to_bare_ring(validated), 23.5 / 30),
        (result.to_one_context(crowded), 23 / 23.5),
    ):
        assert ratio is not None
        assert ratio.median == pytest.approx(expected)
    assert result.to_none(none) is None
    assert result.to_none(crowded) is None
    assert result.to_bare_ring(ring) is None
    assert result.to_one_context(validated) is None


@pytest.mark.parametrize(
    ("setting", "value"),
    [("sizes", ()), ("sizes", (64, 64)), ("sizes", (59,)), ("sizes", ("64",)), ("seconds", 0.0)],
)
def test_what_cannot_be_is_refused(setting: str, value: Any) -> None:
    with pytest.raises(BadSetting) as caught:
        BenchPlan(**{setting: value})
    assert caught.value.setting == setting
