"""Interrupts: bit vectors never overwritten, moderation, masks, and virtual interrupts for the guests."""

from __future__ import annotations

import os
import select

import pytest

from cdna.abi import ContextState
from cdna.errors import ConfigError, ContextFault
from cdna.guests.driver import Driver
from cdna.guests.hostile import PRODUCER, TX, Hostile
from cdna.machine import Machine
from cdna.nic.device import VECTORS
from cdna.nic.queue_wire import QueueWire
from tests.support.frames import OUTSIDE, frame, mac, receive_all

NEVER = 4e9  # microseconds: more than an hour


def build(frames: int = 1, contexts: int = 4) -> tuple[Machine, QueueWire]:
    wire = QueueWire(1024)
    machine = Machine(8 << 20, wire=wire, contexts=contexts, interrupt_frames=frames, interrupt_us=NEVER)
    return machine, wire


def events(*drivers: Driver) -> list[int]:
    return [driver.context.vmm.tables.events(driver.context.index) for driver in drivers]


def arrive(wire: QueueWire, driver: Driver, n: int = 1) -> None:
    assert wire.put([frame(mac(driver), OUTSIDE, i) for i in range(n)]) == n


def test_a_guest_that_asks_gets_one_and_the_others_none():
    machine, wire = build()
    a, b = machine.attach("a"), machine.attach("b")
    a.enable_interrupts()
    arrive(wire, a)
    arrive(wire, b)
    machine.step()
    assert events(a, b) == [1, 0]
    assert os.eventfd_read(a.context.event_fd) == 1
    assert not select.select([b.context.event_fd], [], [], 0)[0]
    assert a.context.stats()["interrupts"] == 1
    assert machine.nic.counters["interrupts"] == 1
    machine.close()


def test_what_was_masked_is_reported_when_the_guest_asks():
    machine, wire = build()
    a = machine.attach("a")
    arrive(wire, a)
    machine.step(5)
    assert events(a) == [0]
    a.enable_interrupts()
    machine.step()
    assert events(a) == [1]
    machine.step(5)
    assert events(a) == [1]  # once
    a.enable_interrupts(False)
    machine.step()
    arrive(wire, a)
    machine.step(5)
    assert events(a) == [1]
    machine.close()


def test_one_vector_reports_all_contexts_of_a_round():
    machine, wire = build(contexts=100)
    drivers = [machine.attach(f"guest{i}", tx_ring=8, rx_ring=8, buffer_size=64) for i in range(100)]
    for driver in drivers[::3]:
        driver.enable_interrupts()
    for driver in drivers:
        arrive(wire, driver)
    machine.nic.poll(10)
    assert machine.nic.counters["interrupts"] <= 10
    machine.vmm.handle_interrupts()
    assert events(*drivers) == [1 if i % 3 == 0 else 0 for i in range(100)]
    machine.close()


