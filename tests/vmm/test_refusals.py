"""Every reason for which the VMM refuses a hypercall, and that a refusal leaves nothing behind."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from cdna import abi
from cdna.abi import DescFlag, Refusal
from cdna.errors import Refused
from cdna.guests.hostile import EOP, RX, TX, Desc, Hostile
from cdna.machine import Machine
from tests.support.frames import Neighbours, frame, mac

MEMORY = 4 << 20
LAST = MEMORY // abi.PAGE_BYTES - 1


@pytest.fixture
def machine():
    machine = Machine(MEMORY, wire="loopback", contexts=8)
    yield machine
    machine.close()
    assert not machine.memory.pins().any()


@pytest.fixture
def neighbours(machine: Machine) -> Neighbours:
    return Neighbours(machine)


@pytest.fixture
def mallory(machine: Machine, neighbours: Neighbours) -> Hostile:
    return Hostile(machine, pages=8)


def pins_of(hostile: Hostile) -> list[int]:
    guest = hostile.guest
    return hostile.machine.memory.pins()[guest.first_page : guest.first_page + guest.pages].tolist()


Request = Callable[[Hostile, Neighbours], tuple[Desc, int]]  # a bad request, and the page to blame


BAD: dict[str, tuple[Refusal, Request]] = {
    "a neighbour's page": (
        Refusal.REFUSED_OWNER,
        lambda m, n: ((n.bob.context.guest.maddr, 60, EOP), n.bob.context.guest.first_page),
    ),
    "the page before its own": (
        Refusal.REFUSED_OWNER,
        lambda m, n: ((m.maddr() - 1, 60, EOP), m.guest.first_page - 1),
    ),
    "the page behind its own": (
        Refusal.REFUSED_OWNER,
        lambda m, n: ((m.maddr(8) - 1, 2, EOP), m.guest.first_page + 8),
    ),
    "free memory": (Refusal.REFUSED_OWNER, lambda m, n: ((MEMORY - 60, 60, EOP), LAST)),
    "the end of memory": (Refusal.REFUSED_ADDRESS, lambda m, n: ((MEMORY - 59, 60, EOP), LAST)),
    "outside memory": (Refusal.REFUSED_ADDRESS, lambda m, n: ((MEMORY, 1, EOP), LAST + 1)),
    "an end that wraps": (Refusal.REFUSED_ADDRESS, lambda m, n: ((2**64 - 1, 60, EOP), 0xFFFFFFFF)),
    "no length": (Refusal.REFUSED_LENGTH, lambda m, n: ((m.maddr(), 0, EOP), 0)),
    "unknown flags": (Refusal.REFUSED_FLAGS, lambda m, n: ((m.maddr(), 60, 0x8000), 0)),
    "an offload that is also an end": (
        Refusal.REFUSED_FLAGS,
        lambda m, n: ((m.maddr(), 60, EOP | DescFlag.DESC_F_OFFLOAD), 0),
    ),
}


@pytest.mark.parametrize("good", [0, 1, 3])
@pytest.mark.parametrize("ring", [TX, RX])
@pytest.mark.parametrize("what", BAD)
def test_a_bad_request_is_refused_and_what_stood_before_it_is_taken(mallory, neighbours, what, ring, good):
    reason, request = BAD[what]
    bad, page = request(mallory, neighbours)
    status = mallory.enqueue(ring, [(mallory.maddr(1), 60, EOP)] * good + [bad, (mallory.maddr(2), 60, EOP)])
    assert status == (good or reason)
    tables = mallory.machine.vmm.tables
    assert tables.refused == (good, page)
    assert tables.counters["refusals"] == 1
    assert pins_of(mallory) == [0, good, 0, 0, 0, 0, 0, 0]
    numbers = mallory.ring(ring)["seq"].tolist()
    assert numbers == [i + 1 if i < good else 0 for i in range(8)]
    neighbours.check()


def test_an_offload_descriptor_is_refused_on_the_receive_ring(mallory):
    assert mallory.enqueue(RX, [(0, 0, DescFlag.DESC_F_OFFLOAD)]) == Refusal.REFUSED_FLAGS


@pytest.mark.parametrize("ring", [TX, RX])
def test_a_full_ring_takes_no_more_until_the_nic_has_consumed(mallory, ring):
    request = (mallory.maddr(), 60, EOP)
    assert mallory.enqueue(ring, [request] * 20) == 8
    assert mallory.machine.vmm.tables.refused == (8, 0)
    assert mallory.enqueue(ring, [request]) == Refusal.REFUSED_RING_FULL
    assert pins_of(mallory)[0] == 8


def test_a_context_of_another_no_context_and_a_ring_that_does_not_exist(mallory, neighbours):
    request = [(mallory.maddr(), 60, EOP)]
    bob = neighbours.bob.context
    for index in (bob.index, 7, 8, 0xFFFFFFFF):
        assert mallory.enqueue(TX, request, context=index) == Refusal.REFUSED_CONTEXT
    for ring in (2, 0xFFFFFFFF):
        assert mallory.enqueue(ring, request) == Refusal.REFUSED_CONTEXT
    # Of the VMM's own domain there are no contexts, also not the free ones.
    assert mallory.enqueue(TX, request, context=7, domain=0) == Refusal.REFUSED_CONTEXT
    assert bob.vmm.tables.counters["descriptors"] == 2 * 64  # the neighbours' receive buffers
    assert pins_of(mallory) == [0] * 8
    neighbours.check()


def test_no_hypercall_works_after_the_context_was_taken_away(machine, mallory):
    machine.vmm.revoke(mallory.context)
    assert mallory.enqueue(TX, [(mallory.maddr(), 60, EOP)]) == Refusal.REFUSED_CONTEXT
    assert mallory.iommu_map([0], [mallory.guest.first_page]) == Refusal.REFUSED_CONTEXT
    assert mallory.iommu_unmap([0]) == Refusal.REFUSED_CONTEXT


@pytest.mark.parametrize("protection", ["none", "iommu:persistent"])
def test_enqueue_belongs_to_the_validated_mode(machine, protection):
    mallory = Hostile(machine, protection=protection)
    assert mallory.enqueue(TX, [(mallory.maddr(), 60, EOP)]) == Refusal.REFUSED_MODE
    assert (mallory.ring(TX)["len"] == 0).all()


@pytest.mark.parametrize("protection", ["none", "validated"])
def test_mapping_belongs_to_the_iommu_mode(machine, protection):
    mallory = Hostile(machine, protection=protection)
    assert mallory.iommu_map([0], [mallory.guest.first_page]) == Refusal.REFUSED_MODE
    assert mallory.iommu_unmap([0]) == Refusal.REFUSED_MODE


def test_mapping_takes_only_pages_of_its_own_at_free_io_pages(machine, neighbours):
    mallory = Hostile(machine, protection="iommu:persistent", pages=8)
    own, tables = mallory.guest.first_page, machine.vmm.tables
    foreign = neighbours.bob.context.guest.first_page
    assert mallory.iommu_map([0, 1], [own, own]) == 2
    refusals = [
        (1000, own, Refusal.REFUSED_ADDRESS, own),
        (2, LAST + 1, Refusal.REFUSED_ADDRESS, LAST + 1),
        (2, 0xFFFFFFFF, Refusal.REFUSED_ADDRESS, 0xFFFFFFFF),
        (2, foreign, Refusal.REFUSED_OWNER, foreign),
        (1, own, Refusal.REFUSED_MAPPED, own),
    ]
    for io_page, page, reason, blamed in refusals:
        assert mallory.iommu_map([io_page], [page]) == reason
        assert tables.refused == (0, blamed)
    assert mallory.iommu_map([2, 3, 4], [own + 1, foreign, own + 2]) == 1  # what stands before it is mapped
    assert tables.refused == (1, foreign)
    assert pins_of(mallory) == [2, 1, 0, 0, 0, 0, 0, 0]
    assert mallory.iommu_unmap([4]) == Refusal.REFUSED_MAPPED
    assert mallory.iommu_unmap([100000]) == Refusal.REFUSED_MAPPED
    assert mallory.iommu_unmap([0, 4]) == 1
    assert mallory.iommu_unmap([0]) == Refusal.REFUSED_MAPPED
    neighbours.check()


def test_another_guests_io_table_is_out_of_reach(machine, neighbours):
    bob = Hostile(machine, "victim", protection="iommu:persistent")
    mallory = Hostile(machine, protection="iommu:persistent")
    assert mallory.iommu_map([0], [mallory.guest.first_page], context=bob.context.index) == -1
    assert bob.iommu_map([0], [bob.guest.first_page]) == 1
    assert mallory.iommu_unmap([0], context=bob.context.index) == Refusal.REFUSED_CONTEXT


def test_a_transfer_is_refused_as_a_whole(machine, mallory, neighbours):
    vmm, alice = machine.vmm, neighbours.alice.context.guest
    first = mallory.guest.first_page
    foreign = neighbours.bob.context.guest.first_page
    mallory.post(RX, [(mallory.maddr(2), 60, 0)])
    refusals = [
        (LAST + 1, Refusal.REFUSED_ADDRESS, f"page {LAST + 1} is outside the memory"),
        (foreign, Refusal.REFUSED_OWNER, f"page {foreign} belongs to another domain"),
        (first + 2, Refusal.REFUSED_PINNED, f"page {first + 2} is pinned by outstanding DMA"),
    ]
    for page, reason, text in refusals:
        with pytest.raises(
            Refused, match=f"transfer from 'mallory' to 'alice' refused: {reason.name}, {text}"
        ) as e:
            vmm.transfer([first, page, first + 1], mallory.guest, alice)
        assert (e.value.reason, e.value.index, e.value.page) == (reason, 1, page)
        assert "\n" not in str(e.value)
        assert (machine.memory.owners()[first : first + 8] == mallory.guest.domain).all()
    vmm.transfer([first, first + 1], mallory.guest, alice)
    assert machine.memory.owners()[first : first + 3].tolist() == [
        alice.domain,
        alice.domain,
        mallory.guest.domain,
    ]
    neighbours.check()


def test_the_driver_raises_what_the_vmm_refused(machine, neighbours):
    """A page that the guest gave away is still in its driver's buffers."""
    carol = machine.attach("carol", tx_ring=8, rx_ring=8, buffer_size=4096)
    guest, bob = carol.context.guest, neighbours.bob
    frames = [frame(mac(bob), mac(carol), i, 100) for i in range(8)]
    second_buffer = guest.first_page + 2
    machine.vmm.transfer([second_buffer], guest, neighbours.alice.context.guest)
    with pytest.raises(
        Refused, match=f"hypercall of guest 'carol' refused: REFUSED_OWNER, page {second_buffer}"
    ) as e:
        carol.send(frames)
    assert (e.value.reason, e.value.page) == (Refusal.REFUSED_OWNER, second_buffer)
    machine.step(3)
    arrived = bob.recv()
    assert arrived == frames[: len(arrived)]
    machine.vmm.transfer([second_buffer], neighbours.alice.context.guest, guest)
    assert carol.send(frames) == 8  # the refused buffers are free again
    machine.step(3)
    assert bob.recv() == frames


def test_every_refusal_is_described(machine):
    for reason in Refusal:
        with pytest.raises(Refused, match=f"^it refused: {reason.name}, [^\n]+$") as e:
            machine.vmm.raise_refusal(reason, "it")
        assert e.value.reason == reason


def test_hypercalls_of_nothing_do_nothing(machine, mallory):
    assert mallory.enqueue(TX, []) == 0
    assert machine.vmm.tables.transfer(mallory.guest.domain, 0, np.array([], np.uint32)) == 0
    assert machine.vmm.tables.counters["refusals"] == 0
