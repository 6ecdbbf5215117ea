"""Every reason for which the NIC stops a context: provoked by a guest, reported, and nobody else's loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

from cdna import abi
from cdna.abi import ContextState, DescFlag, Fault, Refusal
from cdna.guests.hostile import EOP, PRODUCER, RX, TX, Hostile
from cdna.machine import Machine
from tests.support.frames import Neighbours, frame, mac

OFFLOAD = DescFlag.DESC_F_OFFLOAD
MEMORY = 4 << 20
BEYOND = MEMORY // abi.PAGE_BYTES  # the first page number outside memory

# What a report says: ring, index, expected, found. Expected is 0 where only what was found matters.
Report = tuple[abi.Ring, int, int, int]


@dataclass
class Case:
    name: str
    protection: str
    fault: Fault
    provoke: Callable[[Hostile, Neighbours], Report]
    settings: dict[str, object]

    def __str__(self) -> str:
        return f"{self.name}-{self.protection}"


CASES: list[Case] = []


def provokes(fault: Fault, *protections: str, **settings: object):
    def register(provoke: Callable[[Hostile, Neighbours], Report]):
        for protection in protections:
            CASES.append(Case(provoke.__name__, protection, fault, provoke, settings))
        return provoke

    return register


def address(hostile: Hostile, page: int = 0, offset: int = 0) -> int:
    """What a descriptor says for a byte of the guest: I/O addresses count from its first byte."""
    if hostile.context.settings.protection.startswith("iommu"):
        return page * abi.PAGE_BYTES + offset
    return hostile.maddr(page, offset)


def send_to(hostile: Hostile, neighbours: Neighbours, n: int = 1) -> None:
    """A neighbour sends frames to the hostile guest, which needs its receive buffers now."""
    alice = neighbours.alice
    assert alice.send([frame(hostile.mac, mac(alice), i, 200) for i in range(n)]) == n


@provokes(Fault.FAULT_SEQUENCE, "validated")
def a_descriptor_that_was_never_enqueued(hostile: Hostile, neighbours: Neighbours) -> Report:
    hostile.post(TX, [(hostile.maddr(), 60, EOP)] * 2)
    hostile.ring_doorbell(PRODUCER[TX], 3)
    return TX, 2, 3, 0


@provokes(Fault.FAULT_SEQUENCE, "validated", seq_modulus=16)
def a_descriptor_from_the_last_time_around(hostile: Hostile, neighbours: Neighbours) -> Report:
    """The ring is twice around, the numbers once: what lies in the slot is a ring's length too old."""
    for _ in range(2):
        assert hostile.post(TX, [(hostile.maddr(), 60, EOP)] * 8) == 8
        hostile.machine.step(2)
    hostile.ring_doorbell(PRODUCER[TX], 17)
    return TX, 16, 1, 9


@provokes(Fault.FAULT_SEQUENCE, "validated")
def the_middle_of_a_frame_never_enqueued(hostile: Hostile, neighbours: Neighbours) -> Report:
    hostile.post(TX, [(hostile.maddr(), 60, 0)] * 2)
    hostile.ring_doorbell(PRODUCER[TX], 4)
    return TX, 2, 3, 0


@provokes(Fault.FAULT_SEQUENCE, "validated")
def a_receive_buffer_that_was_never_enqueued(hostile: Hostile, neighbours: Neighbours) -> Report:
    hostile.post(RX, [(hostile.maddr(), 2048, 0)])
    hostile.ring_doorbell(PRODUCER[RX], 2)
    send_to(hostile, neighbours, 2)
    return RX, 1, 2, 0


@provokes(Fault.FAULT_PRODUCER, "validated", "iommu:direct-map", "none")
def a_producer_beyond_the_ring(hostile: Hostile, neighbours: Neighbours) -> Report:
    hostile.ring_doorbell(PRODUCER[TX], 9)
    return TX, 9, 8, 9