@pytest.mark.parametrize("frames", [1, 4, 16])
def test_moderation_reports_after_so_many_descriptors(frames):
    machine, wire = build(frames)
    a = machine.attach("a")
    a.enable_interrupts()
    for i in range(1, 65):
        arrive(wire, a)
        machine.step()
        assert events(a) == [i // frames]
        receive_all(a)
    machine.close()


def test_moderation_counts_what_is_sent_too():
    machine, wire = build(4)
    a = machine.attach("a")
    a.enable_interrupts()
    for _ in range(2):
        arrive(wire, a)
        a.send([frame(OUTSIDE, mac(a))])
        machine.step()
    assert events(a) == [1]
    machine.close()


def test_moderation_by_time_alone_reports_at_once_where_it_is_zero():
    wire = QueueWire(64)
    machine = Machine(4 << 20, wire=wire, contexts=2, interrupt_frames=1000, interrupt_us=0)
    a = machine.attach("a")
    a.enable_interrupts()
    arrive(wire, a)
    while events(a) == [0]:
        machine.step()
    assert events(a) == [1]
    machine.close()


def test_one_busy_guest_does_not_hold_up_another_ones_interrupt():
    machine, wire = build(1000)
    a, b = machine.attach("a", coalesce=(1, NEVER)), machine.attach("b")
    a.enable_interrupts()
    b.enable_interrupts()
    for i in range(1, 10):
        arrive(wire, a)
        arrive(wire, b, 3)
        machine.step()
        assert events(a, b) == [i, 0]
        receive_all(b)
        receive_all(a)
    machine.close()


@pytest.mark.parametrize(
    "moderation", [(0, 1), (1, -1), (1, 1 << 32), (32769, 0), (1, 2, 3), 5, "often", ("a", 1)]
)
def test_moderation_that_cannot_be(moderation):
    machine, _ = build()
    with pytest.raises(
        ConfigError, match=r"^interrupt moderation .*: give descriptors from 1 to 32768, and micro"
    ):
        machine.attach("a", coalesce=moderation)
    assert machine.vmm.guests == machine.vmm.contexts == {}
    machine.close()


def test_a_vector_is_never_overwritten_before_it_is_read():
    """The VMM does not read and the buffer fills; what comes then is reported when there is room."""
    machine, wire = build()
    a, b = machine.attach("a", rx_ring=1024), machine.attach("b")
    a.enable_interrupts()
    b.enable_interrupts()
    arrive(wire, b)
    machine.nic.poll()  # B is in the first vector only
    for _ in range(VECTORS - 1 + 50):
        arrive(wire, a)
        machine.nic.poll()
        a.recv()
    assert machine.nic.counters["interrupts"] == VECTORS
    arrive(wire, b)
    machine.nic.poll()
    assert machine.nic.counters["interrupts"] == VECTORS
    assert machine.vmm.handle_interrupts() == VECTORS
    assert events(a, b) == [VECTORS - 1, 1]
    machine.nic.poll()
    assert machine.vmm.handle_interrupts() == 1
    assert events(a, b) == [VECTORS, 2]
    # Many times around the buffer, read in strides.
    for i in range(3 * VECTORS):
        arrive(wire, a)
        machine.nic.poll()
        a.recv()
        if i % 100 == 99:
            machine.vmm.handle_interrupts()
    machine.vmm.handle_interrupts()
    assert events(a, b) == [VECTORS + 3 * VECTORS, 2]
    assert machine.vmm.tables.counters["vectors"] == 4 * VECTORS + 1
    machine.close()


def test_a_fault_interrupts_the_vmm_whatever_the_guest_masked():
    machine, _ = build(1000)
    mallory = Hostile(machine)
    mallory.ring_doorbell(PRODUCER[TX], 99)
    machine.step()
    assert [report.guest for report in machine.vmm.faults] == ["mallory"]
    machine.close()


def test_a_context_that_was_revoked_is_reported_to_nobody():
    machine, wire = build()
    a, b = machine.attach("a"), machine.attach("b")
    a.enable_interrupts()
    arrive(wire, a)
    machine.nic.poll()  # in a vector that the VMM has not read
    machine.vmm.revoke(a.context)
    assert machine.vmm.handle_interrupts() == 1
    assert events(b) == [0]
    c = machine.attach("c")
    machine.step(3)
    assert events(c) == [0]  # no interrupts were enabled by the context's next owner
    machine.close()


# --- sleeping guests ----------------------------------------------------------------------------------------


def test_a_guest_sleeps_until_a_frame_arrives():
    wire = QueueWire(1024)
    with Machine(4 << 20, wire=wire) as machine:
        a = machine.attach("a")
        for i in range(50):
            data = frame(mac(a), OUTSIDE, i)
            assert wire.put([data]) == 1
            assert a.wait(10)
            assert a.recv() == [data]
        assert not a.wait(0)


def test_a_guest_that_sleeps_hears_of_its_fault():
    with Machine(4 << 20) as machine:
        a = machine.attach("a")
        page = machine.nic.page_view(a.context.index)
        page[4:8] = 0xFF  # a receive producer beyond the ring
        page[96] |= 2
        with pytest.raises(ContextFault, match="context 0: FAULT_PRODUCER in RING_RX") as fault:
            a.wait(10)
        assert fault.value.report is a.context.fault
        assert a.context.state == ContextState.CONTEXT_FAULTED
        with pytest.raises(
            ContextFault, match="the context is stopped: guest 'a', context 0: FAULT_PRODUCER"
        ):
            a.send([frame(OUTSIDE, mac(a))])


def test_waiting_on_a_context_that_was_revoked():
    with Machine(4 << 20) as machine:
        a = machine.attach("a")
        machine.vmm.revoke(a.context)
        with pytest.raises(ConfigError, match="context 0 was revoked: assign it again"):
            a.wait(10)
