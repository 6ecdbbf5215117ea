"""The campaign "virtio": a seed decides everything, every fault occurs, and what is wrong is found again."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from cdna.abi import Fault
from cdna.fuzz.campaign import Breach
from cdna.fuzz.episodes import silent
from cdna.fuzz.native_attacks import ACTION_DTYPE
from cdna.fuzz.virtio import ATTACKERS, VirtioCampaign, VirtioEpisode
from cdna.fuzz.virtio_attacks import VirtioOp, generate

PROVOKED = {
    Fault.FAULT_AVAIL,
    Fault.FAULT_CHAIN,
    Fault.FAULT_INDIRECT,
    Fault.FAULT_DIRECTION,
    Fault.FAULT_HEADER,
    Fault.FAULT_MEMORY,
}


def carried_out(seed: int, steps: np.ndarray) -> dict[str, Any]:
    with silent():
        episode = VirtioEpisode(seed)
        try:
            assert episode.attacks.execute(steps) == len(steps)
            assert episode.attacks.finish(), episode.attacks.finding()
            return episode.attacks.counts()
        finally:
            episode.close()


def test_a_seed_decides_everything():
    steps = generate(11, 6000)
    assert carried_out(11, steps) == carried_out(11, steps)
    assert carried_out(12, generate(12, 6000)) != carried_out(11, steps)


def test_every_fault_that_an_attacker_can_provoke_does_occur():
    faults: Counter[int] = Counter()
    for seed in range(3):
        counts = carried_out(seed, generate(seed, 8000))
        faults.update(counts["faults"])
        assert counts["frames"] > 5000
        assert counts["attacker_frames"] > 20000
    assert set(faults) == {int(fault) for fault in PROVOKED}


def test_any_bytes_are_steps():
    steps = np.frombuffer(np.random.default_rng(5).bytes(2000 * ACTION_DTYPE.itemsize), ACTION_DTYPE).copy()
    steps["op"] %= np.uint8(VirtioOp.VIRTIO_MEMORY)  # the control plane is slow
    carried_out(5, steps)


def test_memory_and_devices_come_and_go_in_the_middle_of_it():
    steps = generate(7, 3000)
    steps["op"][::100] = VirtioOp.VIRTIO_MEMORY
    steps["op"][50::100] = VirtioOp.VIRTIO_RECONNECT
    assert carried_out(7, steps)["frames"] > 500


@pytest.mark.parametrize("guest", range(len(ATTACKERS)))
def test_a_flaw_of_the_memory_table_is_found_and_replayed(guest: int):
    plant = [VirtioOp.VIRTIO_PLANT, guest, 0, 0, 0, 0]
    steps = generate(20, 20000)
    steps["op"][steps["op"] >= VirtioOp.VIRTIO_RESET] = VirtioOp.VIRTIO_POST
    case = {"campaign": "virtio", "seed": 20, "steps": [plant, *steps.tolist()]}
    with pytest.raises(Breach) as found:
        VirtioCampaign.replay(case)
    assert found.value.kind == "outside"
    with pytest.raises(Breach) as again:
        VirtioCampaign.replay(found.value.case)
    assert str(again.value) == str(found.value)


def test_a_slice_counts_what_it_did():
    campaign = VirtioCampaign(3, steps=3000)
    tally = campaign.run(0.05)
    campaign.close()
    assert tally.attempts >= 3000
    assert tally.descriptors > 5 * tally.attempts
    assert tally.outside == tally.lost == 0
    assert tally.faults["FAULT_MEMORY"] > 0
