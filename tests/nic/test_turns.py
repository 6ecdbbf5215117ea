"""Turns: contexts that compete share by weight; nobody starves; rates are limited; a full wire waits."""

from __future__ import annotations

import pytest

from cdna.guests.driver import Driver
from cdna.machine import Machine
from cdna.nic.queue_wire import QueueWire
from tests.support.frames import OUTSIDE, frame, mac, receive_all

QUANTUM = 16384  # bytes of one turn at weight 1
BUDGET = 64


def fill(driver: Driver, size: int, to: bytes = OUTSIDE) -> None:
    """Keeps a context backlogged: as many frames as there is room for."""
    data = frame(to, mac(driver), size=size)
    while driver.send([data] * 64) == 64:
        pass


@pytest.mark.parametrize("size", [64, 128, 256, 512, 1024, 1514, 4096, 9000])
@pytest.mark.parametrize("guests", [2, 3, 5])
def test_contexts_that_are_always_backlogged_get_equal_shares(size, guests):
    wire = QueueWire(1024)
    machine = Machine(32 << 20, wire=wire, contexts=8)
    drivers = [machine.attach(f"guest{i}", tx_ring=512, rx_ring=8, buffer_size=2048) for i in range(guests)]
    shares = [0] * guests
    rounds = 64 * guests
    for _ in range(rounds):
        for driver in drivers:
            fill(driver, size)
        machine.nic.poll(1, BUDGET)
        wire.get()
    shares = [driver.context.stats()["tx_bytes"] for driver in drivers]
    assert max(shares) - min(shares) <= QUANTUM + size
    assert min(shares) > 0
    machine.close()


@pytest.mark.parametrize(("weights", "size"), [((1, 3), 1514), ((1, 2, 5), 700), ((10, 1), 64)])
def test_shares_are_as_the_weights(weights, size):
    """On a wire that takes 16 frames a round, so that everybody waits."""
    wire = QueueWire(16)
    machine = Machine(32 << 20, wire=wire, contexts=4)
    drivers = [
        machine.attach(f"guest{i}", tx_ring=512, rx_ring=8, weight=weight) for i, weight in enumerate(weights)
    ]
    turn = sum(weights) * QUANTUM  # bytes in which everybody has had a turn
    while sum(driver.context.stats()["tx_bytes"] for driver in drivers) < 8 * turn:
        for driver in drivers:
            fill(driver, size)
        machine.nic.poll(1, BUDGET)
        wire.get()
    sent = [
        driver.context.stats()["tx_bytes"] / weight for driver, weight in zip(drivers, weights, strict=True)
    ]
    assert max(sent) - min(sent) <= QUANTUM + size
    machine.close()


def test_a_weight_changed_while_running():
    wire = QueueWire(16)
    machine = Machine(16 << 20, wire=wire, contexts=4)
    a, b = machine.attach("a", tx_ring=512), machine.attach("b", tx_ring=512)
    b.context.set(weight=4)
    for _ in range(400):
        fill(a, 1500)
        fill(b, 1500)
        machine.nic.poll(1, BUDGET)
        wire.get()
    ratio = b.context.stats()["tx_frames"] / a.context.stats()["tx_frames"]
    assert 3.5 < ratio < 4.5
    machine.close()


def test_a_full_wire_loses_nothing_and_holds_up_nobody_else():
    wire = QueueWire(8)
    machine = Machine(8 << 20, wire=wire, contexts=4)
    a, b, c = (machine.attach(name, tx_ring=256, rx_ring=256) for name in "abc")
    to_wire = [frame(OUTSIDE, mac(a), i, 1000) for i in range(200)]
    assert a.send(to_wire) == 200
    machine.step(5)
    assert wire.waiting == 8
    # A stands before the wire; B and C still write to each other, also through A's own turn.
    letters = [frame(mac(c), mac(b), i) for i in range(100)]
    assert b.send(letters) == 100
    machine.step(5)
    assert receive_all(c) == letters
    got: list[bytes] = []
    while len(got) < 200:
        got += wire.get(3)
        machine.step()
    assert got == to_wire
    assert a.context.stats()["tx_frames"] == 200
    assert machine.nic.counters["wire_tx_frames"] == 200
    machine.close()


def test_a_broadcast_waits_for_the_wire_before_anybody_gets_it():
    wire = QueueWire(1)
    machine = Machine(4 << 20, wire=wire, contexts=4)
    a, b = machine.attach("a", tx_ring=64, rx_ring=8), machine.attach("b", tx_ring=8, rx_ring=64)
    frames = [frame(b"\xff" * 6, mac(a), i) for i in range(60)]
    assert a.send(frames) == 60
    on_wire, local = [], []
    for _ in range(200):
        machine.step()
        local += receive_all(b)
        on_wire += wire.get()
    assert on_wire == local == frames  # each of them once
    machine.close()


def test_a_rate_limit_holds_a_context_back_and_nobody_else():
    wire = QueueWire(1024)
    machine = Machine(8 << 20, wire=wire, contexts=4)
    # 1000 bytes a second: the second frame is 9 seconds off.
    slow = machine.attach("slow", tx_ring=64, rate=8000)
    fast = machine.attach("fast", tx_ring=64)
    slow.send([frame(OUTSIDE, mac(slow), i, 9000) for i in range(10)])
    for i in range(100):
        fast.send([frame(OUTSIDE, mac(fast), i, 1000)])
        machine.step()
    assert slow.context.stats()["tx_frames"] == 1
    assert fast.context.stats()["tx_frames"] == 100
    slow.context.set(rate=0)
    machine.step(10)
    assert slow.context.stats()["tx_frames"] == 10
    sent = [f for f in wire.get() if f[6:12] == mac(slow)]
    assert sent == [frame(OUTSIDE, mac(slow), i, 9000) for i in range(10)]
    machine.close()


def test_a_rate_limit_counts_local_frames_too():
    machine = Machine(8 << 20, contexts=4)
    slow, peer = machine.attach("slow", tx_ring=64, rate=8000), machine.attach("peer")
    slow.send([frame(mac(peer), mac(slow), i, 9000) for i in range(5)])
    machine.step(50)
    assert peer.context.stats()["rx_frames"] == 1
    machine.close()
