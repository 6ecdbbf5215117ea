"""Each campaign runs, is made by its seed, and notices when protection fails."""

from collections.abc import Iterator
from random import Random
from typing import Any

import numpy as np
import pytest

from cdna.abi import Refusal
from cdna.fuzz.campaign import Breach, Tally
from cdna.fuzz.campaigns import CAMPAIGNS, campaign_class
from cdna.fuzz.neighbours import Harm, Scene
from cdna.nic.queue_wire import QueueWire
from cdna.protocol.vhost_user import Request
from cdna.vmm.tables import Tables
from cdna.vmm.vhost_user.handlers import RULES

PYTHON = ("model", "process", "messages", "time")


@pytest.mark.parametrize("name", CAMPAIGNS)
def test_a_slice_of_each(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cdna.fuzz.slow.THRESHOLD", 0.0)  # how fast this machine is, is another matter
    journal: list[dict[str, Any]] = []
    campaign = campaign_class(name)(7, journal=journal.append)
    try:
        tally = campaign.run(0.5)
    finally:
        campaign.close()
    assert tally.attempts
    assert tally.descriptors
    assert journal
    assert name == "time" or sum(tally.faults.values()) + sum(tally.refusals.values())
    assert (tally.outside, tally.lost) == (0, 0)
    assert name == "model" or tally.frames


@pytest.mark.parametrize("name", PYTHON)
def test_the_seed_makes_the_steps(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cdna.fuzz.slow.THRESHOLD", 0.0)
    kind = campaign_class(name)
    first, again, other = (kind.expand({"campaign": name, "seed": seed}) for seed in (5, 5, 6))
    assert first == again
    assert first["steps"] != other["steps"]
    kind.replay(first)


def test_the_model_notices_another_status(monkeypatch: pytest.MonkeyPatch) -> None:
    """The VMM's answer is falsified; the case that the campaign reports still shows it, and no other."""
    honest = Tables.enqueue

    class Liar(Tables):
        def enqueue(self, *args: Any) -> int:
            status = honest(self, *args)
            return Refusal.REFUSED_LENGTH if status == Refusal.REFUSED_OWNER else status

    monkeypatch.setattr("cdna.vmm.hypervisor.Tables", Liar)
    with pytest.raises(Breach) as breach:
        campaign_class("model")(3).run(20)
    assert breach.value.kind == "model"
    assert "the status of enqueue" in str(breach.value)
    with pytest.raises(Breach, match="the status of enqueue"):
        campaign_class("model").replay(breach.value.case)
    monkeypatch.undo()
    campaign_class("model").replay(breach.value.case)


def test_processes_without_protection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their DMA reaches the pages of others, and the campaign sees it."""
    monkeypatch.setattr("cdna.fuzz.process.PROTECTIONS", ("none",))
    campaign = campaign_class("process")(1)
    try:
        with pytest.raises(Breach) as breach:
            campaign.run(60)
    finally:
        campaign.close()
    assert breach.value.kind in ("outside", "lost")


def test_a_mistake_of_the_vmm(monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception in the handler of a message ends that connection only; but it is not to be."""

    def mistaken(*_: object) -> None:
        raise ZeroDivisionError("planted")

    rule = RULES[Request.SET_VRING_NUM]
    campaign = campaign_class("messages")(1)
    monkeypatch.setitem(RULES, Request.SET_VRING_NUM, rule._replace(handle=mistaken))
    try:
        with pytest.raises(Breach, match="ZeroDivisionError: planted") as breach:
            campaign.run(60)
    finally:
        campaign.close()
    assert breach.value.kind == "error"


# --- what a scene notices -----------------------------------------------------------------------------------


@pytest.fixture
def scene() -> Iterator[Scene]:
    scene = Scene(1, QueueWire(64), room=8)
    scene.talk(Tally(), scene.machine.step)
    scene.check(Tally())
    scene.check_held()
    yield scene
    scene.close()


def test_a_byte_of_anybody_else_that_is_written(scene: Scene) -> None:
    owners = scene.machine.memory.owners()
    honest = [driver.context.guest.domain for driver in (scene.alice, scene.bob)]
    memory = scene.machine.memory.view(0, scene.machine.memory.size)
    pages = [*np.flatnonzero(~np.isin(owners, [*honest, 0xFFFFFFFF]))]
    pages += [int(np.flatnonzero(owners == domain)[-1]) for domain in honest]  # a spare one of each
    for page in Random(1).sample(pages, 20):
        tally, at = Tally(), int(page) * 4096 + 77
        memory[at] ^= 1
        with pytest.raises(Harm, match=rf"1 bytes of others were written, in pages \[{page}\]") as harm:
            scene.check(tally)
        assert (harm.value.kind, tally.outside) == ("outside", 1)
        memory[at] ^= 1
        scene.check(Tally())


def test_a_frame_that_does_not_arrive(scene: Scene) -> None:
    tally = Tally()
    with pytest.raises(Harm, match="8 of 8 frames to bob have not arrived") as harm:
        scene.talk(tally, lambda: None)
    assert (harm.value.kind, tally.lost) == ("lost", 8)


def test_a_frame_that_arrives_as_another(scene: Scene) -> None:
    memory = scene.alice.context.guest.memory

    def change() -> None:
        where = np.flatnonzero(memory == 0xB5)  # of the ethertype: in a frame that waits
        memory[where + 40] ^= 1
        scene.machine.step()

    with pytest.raises(Harm, match="frames to bob are others than were sent"):
        scene.talk(Tally(), change)


def test_a_page_that_stays_pinned(scene: Scene) -> None:
    guest = scene.machine.vmm.create_guest("left", 4096)
    with pytest.raises(Harm, match="7 free pages") as harm:
        scene.check_held()
    assert harm.value.kind == "pin"
    scene.machine.vmm.destroy_guest(guest)
    scene.check_held()


def test_a_secret_that_leaves(scene: Scene) -> None:
    with pytest.raises(Harm, match="a frame holds 16 bytes"):
        scene.look_for_secret("a frame", bytes(60), bytes(3) + 2 * scene.secret)
