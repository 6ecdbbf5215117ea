"""What a plan accepts, and the cases that it comes to."""

import re
from typing import Any

import pytest

from cdna.compare.plan import Case, Plan
from cdna.errors import BadSetting, ConfigError


def test_default_cases() -> None:
    cases = Plan().cases()
    assert len(cases) == 6 * (3 + 4)
    assert {(case.path, case.protection) for case in cases} == {
        ("cdna", "validated"),
        ("cdna", "none"),
        ("bridge", "none"),
    }
    assert {case.domains for case in cases} == {"process"}


def test_the_bridge_receives_in_two_ways_and_transmits_in_one() -> None:
    receives = {
        direction: [
            case.receive
            for case in Plan(guests=(1,), direction=(direction,)).cases()
            if case.path == "bridge"
        ]
        for direction in ("tx", "rx")
    }
    assert receives == {"tx": [None], "rx": ["flip", "copy"]}


def test_a_group_differs_in_its_contenders_alone() -> None:
    groups = Plan(guests=(4, 1), domains=("process", "inline")).groups()
    assert len(groups) == 2 * 2 * 2
    for group in groups:
        assert len({(case.direction, case.guests, case.size, case.domains) for case in group}) == 1
        assert len({case.contender for case in group}) == len(group)
    assert [group[0].guests for group in groups[:2]] == [1, 4]


def test_names() -> None:
    assert str(Case("bridge", "rx", 24, 1514, "none", "process", "copy")) == "rx, 24 guests, bridge copy"
    assert str(Case("cdna", "tx", 1, 64, "validated", "inline")) == "tx, 1 guest, cdna validated, inline"


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("guests", ()),
        ("guests", (0,)),
        ("guests", (64,)),
        ("guests", (1, 1)),
        ("guests", (True,)),
        ("guests", (1.0,)),
        ("direction", ("both",)),
        ("path", ()),
        ("protection", ("iommu",)),
        ("domains", ("thread",)),
        ("receive", ("flip", "flip")),
        ("seconds", 0.0),
        ("seconds", float("nan")),
        ("seconds", 3601.0),
        ("size", 59),
        ("size", 9019),
        ("size", 64.0),
        ("line_rate", -1.0),
        ("line_rate", float("nan")),
        ("line_rate", 2e12),
    ],
)
def test_what_cannot_be_is_refused(setting: str, value: Any) -> None:
    with pytest.raises(BadSetting, match=rf"^{re.escape(setting)} .+: .+") as caught:
        Plan(**{setting: value})
    assert caught.value.setting == setting
    assert isinstance(caught.value, ConfigError)


def test_sizes_are_those_of_the_nic() -> None:
    abi = pytest.importorskip("cdna.abi")
    from cdna.compare.plan import MAX_SIZE

    assert abi.Limits.MAX_FRAME == MAX_SIZE
