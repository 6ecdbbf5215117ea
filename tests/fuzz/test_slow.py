"""Campaign "time": a NIC whose turns are worth bytes is found to be unfair, one with turns of time is not.

Where it matters, the two are far apart: what this machine does meanwhile is not judged.
"""

import math
from random import Random
from typing import Any

import pytest

from cdna.fuzz import slow
from cdna.fuzz.arguments import Step
from cdna.fuzz.campaign import Breach, Case, Tally
from cdna.fuzz.runner import replay
from cdna.fuzz.shrink import shrink
from cdna.fuzz.slow import STEPS, Guests, TimeCampaign, share
from cdna.fuzz.trial import Finding

SETTINGS = {"weight": 1, "rate": 0, "vlan": 0, "anti_spoof": True, "promiscuous": False}
VIRTIO = {
    "packed": False,
    "size": 1024,
    "regions": 1,
    "to": "outside",
    "length": 1514,
    "pieces": 1,
    "indirect": False,
    "offload": 0,
    "room": 2048,
    "rx_pieces": 1,
    "mergeable": False,
    "log": False,
    "calls": False,
    **SETTINGS,
}
NATIVE = {"protection": "validated", "ring": 1024, "buffer": 2048, "to": "outside", "length": 14, **SETTINGS}
FAIR: Step = ["virtio", VIRTIO]
SMALL: Step = ["virtio", {**VIRTIO, "length": 14}]
NO_FRAMES: Step = ["virtio", {**VIRTIO, "length": 2}]
RECEIVERS: Step = ["receivers", {"number": 16, "vlan": 0}]
BROADCASTS: Step = ["virtio", {**VIRTIO, "to": "broadcast", "length": 14}]
LOG: Step = ["virtio", {**VIRTIO, "to": "itself", "length": 60, "log": True, "room": 1 << 20}]
CHAINS: Step = ["virtio", {**VIRTIO, "to": "itself", "regions": 64, "rx_pieces": 128, "indirect": True}]


def case(turns: str, *steps: Step) -> dict[str, Any]:
    return {"campaign": "time", "seed": 1, "turns": turns, "steps": list(steps)}


@pytest.mark.parametrize("attacker", [SMALL, ["native", NATIVE]], ids=["small", "native"])
def test_turns_that_are_worth_bytes_are_found_to_be_unfair(attacker: Step) -> None:
    with pytest.raises(Breach, match="of its part of the NIC's core") as breach:
        TimeCampaign.replay(case("bytes", attacker))
    assert breach.value.kind == "slow"


def test_a_finding_shrinks_to_the_guest_that_does_it() -> None:
    def attempt(case: Case) -> Finding | None:
        try:
            TimeCampaign.replay(case)
        except Breach as breach:
            return breach.kind, breach.text
        return None

    whole = case("bytes", RECEIVERS, SMALL, ["receivers", {"number": 1, "vlan": 5}])
    smallest, finding = shrink(whole, "slow", attempt, budget=math.inf)
    assert smallest == case("bytes", SMALL)
    assert finding is not None
    assert finding[0] == "slow"


@pytest.mark.parametrize(
    "steps",
    [[SMALL], [NO_FRAMES], [["native", NATIVE]], [RECEIVERS, BROADCASTS], [LOG], [CHAINS], [SMALL] * 4],
    ids=["small", "none", "native", "broadcasts", "log", "chains", "four"],
)
def test_known_attacks_find_nothing(steps: list[Step], monkeypatch: pytest.MonkeyPatch) -> None:
    """With a wide margin: in a NIC whose turns are worth bytes, most of them take nine tenths."""
    monkeypatch.setattr(slow, "THRESHOLD", 0.4)
    TimeCampaign.replay(case("time", *steps))


def test_a_part_is_by_weight() -> None:
    heavy = Guests("time", [["virtio", {**VIRTIO, "weight": 8}]])
    alone = Guests("time")
    try:
        assert heavy.weight == 8
        assert share(alone, heavy, 24) > 0.4  # of a ninth
        assert heavy.rate() < alone.rate() / 2
    finally:
        heavy.close()
        alone.close()


def test_a_guest_that_is_stopped_is_counted() -> None:
    """Its descriptors break a rule: the engine stops it, and the others have its part."""
    tally = Tally()
    beside = Guests(
        "time", [["virtio", {**VIRTIO, "to": "itself", "room": 64, "rx_pieces": 128, "indirect": True}]]
    )
    try:
        beside.count(tally)
    finally:
        beside.close()
    assert tally.faults == {"FAULT_CHAIN": 1}


@pytest.mark.parametrize("name", STEPS.arguments)
def test_each_guest_can_be(name: str) -> None:
    """Whatever is drawn: its rings hold something, and the honest guest goes on."""
    random, drawn = Random(3), 0
    while drawn < 8:
        step = STEPS.draw(random)
        if step[0] != name:
            continue
        drawn += 1
        guests = Guests("time", [step])
        try:
            before = guests.honest.sent()
            guests.course.look()
            assert guests.honest.sent() > before
        finally:
            guests.close()


def test_a_process_of_its_own_replays_it() -> None:
    finding = replay(case("bytes", SMALL))
    assert finding is not None
    assert finding[0] == "slow"
    assert finding[1].startswith("a neighbour has 0.")
