"""The NIC as a whole: many contexts, the link, the engine's thread, what it counts, views without a copy."""

from __future__ import annotations

import os

import pytest

from cdna import abi
from cdna.abi import CompletionFlag, ContextState
from cdna.errors import ConfigError
from cdna.guests.hostile import EOP, TX, Hostile
from cdna.machine import Machine
from cdna.memory import Memory
from cdna.nic.device import Nic
from cdna.nic.null_wire import NullWire
from cdna.nic.queue_wire import QueueWire
from tests.support.frames import OUTSIDE, frame, mac


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"contexts": 0}, "0 contexts: give from 1 to 4096"),
        ({"contexts": 4097}, "4097 contexts"),
        ({"max_ring": 100}, "max_ring of 100 descriptors: give a power of two from 8 to 32768"),
        ({"max_ring": 65536}, "max_ring of 65536"),
        ({"interrupt_frames": 0}, "interrupt"),
        ({"interrupt_us": -1}, "interrupt"),
    ],
)
def test_a_nic_that_cannot_be(settings, message):
    with pytest.raises(ConfigError, match=message):
        Nic(Memory(4096), NullWire(), **settings)


def test_a_context_number_that_the_nic_has_not():
    nic = Nic(Memory(4096), NullWire(), 4)
    for call in (nic.info, nic.stats, nic.page_view, nic.rings_view, nic.start, nic.halt, nic.release):
        with pytest.raises(ConfigError, match="context 4: this NIC has contexts 0 to 3"):
            call(4)


def test_a_thousand_and_twenty_four_contexts():
    """Everybody sends to the next one, and to the wire; everybody gets from the wire."""
    n = 1024
    wire = QueueWire(2048)
    machine = Machine(64 << 20, wire=wire, contexts=n, max_ring=8)
    drivers = [machine.attach(f"guest{i}", tx_ring=8, rx_ring=8, buffer_size=128) for i in range(n)]
    assert [driver.context.index for driver in drivers] == list(range(n))
    addresses = [mac(driver) for driver in drivers]
    assert len(set(addresses)) == n
    for i, driver in enumerate(drivers):
        after = addresses[(i + 1) % n]
        assert driver.send([frame(after, addresses[i], i), frame(OUTSIDE, addresses[i], i)]) == 2
    assert wire.put([frame(address, OUTSIDE, i) for i, address in enumerate(addresses)]) == n
    assert machine.step(100) == 3 * n
    for i, driver in enumerate(drivers):
        before = (i - 1) % n
        assert sorted(driver.recv()) == sorted(
            [frame(addresses[i], addresses[before], before), frame(addresses[i], OUTSIDE, i)]
        )
    on_wire = {f[6:12]: f for f in wire.get(2048)}
    assert on_wire == {address: frame(OUTSIDE, address, i) for i, address in enumerate(addresses)}
    assert machine.nic.counters["faults"] == 0
    machine.vmm.revoke(drivers[700].context)
    drivers[699].send([frame(addresses[700], addresses[699])])
    machine.step(2)
    assert len(wire.get()) == 1
    machine.close()


def test_contexts_in_other_processes_are_all_looked_at():
    """The NIC looks at the pages of such guests a few at a time; none is forgotten."""

    wire = QueueWire(1024)
    machine = Machine(64 << 20, wire=wire, contexts=300, max_ring=8)
    guests = [Hostile(machine, f"guest{i}", pages=1) for i in range(300)]
    for i, guest in enumerate(guests):
        guest.write(frame(OUTSIDE, guest.mac, i))
        assert guest.post(TX, [(guest.maddr(), 60, EOP)]) == 1
    machine.step(20)
    assert {f[6:12] for f in wire.get()} == {guest.mac for guest in guests}
    machine.close()


def test_what_the_nic_counts():
    wire = QueueWire(64)
    machine = Machine(4 << 20, wire=wire, contexts=4)
    a, b = machine.attach("a"), machine.attach("b")
    a.send([frame(mac(b), mac(a), size=100)] * 3 + [frame(OUTSIDE, mac(a), size=200)] * 2)
    wire.put([frame(mac(a), OUTSIDE, size=300)])
    machine.step(2)
    expected = dict.fromkeys(a.context.stats(), 0)
    assert a.context.stats() == expected | {
        "tx_frames": 5,
        "tx_bytes": 700,
        "tx_local": 3,
        "rx_frames": 1,
        "rx_bytes": 300,
        "doorbells": a.context.stats()["doorbells"],
    }
    assert b.context.stats() == expected | {"rx_frames": 3, "rx_bytes": 300, "doorbells": 1}
    counters = machine.nic.counters
    assert counters["frames"] == 6
    assert (counters["wire_tx_frames"], counters["wire_tx_bytes"]) == (2, 400)
    assert (counters["wire_rx_frames"], counters["wire_rx_bytes"]) == (1, 300)
    assert counters["rounds"] == 2
    machine.close()


# --- the link -----------------------------------------------------------------------------------------------


