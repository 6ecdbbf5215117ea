"""The campaign "native": a seed decides everything, every fault occurs, and what is wrong is found again."""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import Any

import numpy as np
import pytest

from cdna.abi import Fault, Refusal
from cdna.fuzz.campaign import Breach
from cdna.fuzz.episodes import silent
from cdna.fuzz.native import ATTACKERS, NativeCampaign, NativeEpisode
from cdna.fuzz.native_attacks import ACTION_DTYPE, NativeOp, Plant, generate

PROVOKED = {
    Fault.FAULT_SEQUENCE,
    Fault.FAULT_PRODUCER,
    Fault.FAULT_LENGTH,
    Fault.FAULT_FLAGS,
    Fault.FAULT_FRAGMENTS,
    Fault.FAULT_OFFLOAD,
    Fault.FAULT_TRANSLATION,
}
VALIDATED, IOMMU = 0, 3  # attackers of these modes


def carried_out(seed: int, steps: np.ndarray) -> tuple[dict[str, Any], str]:
    """What was counted, and a digest of all machine memory."""
    with silent():
        episode = NativeEpisode(seed)
        try:
            assert episode.attacks.execute(steps) == len(steps)
            assert episode.attacks.finish(), episode.attacks.finding()
            memory = episode.stage.machine.memory
            return episode.attacks.counts(), hashlib.sha256(memory.view(0, memory.size)).hexdigest()
        finally:
            episode.close()


def test_a_seed_decides_everything():
    steps = generate(11, 6000)
    assert (generate(11, 6000) == steps).all()
    assert carried_out(11, steps) == carried_out(11, steps)
    assert carried_out(12, generate(12, 6000))[1] != carried_out(11, steps)[1]


def test_every_fault_and_refusal_that_an_attacker_can_provoke_does_occur():
    faults: Counter[int] = Counter()
    refusals: Counter[int] = Counter()
    for seed in range(3):
        counts, _ = carried_out(seed, generate(seed, 10000))
        faults.update(counts["faults"])
        refusals.update(counts["refusals"])
        assert counts["frames"] > 5000
        assert counts["attacker_frames"] > 20000
    assert set(faults) == {int(fault) for fault in PROVOKED}
    assert set(refusals) == {int(refusal) for refusal in Refusal}


def test_any_bytes_are_steps():
    raw = np.random.default_rng(5).bytes(2000 * ACTION_DTYPE.itemsize)
    steps = np.frombuffer(raw, ACTION_DTYPE).copy()
    steps["op"] %= np.uint8(NativeOp.NATIVE_OPS)
    carried_out(5, steps)


def test_a_slice_counts_what_it_did():
    campaign = NativeCampaign(3, steps=3000)
    tally = campaign.run(0.05)
    campaign.close()
    assert tally.attempts >= 3000
    assert tally.descriptors > 10 * tally.attempts
    assert tally.outside == tally.lost == 0
    assert tally.faults["FAULT_TRANSLATION"] > 0
    assert tally.refusals["REFUSED_OWNER"] > 0


def test_an_episode_is_known_before_it_runs():
    journal: list[dict[str, Any]] = []
    NativeCampaign(3, steps=500, journal=journal.append).run(0)
    case = NativeCampaign.expand(journal[0])
    assert len(case["steps"]) == 500
    NativeCampaign.replay(case)


def planted(seed: int, guest: int, plant: Plant) -> dict[str, Any]:
    """A case with a flaw in the middle."""
    before, after = generate(seed, 300).tolist(), generate(seed + 1, 3000).tolist()
    return {
        "campaign": "native",
        "seed": seed,
        "steps": [*before, [NativeOp.NATIVE_PLANT, guest, 0, 0, plant, seed], *after],
    }


@pytest.mark.parametrize(
    ("guest", "plant", "kinds"),
    [
        (VALIDATED, Plant.PLANT_PAGE, {"outside", "pin", "model"}),
        (IOMMU, Plant.PLANT_PAGE, {"outside"}),
        (VALIDATED, Plant.PLANT_PIN, {"pin"}),
        (IOMMU, Plant.PLANT_PIN, {"pin"}),
        (VALIDATED, Plant.PLANT_UNPIN, {"pin"}),
        (VALIDATED, Plant.PLANT_LOSS, {"lost"}),
    ],
)
def test_a_flaw_is_found_and_replayed(guest: int, plant: Plant, kinds: set[str]):
    case = planted(20, guest, plant)
    with pytest.raises(Breach) as found:
        NativeCampaign.replay(case)
    assert found.value.kind in kinds
    assert len(found.value.case["steps"]) <= len(case["steps"])
    with pytest.raises(Breach) as again:  # the steps up to there are enough
        NativeCampaign.replay(found.value.case)
    assert str(again.value) == str(found.value)


def test_attackers_of_every_mode_are_there():
    strategies = ("single-use", "shared", "persistent", "direct-map")
    assert {s["protection"] for s in ATTACKERS} == {"validated", *(f"iommu:{name}" for name in strategies)}