@provokes(Fault.FAULT_PRODUCER, "validated", "iommu:direct-map", "none")
def a_receive_producer_far_beyond_the_ring(hostile: Hostile, neighbours: Neighbours) -> Report:
    hostile.ring_doorbell(PRODUCER[RX], 0x80000000)
    return RX, 0x80000000, 8, 0x80000000


@provokes(Fault.FAULT_PRODUCER, "validated", "none")
def a_producer_that_goes_back(hostile: Hostile, neighbours: Neighbours) -> Report:
    hostile.post(RX, [(hostile.maddr(), 2048, 0)] * 4)
    hostile.machine.step()
    hostile.ring_doorbell(PRODUCER[RX], 3)
    return RX, 3, 8, 3


@provokes(Fault.FAULT_LENGTH, "validated", "iommu:direct-map", "none")
def a_frame_shorter_than_its_header(hostile: Hostile, neighbours: Neighbours) -> Report:
    hostile.post(TX, [(address(hostile), 14, EOP), (address(hostile), 13, EOP)])
    return TX, 1, 0, 13


@provokes(Fault.FAULT_LENGTH, "validated", "iommu:direct-map", "none")
def a_frame_longer_than_any(hostile: Hostile, neighbours: Neighbours) -> Report:
    hostile.post(TX, [(address(hostile), 9019, EOP)])
    return TX, 0, 0, 9019


@provokes(Fault.FAULT_LENGTH, "validated", "iommu:direct-map", "none")
def parts_longer_than_any_frame(hostile: Hostile, neighbours: Neighbours) -> Report:
    hostile.post(TX, [(address(hostile), 9018, 0), (address(hostile), 1, EOP)])
    return TX, 1, 0, 1


@provokes(Fault.FAULT_LENGTH, "validated", "iommu:direct-map", "none")
def parts_shorter_than_a_header(hostile: Hostile, neighbours: Neighbours) -> Report:
    hostile.post(TX, [(address(hostile), 6, 0), (address(hostile), 7, EOP)])
    return TX, 1, 0, 7


@provokes(Fault.FAULT_LENGTH, "iommu:direct-map", "none")
def a_part_of_no_length(hostile: Hostile, neighbours: Neighbours) -> Report:
    hostile.post(TX, [(address(hostile), 60, 0), (address(hostile), 0, EOP)])
    return TX, 1, 0, 0


@provokes(Fault.FAULT_LENGTH, "iommu:direct-map", "none")
def a_receive_buffer_of_no_length(hostile: Hostile, neighbours: Neighbours) -> Report:
    hostile.post(RX, [(address(hostile), 100, 0), (address(hostile), 0, 0)])
    send_to(hostile, neighbours)  # 200 bytes: into both
    return RX, 1, 0, 0


@provokes(Fault.FAULT_FLAGS, "iommu:direct-map", "none")
def unknown_flags(hostile: Hostile, neighbours: Neighbours) -> Report:
    hostile.post(TX, [(address(hostile), 60, EOP | 0x100)])
    return TX, 0, 0, EOP | 0x100


@provokes(Fault.FAULT_FLAGS, "validated", "iommu:direct-map", "none")
def an_offload_descriptor_within_a_frame(hostile: Hostile, neighbours: Neighbours) -> Report:
    hostile.post(TX, [(address(hostile), 60, 0), (0, 0, OFFLOAD), (address(hostile), 60, EOP)])
    return TX, 1, 0, OFFLOAD


@provokes(Fault.FAULT_FLAGS, "iommu:direct-map", "none")
def an_offload_descriptor_for_receiving(hostile: Hostile, neighbours: Neighbours) -> Report:
    hostile.post(RX, [(address(hostile), 2048, OFFLOAD)])
    send_to(hostile, neighbours)
    return RX, 0, 0, OFFLOAD


@provokes(Fault.FAULT_FRAGMENTS, "validated", "iommu:direct-map", "none")
def a_ring_full_of_one_frame(hostile: Hostile, neighbours: Neighbours) -> Report:
    hostile.post(TX, [(address(hostile), 60, 0)] * 8)
    return TX, 8, 0, 8


