"""Attackers with a second thread find each double fetch that is planted, in seconds."""

from __future__ import annotations

import time

import pytest

from cdna import checks
from cdna.checks import Plant
from cdna.fuzz.campaign import Breach
from cdna.fuzz.duels import DUELS
from cdna.fuzz.race import KINDS, RaceCampaign
from tests.checks.forked import Outcome, forked

SECONDS = 60  # by which a plant has to be found; most take less than one where two cores are free
CLEAN = 2.0  # seconds in which nothing is found without a plant
CRASHES = (-11, -7, -6)  # it may be found so, too

FOUND_BY: dict[str, str] = {
    "PLANT_DESC_LEN": "native_length",
    "PLANT_DESC_ADDR": "native_address",
    "PLANT_REQUEST_ADDR": "request_address",
    "PLANT_VIRTIO_LEN": "virtio_length",
    "PLANT_VIRTIO_ADDR": "virtio_address",
    "PLANT_VIRTIO_NEXT": "virtio_next",
    "PLANT_INDIRECT_LEN": "indirect_length",
    "PLANT_AVAILABLE": "available_index",
    "PLANT_VNET_HEADER": "vnet_header",
}


def race(kind: str, seconds: float, *plants: str) -> Outcome:
    """Exit status 0: nothing was found; 1: something was; negative: the process died of it."""

    def attempt() -> int:
        checks.plant(*plants)
        try:
            assert RaceCampaign(1, kinds=(kind,)).run(seconds).attempts > 0
        except Breach as breach:
            print(breach, flush=True)
            return 1
        return 0

    return forked(attempt, int(seconds) + 30)


def test_every_plant_has_its_race_any_build() -> None:
    assert list(FOUND_BY) == [plant.name for plant in Plant]
    assert set(FOUND_BY.values()) < set(DUELS)


@pytest.mark.parametrize("plant", FOUND_BY)
def test_a_planted_double_fetch_is_found(plant: str) -> None:
    begin = time.monotonic()
    while time.monotonic() - begin < SECONDS:
        outcome = race(FOUND_BY[plant], 5.0, plant)
        if outcome.code:
            break
    assert outcome.code == 1 or outcome.code in CRASHES, outcome.text


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_plant_nothing_is_found(kind: str) -> None:
    outcome = race(kind, CLEAN)
    assert outcome.passed, outcome.text


@pytest.mark.parametrize("kind", ["shrinking_buffers", "changing_headers", "endless_slots"])
def test_what_is_read_twice_is_checked_twice(kind: str) -> None:
    text, tries = DUELS[kind](time.monotonic() + 4 * CLEAN)
    assert text is None
    assert tries
