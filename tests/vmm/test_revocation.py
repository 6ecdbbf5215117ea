"""A context is taken away after every step of its traffic: nothing of it goes on, nobody else notices."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

import numpy as np
import pytest

from cdna.abi import ContextState
from cdna.base.units import PROTECTIONS
from cdna.errors import CdnaError
from cdna.guests.driver import Driver
from cdna.guests.hostile import TX, Hostile
from cdna.machine import Machine
from cdna.nic.queue_wire import QueueWire
from cdna.vmm.domain import Guest
from tests.support.frames import OUTSIDE, frame, mac, receive_all

FRAMES = 12
EVE = "02:00:00:00:0e:0e"


class Scene:
    """Mallory sends and receives frames of several buffers each, beside Alice and Bob, a frame a round."""

    def __init__(self, protection: str) -> None:
        self.wire = QueueWire(256)
        self.machine = Machine(2 << 20, wire=self.wire, contexts=4)
        attach = self.machine.attach
        self.alice = attach("alice", tx_ring=64, rx_ring=64)
        self.bob = attach("bob", tx_ring=64, rx_ring=64)
        self.mallory = attach("mallory", protection=protection, tx_ring=64, rx_ring=64, buffer_size=256)
        self.guest: Guest = self.mallory.context.guest
        alice, bob, mallory = mac(self.alice), mac(self.bob), mac(self.mallory)
        self.to_bob = [frame(bob, alice, i, 300) for i in range(FRAMES)]
        self.to_mallory = [frame(mallory, alice, i, 700) for i in range(FRAMES)]
        assert self.alice.send(self.to_bob + self.to_mallory) == 2 * FRAMES
        self.from_mallory = [frame(bob, mallory, 100 + i, 1000) for i in range(FRAMES // 2)]
        assert self.mallory.send(self.from_mallory) == FRAMES // 2
        self.to_wire = [frame(OUTSIDE, mallory, 200 + i, 900) for i in range(5)]
        assert self.mallory.send(self.to_wire) == 5
        self.wire.put([frame(mallory, OUTSIDE, 300 + i, 1200) for i in range(FRAMES)])
        self.pages = slice(self.guest.maddr, self.guest.maddr + self.guest.size)
        self.memory = self.machine.memory.view(0, self.machine.memory.size)

    def step(self) -> int:
        return self.machine.nic.poll(1, budget=1)

    def run(self) -> int:
        """Steps until nothing moves; returns how many it took."""
        for n in count():
            if not self.step():
                return n

    def pins(self) -> np.ndarray:
        guest = self.guest
        return self.machine.memory.pins()[guest.first_page : guest.first_page + guest.pages]

    def check_neighbours(self) -> None:
        """All that Alice sent has arrived, in order; of Mallory's, whole frames or none."""
        frames = receive_all(self.bob)
        assert [f for f in frames if f in self.to_bob] == self.to_bob
        others = [f for f in frames if f not in self.to_bob]
        assert others == self.from_mallory[: len(others)]
        # What Alice sends to an address that nobody has any more goes to the wire, as to anybody outside.
        on_wire = [f for f in self.wire.get() if f not in self.to_mallory]
        assert on_wire == self.to_wire[: len(on_wire)]
        for driver in (self.alice, self.bob):
            stats = driver.context.stats()
            assert stats["rx_drop_no_buffer"] == stats["faults"] == 0


def revoke(scene: Scene) -> None:
    scene.machine.vmm.revoke(scene.mallory.context)


def destroy(scene: Scene) -> None:
    scene.machine.vmm.destroy_guest(scene.guest)


@pytest.mark.parametrize("protection", PROTECTIONS)
@pytest.mark.parametrize("take", [revoke, destroy])
def test_at_every_step(protection: str, take: Callable[[Scene], None]):
    steps = 0
    for k in count():
        scene = Scene(protection)
        moved = [scene.step() for _ in range(k)]
        steps += k
        context, index = scene.mallory.context, scene.mallory.context.index
        take(scene)
        assert context.revoked
        assert context.state == ContextState.CONTEXT_FREE
        assert not scene.pins().any()
        scene.memory[scene.pages] = 0xA5  # as the next owner would write there
        scene.run()
        assert (scene.memory[scene.pages] == 0xA5).all()
        assert not scene.machine.nic.page_view(index).any()
        scene.check_neighbours()
        with pytest.raises(CdnaError):
            Driver(context)
        scene.machine.close()
        if k and moved[-1] == 0:
            break
    assert k > 30  # it was the way through all of the traffic