@provokes(Fault.FAULT_FRAGMENTS, "validated", "iommu:direct-map", "none", tx_ring=64)
def a_frame_of_too_many_parts(hostile: Hostile, neighbours: Neighbours) -> Report:
    hostile.post(TX, [(address(hostile), 60, 0)] * 32 + [(address(hostile), 60, EOP)])
    return TX, 32, 0, 32


@provokes(Fault.FAULT_OFFLOAD, "validated", "iommu:direct-map", "none")
def a_checksum_outside_the_frame(hostile: Hostile, neighbours: Neighbours) -> Report:
    fields = np.array([(200, 6, 0, 0)], abi.OFFLOAD_DTYPE).view(np.uint64)[0]
    hostile.post(TX, [(int(fields), 0, OFFLOAD), (address(hostile), 60, EOP)])
    return TX, 0, 0, 200


@provokes(Fault.FAULT_OFFLOAD, "validated", "iommu:direct-map", "none")
def segments_of_one_byte(hostile: Hostile, neighbours: Neighbours) -> Report:
    fields = np.array([(34, 16, 1, 54)], abi.OFFLOAD_DTYPE).view(np.uint64)[0]
    hostile.post(TX, [(int(fields), 0, OFFLOAD), (address(hostile), 2000, EOP)])
    return TX, 0, 0, 1


@provokes(Fault.FAULT_ADDRESS, "none")
def an_address_outside_memory(hostile: Hostile, neighbours: Neighbours) -> Report:
    hostile.post(TX, [(MEMORY - 59, 60, EOP)])
    return TX, 0, 0, BEYOND - 1


@provokes(Fault.FAULT_ADDRESS, "none")
def a_part_outside_memory(hostile: Hostile, neighbours: Neighbours) -> Report:
    hostile.post(TX, [(hostile.maddr(), 60, 0), (MEMORY, 1, EOP)])
    return TX, 1, 0, BEYOND


@provokes(Fault.FAULT_ADDRESS, "none")
def an_address_whose_end_wraps(hostile: Hostile, neighbours: Neighbours) -> Report:
    hostile.post(TX, [(2**64 - 16, 60, EOP)])
    return TX, 0, 0, 0xFFFFFFFF


@provokes(Fault.FAULT_ADDRESS, "none")
def a_receive_buffer_outside_memory(hostile: Hostile, neighbours: Neighbours) -> Report:
    hostile.post(RX, [(MEMORY + abi.PAGE_BYTES, 2048, 0)])
    send_to(hostile, neighbours)
    return RX, 0, 0, BEYOND + 1


@provokes(Fault.FAULT_TRANSLATION, "iommu:persistent")
def an_io_page_that_is_not_mapped(hostile: Hostile, neighbours: Neighbours) -> Report:
    hostile.post(TX, [(5 * abi.PAGE_BYTES, 60, EOP)])
    return TX, 0, 0, 5


@provokes(Fault.FAULT_TRANSLATION, "iommu:direct-map")
def a_machine_address_for_an_io_address(hostile: Hostile, neighbours: Neighbours) -> Report:
    victim = neighbours.bob.context.guest.maddr + (1 << 30)
    hostile.post(TX, [(victim, 60, EOP)])
    return TX, 0, 0, victim // abi.PAGE_BYTES


@provokes(Fault.FAULT_TRANSLATION, "iommu:persistent")
def a_buffer_whose_second_page_is_not_mapped(hostile: Hostile, neighbours: Neighbours) -> Report:
    assert hostile.iommu_map([3], [hostile.guest.first_page]) == 1
    hostile.post(TX, [(4 * abi.PAGE_BYTES - 30, 60, EOP)])
    return TX, 0, 0, 3