def test_while_the_link_is_down_frames_for_the_wire_are_dropped_and_counted():
    wire = QueueWire(64)
    machine = Machine(4 << 20, wire=wire, contexts=4)
    a, b = machine.attach("a"), machine.attach("b")
    assert a.link
    wire.link = False
    machine.step()
    assert not a.link
    assert not b.link
    letter = frame(mac(b), mac(a))
    assert a.send([frame(OUTSIDE, mac(a))] * 5 + [letter]) == 6
    machine.step(2)
    assert wire.get() == []
    assert b.recv() == [letter]  # guests reach each other all the same
    assert a.context.stats()["tx_drop_link"] == 5
    late = machine.attach("late")
    assert not late.link
    wire.link = True
    machine.step()
    assert a.link
    assert late.link
    data = frame(OUTSIDE, mac(a))
    a.send([data])
    machine.step()
    assert wire.get() == [data]
    assert a.context.stats()["tx_drop_link"] == 5
    machine.close()


# --- the engine's thread ------------------------------------------------------------------------------------


def test_the_engine_runs_in_a_thread_or_is_stepped_and_not_both():
    with Machine(1 << 20) as machine:
        assert machine.nic.running
        with pytest.raises(ConfigError, match="the NIC runs in its own thread: stop it before"):
            machine.nic.poll()
        with pytest.raises(ConfigError, match="the NIC runs already"):
            machine.nic.start_engine()
    assert not machine.nic.running
    assert machine.nic.poll() == 0


def test_the_engine_is_started_again_after_it_was_stopped():
    machine = Machine(1 << 20, wire="loopback")
    a, b = machine.attach("a", tx_ring=8, rx_ring=8), machine.attach("b", tx_ring=8, rx_ring=8)
    machine.vmm.start_interrupts()
    for i in range(5):
        machine.nic.start_engine()
        letter = frame(mac(b), mac(a), i)
        assert a.send([letter]) == 1
        assert b.wait(10)
        assert b.recv() == [letter]
        machine.nic.stop_engine()
        machine.nic.stop_engine()
    machine.close()


@pytest.mark.parametrize("cpu", [-1, 100000, "first"])
def test_a_core_that_there_is_not(cpu):
    machine = Machine(1 << 20)
    with pytest.raises(ConfigError, match=f"core {cpu!r} for the NIC: give one of "):
        machine.start(cpu=cpu)
    assert not machine.nic.running
    machine.start(cpu=min(os.sched_getaffinity(0)))
    machine.close()


def test_settings_change_while_the_engine_runs():
    with Machine(4 << 20, wire="loopback") as machine:
        a, b = machine.attach("a"), machine.attach("b")
        for i in range(50):
            b.context.set(mac=f"02:00:00:00:01:{i:02x}", promiscuous=bool(i % 2))
            letter = frame(mac(b), mac(a), i)
            assert a.send([letter]) == 1
            assert b.wait(10)
            assert b.recv() == [letter]
            c = machine.attach("c", tx_ring=8, rx_ring=8)
            machine.vmm.destroy_guest(c.context.guest)


# --- context pages ------------------------------------------------------------------------------------------


def test_page_and_rings_as_a_guest_maps_them():
    machine = Machine(4 << 20, wire="loopback", contexts=2, max_ring=16)
    a, b = machine.attach("a", tx_ring=8, rx_ring=16), machine.attach("b", tx_ring=8, rx_ring=8)
    page = machine.nic.page_view(0).view(abi.CONTEXT_PAGE_DTYPE)[0]
    rings = machine.nic.rings_view(0)
    assert (page["state"], page["link"]) == (ContextState.CONTEXT_RUNNING, 1)
    assert page["mailbox"].tolist()[:3] == [0, 16, 0]
    a.send([frame(mac(b), mac(a))] * 3)
    b.send([frame(mac(a), mac(b), size=80)])
    machine.step()
    assert (page["tx_consumer"], page["rx_consumer"], page["doorbell"]) == (3, 1, 0)
    tx = rings[: 16 * 16].view(abi.DESC_DTYPE)
    assert tx["len"].tolist() == [60] * 3 + [0] * 13
    assert tx["seq"].tolist() == [1, 2, 3] + [0] * 13
    assert rings[16 * 16 : 32 * 16].view(abi.DESC_DTYPE)["len"].tolist() == [2048] * 16
    done = rings[32 * 16 : 32 * 16 + 16 * 8].view(abi.COMPLETION_DTYPE)
    assert done[0].tolist() == (80, CompletionFlag.COMPLETION_F_EOP, 0, 0)
    machine.close()


def test_a_guest_that_overwrites_what_the_nic_wrote_deceives_itself_only():
    machine = Machine(4 << 20, wire="loopback", contexts=2)
    a, b = machine.attach("a"), machine.attach("b")
    machine.nic.page_view(0)[128:4096] = 0xFF
    letters = [frame(mac(a), mac(b), i) for i in range(5)]
    b.send(letters)
    machine.step(2)
    assert a.context.stats()["rx_frames"] == 5
    assert a.context.state == ContextState.CONTEXT_RUNNING
    assert machine.nic.info(0)["rx"]["consumer"] == 5
    assert b.context.stats()["tx_frames"] == 5
    machine.close()
