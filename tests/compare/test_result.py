"""Results: their JSON and the ratios taken from them. All figures here are synthetic."""

import json
from dataclasses import replace

import pytest

from cdna.compare.hostinfo import host_facts
from cdna.compare.plan import Case, Plan
from cdna.compare.result import Comparison, Profile, Run, ratio_of
from cdna.errors import ConfigError
from tests.support.synthetic import HOST, synthetic_comparison, synthetic_run


def run(path: str, mpps: float, slices: tuple[float, ...] = (), **case: object) -> Run:
    settings = {"direction": "rx", "guests": 2, "size": 64, "protection": "none", "domains": "process"}
    return synthetic_run(Case(path, **{**settings, **case}), mpps=mpps, slices=slices)  # type: ignore[arg-type]


def test_json_has_the_documented_fields() -> None:
    tree = json.loads(synthetic_comparison(Plan(guests=(1,))).to_json())
    assert tree["host"] == HOST
    documented = "path direction guests size protection domains frames lost seconds mpps gbps profile"
    documented += " host_cycles_per_frame interrupts"
    for row in tree["runs"]:
        assert list(row)[:14] == documented.split()
        assert list(row["profile"]) == ["vmm", "driver_domain", "guests", "idle"]
        assert sum(row["profile"].values()) == pytest.approx(1)
        assert list(row["interrupts"]) == ["physical_per_s", "driver_domain_per_s", "guest_per_s"]
        assert row["path"] in ("cdna", "bridge")
        assert row["direction"] in ("tx", "rx")


def test_json_round_trip() -> None:
    comparison = synthetic_comparison(Plan(size="a/b.pcap"))
    assert Comparison.from_json(comparison.to_json()) == comparison


def test_json_round_trip_of_nothing() -> None:
    assert Comparison.from_json(Comparison({}, []).to_json()) == Comparison({}, [])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[",
        "[]",
        "{}",
        '{"host": {}, "runs": [{}]}',
        '{"host": {}, "runs": [1]}',
        '{"host": {}, "runs": 1}',
    ],
)
def test_json_of_something_else(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^comparison: "):
        Comparison.from_json(text)


def test_unknown_keys_of_a_later_version_are_ignored() -> None:
    tree = json.loads(synthetic_comparison(Plan(guests=(1,))).to_json())
    tree["runs"][0]["weather"] = "fine"
    assert len(Comparison.from_json(json.dumps(tree)).runs) == len(tree["runs"])


def test_ratio_is_taken_slice_by_slice() -> None:
    ratio = ratio_of(run("cdna", 99, (2.0, 6.0, 9.0)), run("bridge", 1, (1.0, 2.0, 4.5)))
    assert ratio is not None
    assert (ratio.median, ratio.low, ratio.high, ratio.pairs) == (2.0, 2.0, 2.5, 3)


@pytest.mark.parametrize(
    ("mine", "theirs", "expected"),
    [
        ((), (), (5.0, 1)),  # none was kept
        ((1.0,), (1.0, 2.0), (5.0, 1)),  # they took no turns
        ((4.0, 4.0), (0.0, 2.0), (2.0, 1)),  # a slice in which nothing moved
    ],
)
def test_ratio_without_pairs(
    mine: tuple[float, ...], theirs: tuple[float, ...], expected: tuple[float, int]
) -> None:
    ratio = ratio_of(run("cdna", 10, mine), run("bridge", 2, theirs))
    assert ratio is not None
    assert (ratio.median, ratio.pairs) == expected


def test_ratio_to_nothing() -> None:
    assert ratio_of(run("cdna", 10), run("bridge", 0)) is None


def test_ratio_is_to_the_faster_bridge_of_the_same_group() -> None:
    cdna = run("cdna", 10, protection="validated")
    flip, copy = run("bridge", 2, receive="flip"), run("bridge", 4, receive="copy")
    others = [
        run("bridge", 8, receive="copy", **other)
        for other in ({"guests": 1}, {"direction": "tx"}, {"size": 1514}, {"domains": "inline"})
    ]
    comparison = Comparison({}, [*others, cdna, flip, copy])
    assert comparison.baseline(cdna) is copy
    ratio, of_flip = comparison.ratio(cdna), comparison.ratio(flip)
    assert ratio is not None
    assert of_flip is not None
    assert (ratio.median, of_flip.median) == (2.5, 0.5)


def test_one_pair_that_was_disturbed_moves_the_quartiles_little() -> None:
    ratio = ratio_of(run("cdna", 2, (2.0, 2.1, 1.9, 2.0, 0.01)), run("bridge", 1, (1.0,) * 5))
    assert ratio is not None
    assert (ratio.low, ratio.median, ratio.high) == (1.9, 2.0, 2.0)


def test_the_row_of_reference_is_never_the_slower_one() -> None:
    """One disturbed slice makes flip the slower one on average, though it is faster in the other pairs."""
    flip = run("bridge", 3.4, (5.0, 5.0, 0.1), receive="flip")
    copy = run("bridge", 4.0, (4.0, 4.0, 4.0), receive="copy")
    for order in ([flip, copy], [copy, flip]):
        comparison = Comparison({}, order)
        assert comparison.baseline(copy) is flip
        ratio = comparison.ratio(copy)
        assert ratio is not None
        assert ratio.median <= 1


def test_no_ratio_without_a_bridge() -> None:
    cdna = run("cdna", 10)
    assert Comparison({}, [cdna]).ratio(cdna) is None


def test_sections_are_by_guests_and_keep_the_order_of_contenders() -> None:
    comparison = synthetic_comparison(Plan(guests=(8, 1), direction=("rx", "tx")))
    sections = comparison.sections()
    assert [key[1] for key in sections] == ["rx", "tx"]
    assert [r.guests for r in sections["process", "tx", 1514]] == [1, 1, 1, 8, 8, 8]
    assert [r.case.contender.name for r in sections["process", "tx", 1514]][:3] == [
        "cdna validated",
        "cdna none",
        "bridge",
    ]


def test_find() -> None:
    comparison = synthetic_comparison()
    last = comparison.runs[-1]
    found = comparison.find(last, guests=1, receive="flip")
    assert found is not None
    assert (found.guests, found.receive, found.direction) == (1, "flip", "rx")
    assert comparison.find(last, guests=5) is None
    assert comparison.find(replace(last, mpps=0)) is last


def test_profile_of_cycles() -> None:
    assert Profile.of_cycles(1, 2, 4, 1) == Profile(0.125, 0.25, 0.5, 0.125)
    assert Profile.of_cycles(0, 0, 0, 0) == Profile(0, 0, 0, 1)


def test_host_facts_can_be_written_and_name_the_cores() -> None:
    facts = host_facts(tsc_mhz=2299.9876, host_core=0, nic_core=1)
    assert json.loads(json.dumps(facts)) == facts
    assert (facts["tsc_mhz"], facts["host_core"], facts["nic_core"]) == (2300.0, 0, 1)
    assert {"cpu", "cores", "kernel", "python", "cdna", "date"} <= facts.keys()
    assert "nic_core" not in host_facts()