@provokes(Fault.FAULT_TRANSLATION, "iommu:persistent")
def a_receive_buffer_that_is_not_mapped(hostile: Hostile, neighbours: Neighbours) -> Report:
    assert hostile.iommu_map([3], [hostile.guest.first_page]) == 1
    hostile.post(RX, [(3 * abi.PAGE_BYTES, 2048, 0), (7 * abi.PAGE_BYTES, 2048, 0)])
    send_to(hostile, neighbours, 2)
    return RX, 1, 0, 7


def test_every_reason_is_provoked():
    """Those of virtio guests are provoked in tests/vmm/vhost_user/test_faults.py."""
    virtio = {fault for fault in Fault if fault >= Fault.FAULT_AVAIL}
    assert {case.fault for case in CASES} == set(Fault) - virtio - {Fault.FAULT_NONE}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_offender_stops_with_a_reason_and_nobody_else_loses_a_frame(case: Case, caplog):
    machine = Machine(MEMORY, wire="loopback", contexts=8)
    neighbours = Neighbours(machine)
    hostile = Hostile(machine, protection=case.protection, anti_spoof=False, **case.settings)
    neighbours.check()
    ring, index, expected, found = case.provoke(hostile, neighbours)
    machine.step(3)

    assert hostile.context.state == ContextState.CONTEXT_FAULTED
    [report] = machine.vmm.collect_faults() or machine.vmm.faults
    assert (report.guest, report.domain, report.context) == ("mallory", hostile.guest.domain, 2)
    assert (report.reason, report.ring) == (case.fault, ring)
    assert (report.index, report.expected, report.found) == (index, expected, found)
    words = [
        f"guest 'mallory', context 2: {case.fault.name} in {ring.name} at index {index}",
        f"found {found}",
    ]
    assert all(text in str(report) for text in words)
    assert str(report) in caplog.text
    assert (hostile.page["state"][0], hostile.page["fault"][0]) == (ContextState.CONTEXT_FAULTED, case.fault)
    assert hostile.context.fault is report

    neighbours.check()
    for driver in (neighbours.alice, neighbours.bob):
        stats = driver.context.stats()
        assert driver.context.state == ContextState.CONTEXT_RUNNING
        assert stats["faults"] == stats["rx_drop_no_buffer"] == 0
    assert machine.nic.counters["faults"] == 1
    assert machine.vmm.faults == [report]

    # Stopped is stopped: no doorbell wakes it, no hypercall serves it, frames for it are counted.
    before = hostile.context.stats()
    hostile.ring_doorbell(PRODUCER[TX], 1)
    hostile.ring_doorbell(PRODUCER[RX], 1)
    send_to(hostile, neighbours)
    machine.step(3)
    after = hostile.context.stats()
    assert after["rx_drop_stopped"] == before["rx_drop_stopped"] + 1
    assert {**after, "rx_drop_stopped": 0} == {**before, "rx_drop_stopped": 0}
    assert hostile.enqueue(TX, [(hostile.maddr(), 60, EOP)]) == Refusal.REFUSED_CONTEXT
    assert machine.vmm.collect_faults() == []

    machine.vmm.destroy_guest(hostile.guest)
    assert (machine.memory.owners() != hostile.guest.domain).all()
    neighbours.check()
    again = Hostile(machine, protection=case.protection)
    assert again.context.index == 2
    assert again.context.fault is None
    neighbours.check()
    machine.close()


def test_a_guest_that_stops_itself_by_its_own_frame_is_stopped_once():
    machine = Machine(MEMORY, contexts=4)
    hostile = Hostile(machine, protection="none")
    hostile.write(frame(hostile.mac, hostile.mac))
    hostile.post(RX, [(MEMORY, 2048, 0)])
    hostile.post(TX, [(hostile.maddr(), 60, EOP)] * 4)
    machine.step(3)
    [report] = machine.vmm.collect_faults() or machine.vmm.faults
    assert (report.reason, report.ring) == (Fault.FAULT_ADDRESS, RX)
    stats = hostile.context.stats()
    assert (stats["faults"], stats["tx_frames"], stats["rx_drop_stopped"]) == (1, 1, 0)
    machine.close()
