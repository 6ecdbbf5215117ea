"""IOMMU mode: what each strategy of Willmann, Rixner and Cox (USENIX ATC 2008) maps, and at what cost."""

from __future__ import annotations

import numpy as np
import pytest

from cdna.abi import ContextState, Fault
from cdna.base.units import STRATEGIES
from cdna.guests.driver import Driver
from cdna.guests.hostile import EOP, RX, TX, Hostile
from cdna.machine import Machine
from tests.support.frames import Neighbours, frame, mac, receive_all

PAGE = 4096
RING = 8
TX_POOL = 1  # the driver's pages: one for requests, then two buffers a page, transmit and receive
RX_POOL = TX_POOL + RING // 2


@pytest.fixture
def machine():
    machine = Machine(4 << 20, wire="loopback", contexts=4)
    yield machine
    machine.close()
    assert not machine.memory.pins().any()


@pytest.fixture
def neighbours(machine):
    return Neighbours(machine)


def attach(machine: Machine, strategy: str) -> Driver:
    return machine.attach("carol", protection=f"iommu:{strategy}", tx_ring=RING, rx_ring=RING)


def pins(driver: Driver) -> dict[str, list[int]]:
    """Pins of the driver's pages: transmit buffers, receive buffers."""
    guest = driver.context.guest
    of_guest = driver.context.vmm.memory.pins()[guest.first_page :].tolist()
    return {"tx": of_guest[TX_POOL:RX_POOL], "rx": of_guest[RX_POOL : RX_POOL + RING // 2]}


def exchange(machine: Machine, carol: Driver, bob: Driver, number: int) -> int:
    """One frame there and one back; returns the hypercalls that it took Carol."""
    before = carol.hypercalls
    there, back = frame(mac(bob), mac(carol), number, 1000), frame(mac(carol), mac(bob), number, 900)
    assert carol.send([there]) == bob.send([back]) == 1
    machine.step(2)
    assert (bob.recv(), carol.recv()) == ([there], [back])
    return carol.hypercalls - before


def test_single_use_maps_a_buffer_for_one_dma(machine, neighbours):
    """Each receive buffer has its own mapping; a transmit buffer has one from send until completion."""
    carol = attach(machine, "single-use")
    assert pins(carol) == {"tx": [0] * 4, "rx": [2] * 4}
    carol.send([frame(mac(neighbours.bob), mac(carol))])
    assert sum(pins(carol)["tx"]) == 1
    machine.step()
    assert carol.tx_pending == 0
    assert len(neighbours.bob.recv()) == 1
    exchange(machine, carol, neighbours.bob, 1)
    costs = [exchange(machine, carol, neighbours.bob, i) for i in range(2, 40)]
    # Transmit: unmap the last, map the next. Receive: unmap what came, map it again.
    assert set(costs) == {4}
    assert pins(carol)["rx"] == [2] * 4
    assert sum(pins(carol)["tx"]) <= 2  # unmapped pages are unpinned with the next hypercall


def test_shared_maps_a_page_while_a_buffer_on_it_is_posted(machine, neighbours):
    carol = attach(machine, "shared")
    assert pins(carol) == {"tx": [0] * 4, "rx": [1] * 4}  # one mapping for both buffers of a page
    assert carol.send([frame(mac(neighbours.bob), mac(carol), i) for i in range(4)]) == 4
    assert sorted(pins(carol)["tx"]) == [0, 0, 1, 1]
    machine.step(2)
    assert carol.tx_pending == 0
    assert len(neighbours.bob.recv()) == 4
    costs = [exchange(machine, carol, neighbours.bob, i) for i in range(40)]
    # The other buffer of a receive page stays posted, so that page stays mapped.
    assert set(costs[1:]) == {2}
    assert pins(carol)["rx"] == [1] * 4


def test_persistent_maps_a_page_once(machine, neighbours):
    carol = attach(machine, "persistent")
    for i in range(4):
        exchange(machine, carol, neighbours.bob, i)
    costs = [exchange(machine, carol, neighbours.bob, i) for i in range(40)]
    assert set(costs) == {0}
    assert pins(carol)["rx"] == [1] * 4
    assert set(pins(carol)["tx"]) <= {0, 1}


def test_direct_map_maps_all_of_the_guest_at_the_start(machine, neighbours):
    carol = attach(machine, "direct-map")
    guest = carol.context.guest
    for i in range(40):
        assert exchange(machine, carol, neighbours.bob, i) == 0
        assert (machine.memory.pins()[guest.first_page :][: guest.pages] == 1).all()
    assert carol.hypercalls == 0


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_frames_over_pages_that_do_not_follow_each_other(machine, neighbours, strategy):
    """Jumbo frames over several buffers, both ways, many times around the ring."""
    carol, bob = attach(machine, strategy), neighbours.bob
    for i in range(60):
        there = frame(mac(bob), mac(carol), i, 9018 - i)
        back = frame(mac(carol), mac(bob), i, 9018 - 2 * i)
        assert carol.send([there]) == bob.send([back]) == 1
        machine.step(3)
        assert (bob.recv(), carol.recv()) == ([there], [back])
    assert machine.vmm.tables.counters["refusals"] == 0
    assert carol.context.state == ContextState.CONTEXT_RUNNING


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_buffers_across_page_boundaries(machine, neighbours, strategy):
    carol = machine.attach(
        "carol", protection=f"iommu:{strategy}", tx_ring=RING, rx_ring=RING, buffer_size=1600
    )
    bob = neighbours.bob
    for i in range(60):
        there, back = frame(mac(bob), mac(carol), i, 1600), frame(mac(carol), mac(bob), i, 1600)
        assert carol.send([there]) == bob.send([back]) == 1
        machine.step(3)
        assert (bob.recv(), carol.recv()) == ([there], [back])


def test_an_io_address_reaches_the_page_that_the_vmm_mapped(machine, neighbours):
    mallory = Hostile(machine, protection="iommu:persistent", pages=8)
    first = mallory.guest.first_page
    assert mallory.iommu_map([20, 21], [first + 5, first + 2]) == 2
    letter = frame(mac(neighbours.bob), mallory.mac, 3, 600)
    mallory.write(letter[:100], page=5, offset=PAGE - 100)
    mallory.write(letter[100:], page=2)
    assert mallory.post(TX, [(21 * PAGE - 100, 600, EOP)]) == 1
    machine.step(2)
    assert neighbours.bob.recv() == [letter]


def test_a_page_unmapped_while_it_is_posted_stops_the_guest_and_stays_its_own(machine, neighbours):
    mallory = Hostile(machine, protection="iommu:persistent", pages=8)
    page = mallory.guest.first_page + 1
    mallory.iommu_map([0], [page])
    mallory.post(RX, [(0, PAGE, 0)])
    machine.step()
    assert mallory.iommu_unmap([0]) == 1
    neighbours.alice.send([frame(mallory.mac, mac(neighbours.alice))])
    machine.step(2)
    [report] = machine.vmm.collect_faults() or machine.vmm.faults
    assert (report.reason, report.ring, report.found) == (Fault.FAULT_TRANSLATION, RX, 0)
    assert not machine.memory.view(page * PAGE, PAGE).any()
    neighbours.check()


def test_an_unmapped_page_stays_pinned_until_the_next_hypercall(machine):
    mallory = Hostile(machine, protection="iommu:persistent", pages=8)
    pins = machine.memory.pins()[mallory.guest.first_page :]
    mallory.iommu_map([0, 1], [mallory.guest.first_page, mallory.guest.first_page + 1])
    mallory.iommu_unmap([0])
    assert pins[:2].tolist() == [1, 1]
    mallory.iommu_unmap([1])
    assert pins[:2].tolist() == [0, 1]
    mallory.iommu_unmap([1])  # refused, and yet a hypercall
    assert pins[:2].tolist() == [0, 0]


def test_with_a_running_nic_an_unmapped_page_is_free_two_rounds_later():
    with Machine(1 << 20, wire="loopback", contexts=4) as machine:
        mallory = Hostile(machine, protection="iommu:persistent", pages=8)
        other = machine.vmm.create_guest("other", PAGE)
        page = mallory.guest.first_page
        for _ in range(50):
            assert mallory.iommu_map([0], [page]) == 1
            assert mallory.iommu_unmap([0]) == 1
            rounds = machine.nic.counters["rounds"]
            while machine.nic.counters["rounds"] < rounds + 3:
                pass
            machine.vmm.transfer([page], mallory.guest, other)
            machine.vmm.transfer([page], other, mallory.guest)


def test_more_unmappings_than_the_table_has_entries(machine):
    mallory = Hostile(machine, protection="iommu:persistent", pages=8)
    first = mallory.guest.first_page
    n = mallory.context.settings.tx_ring * 4 + mallory.context.settings.rx_ring * 4 + 8
    for _ in range(3):
        assert mallory.iommu_map(range(n), [first] * n) == n
        assert machine.memory.pins()[first] == n
        assert mallory.iommu_unmap(range(n)) == n
        assert mallory.iommu_map([0], [first]) == 1
        assert machine.memory.pins()[first] == 1
        assert mallory.iommu_unmap([0]) == 1
    machine.vmm.tables.reap(mallory.context.index)
    assert machine.memory.pins()[first] == 0


def test_batches_larger_than_one_hypercall(machine, neighbours):
    """A driver's mappings go to the VMM 256 at a time."""
    carol = machine.attach("carol", protection="iommu:single-use", tx_ring=512, rx_ring=512)
    bob = machine.attach("receiver", tx_ring=8, rx_ring=512)
    frames = [frame(mac(bob), mac(carol), i, 100) for i in range(500)]
    for _ in range(3):
        assert carol.send(frames) == 500
        machine.step(10)
        assert receive_all(bob) == frames
    assert machine.vmm.tables.counters["refusals"] == 0
    assert np.count_nonzero(machine.memory.pins()) > 0