@pytest.mark.parametrize("protection", PROTECTIONS)
def test_the_next_owner_gets_nothing_of_the_last(protection: str):
    for k in count():
        scene = Scene(protection)
        moved = [scene.step() for _ in range(k)]
        index = scene.mallory.context.index
        destroy(scene)
        eve = scene.machine.attach(
            "eve", mac=EVE, tx_ring=64, rx_ring=64, buffer_size=256, protection=protection
        )
        assert eve.context.index == index
        assert eve.context.guest.first_page == scene.guest.first_page  # the same pages, too
        scene.run()
        assert eve.recv() == []
        assert eve.tx_pending == 0
        stats = eve.context.stats()
        doorbells = stats.pop("doorbells")
        assert doorbells <= 1  # for her receive buffers
        assert not any(stats.values())
        scene.check_neighbours()
        # And she is served as anybody is.
        letters = [frame(mac(scene.bob), mac(eve), 400 + i, 600) for i in range(4)]
        assert eve.send(letters) == 4
        scene.alice.send([frame(mac(eve), mac(scene.alice), 500 + i, 600) for i in range(4)])
        scene.run()
        assert receive_all(scene.bob) == letters
        assert [len(f) for f in receive_all(eve)] == [600] * 4
        scene.machine.close()
        if k and moved[-1] == 0:
            break


def test_with_half_a_frame_on_the_ring():
    """The rest of it is posted by the next owner, whose descriptors do not become the old frame's end."""
    scene = Scene("validated")
    scene.run()
    mallory = Hostile(scene.machine, "mallory2")
    for _ in range(3):
        assert mallory.post(TX, [(mallory.maddr(), 200, 0)] * 3) == 3
        scene.run()
        scene.machine.vmm.revoke(mallory.context)
        assert not scene.machine.memory.pins()[mallory.guest.first_page :][:16].any()
        mallory.context = scene.machine.vmm.assign(mallory.guest, mallory.context.settings)
        mallory.posted[TX] = 0
    letter = frame(mac(scene.bob), mallory.mac, 7, 200)
    mallory.write(letter)
    mallory.post(TX, [(mallory.maddr(), 200, 1)])
    scene.run()
    assert receive_all(scene.bob)[-1] == letter
    assert mallory.context.stats()["tx_frames"] == 1
    scene.machine.close()


@pytest.mark.parametrize("protection", PROTECTIONS)
def test_while_the_nic_runs(protection: str):
    """Alice's frames to Bob go on while a third guest comes, sends, and is taken away in the middle."""
    with Machine(4 << 20, wire=QueueWire(256), contexts=4) as machine:
        alice, bob = machine.attach("alice"), machine.attach("bob")
        expected, received = 0, 0
        for i in range(100):
            mallory = machine.attach("mallory", protection=protection, buffer_size=256)
            guest = mallory.context.guest
            machine.wire.put([frame(mac(mallory), OUTSIDE, j, 1000) for j in range(10)])
            mallory.send([frame(mac(bob), mac(mallory), j, 1400) for j in range(20)])
            assert alice.send([frame(mac(bob), mac(alice), expected + j) for j in range(10)]) == 10
            mallory.send([frame(OUTSIDE, mac(mallory), j, 1400) for j in range(20)])
            expected += 10
            if i % 2:
                machine.vmm.revoke(mallory.context)
                assert not machine.memory.pins()[guest.first_page : guest.first_page + guest.pages].any()
            machine.vmm.destroy_guest(guest)
            while received < expected:
                assert bob.wait(10)
                for got in receive_all(bob):
                    if got[6:12] == mac(alice):
                        assert got == frame(mac(bob), mac(alice), received)
                        received += 1
                    else:
                        assert len(got) == 1400
            machine.wire.get()
        assert machine.vmm.faults == []
        assert bob.context.stats()["rx_drop_no_buffer"] == 0


def test_revoking_twice_and_revoking_a_stopped_context():
    scene = Scene("validated")
    scene.mallory.context.guest.vmm.nic.page_view(2)[4:8] = 0xFF  # a receive producer beyond the ring
    scene.mallory.enable_interrupts()
    scene.mallory.context.vmm.nic.page_view(2)[96] |= 2
    scene.run()
    assert scene.mallory.context.state == ContextState.CONTEXT_FAULTED
    revoke(scene)
    revoke(scene)
    assert not scene.pins().any()
    [report] = scene.machine.vmm.faults  # it is reported although it was taken away at once
    assert report.guest == "mallory"
    destroy(scene)
    scene.run()
    scene.check_neighbours()
    scene.machine.close()
