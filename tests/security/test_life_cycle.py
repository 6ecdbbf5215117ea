"""Ends of all kinds in the middle of things: what is under way then, and what comes after."""

import os

import pytest

from cdna import abi
from cdna.abi import ContextState, Fault, Refusal
from cdna.errors import Refused
from cdna.guest_driver.vhost_frontend import ALL_PACKED, SPLIT
from cdna.guest_driver.vrings import Buffer
from cdna.guests.hostile import EOP, PRODUCER, RX, TX, Hostile
from cdna.protocol.vhost_user import Request
from tests.support.attack import NOWHERE, PATTERN
from tests.support.frames import OUTSIDE, frame
from tests.support.large import KINDS, large, vnet_header
from tests.support.vhost_host import check_traffic, incoming, mac, outgoing, until

BOTH = pytest.mark.parametrize("wanted", [SPLIT, ALL_PACKED], ids=["split", "packed"])
PAGE = abi.PAGE_BYTES


def half_sent(scene):
    """The offender has the NIC in the middle of a frame of a thousand segments."""
    data, offload = large(KINDS["tso4"], OUTSIDE, mac(scene.offender))
    header = bytearray(vnet_header(KINDS["tso4"], offload))
    header[4:6] = b"\5\0"
    scene.bad.send([data, *outgoing(scene.offender, 5)], header=bytes(header))
    assert len(scene.step(1)) == 64


@pytest.mark.parametrize("end", ["reset", "stop", "disconnect", "remove", "memory", "fault"])
def test_an_end_in_the_middle_of_a_frame(attack, host, end):
    """Its first segments are out. Whatever comes of the others, nobody else waits for them."""
    scene = attack()
    half_sent(scene)
    if end == "reset":
        assert scene.frontend.acknowledged(Request.RESET_DEVICE) == 0
    elif end == "stop":
        scene.bad.stop()
    elif end == "disconnect":
        host.detach(scene.offender, scene.bad)
    elif end == "remove":
        host.server.remove(scene.offender)
    elif end == "memory":
        scene.frontend.send(Request.SET_MEM_TABLE, scene.frontend.table([]))
        scene.frontend.sync()
    else:
        scene.rx.table["addr"][:] = NOWHERE
        host.wire.put(incoming(scene.offender, 1))
    before = scene.memory.bytes.copy()
    rest = [frame_ for _ in range(30) for frame_ in scene.step(1)]
    assert all(data[6:12] == mac(scene.offender) for data in rest) or end == "remove"
    assert len(rest) <= 1001 - 64 + 5
    if end != "fault":
        assert (scene.memory.bytes == before).all() or end == "stop"
    scene.unharmed()


@BOTH
@pytest.mark.parametrize("end", ["reset", "stop", "disconnect", "disable"])
def test_nothing_is_written_after_the_end(attack, host, end, wanted):
    """With buffers posted, and a frame for each of them: the driver may have given their pages away."""
    scene = attack(wanted)
    memory = scene.memory
    if end == "reset":
        assert scene.frontend.acknowledged(Request.RESET_DEVICE) == 0
    elif end == "stop":
        scene.bad.stop()
    elif end == "disconnect":
        host.detach(scene.offender, scene.bad)
    else:
        for queue in range(2):
            scene.frontend.state(Request.SET_VRING_ENABLE, queue, 0)
        scene.frontend.sync()
    if end != "disconnect":
        scene.bad.send(outgoing(scene.offender, 4))
    before = memory.bytes.copy()
    host.wire.put(incoming(scene.offender, 50))
    assert scene.step() == []
    assert (memory.bytes == before).all()
    scene.unharmed()


@BOTH
def test_a_driver_that_begins_anew_where_another_ended(attack, host, wanted):
    """A guest crashed with its rings full; the next frontend brings other memory, at the same addresses."""
    scene = attack(wanted)
    scene.bad.send(outgoing(scene.offender, 40))
    old = scene.memory
    scene.frontend.sock.close()
    before = old.bytes.copy()
    until(lambda: not scene.offender.connected)
    again = host.attach(scene.offender, wanted)
    check_traffic(host, scene.offender, again)
    assert (old.bytes == before).all()
    scene.unharmed()


def test_faults_one_after_the_other(attack, host):
    """Stopped, reset, attached, stopped: each time as the first, and nothing is kept of it."""
    scene = attack()
    held = None
    for _ in range(20):
        scene.tx.add([Buffer(NOWHERE, 72)])
        scene.step()
        assert scene.fault == Fault.FAULT_MEMORY
        scene.offender.reset()
        host.detach(scene.offender, scene.bad)
        scene.bad = host.attach(scene.offender)
        scene.tx, scene.frontend = scene.bad.tx[0], scene.bad.frontend
        check_traffic(host, scene.offender, scene.bad)
        now = host.held()["maps"], len(host.held()["files"])
        assert now == (held or now)
        held = now
    scene.unharmed()


def test_rings_that_start_and_stop_while_frames_flow(attack, host):
    """Frames from the wire and from the honest guest all the time; where a ring rests, they are dropped."""
    scene = attack()
    for i in range(40):
        host.wire.put(incoming(scene.offender, 5))
        scene.good.send([frame(mac(scene.offender), mac(scene.honest), i)])
        base = scene.frontend.stop(i % 2)
        host.step(1)
        scene.frontend.start(i % 2, scene.bad.driver.queues[i % 2], base=base)
        scene.frontend.sync()
        host.step(2)
        scene.bad.recv()
        scene.good.reclaim()
    host.wire.get()  # of the honest guest's what came while nobody had the address
    check_traffic(host, scene.offender, scene.bad)
    scene.unharmed()


# --- pages of native guests ---------------------------------------------------------------------------------


def test_a_page_given_away_while_dma_is_under_way(native):
    """It is pinned until the NIC has done with it: nobody else gets it before."""
    scene = native()
    mallory, vmm = scene.mallory, scene.machine.vmm
    first = mallory.guest.first_page
    mallory.post(RX, [(mallory.maddr(1), 2 * PAGE, 0)])
    mallory.post(TX, [(mallory.maddr(3), 100, 0)])  # the frame's end does not come
    scene.step()
    for page in (first + 1, first + 2, first + 3):
        with pytest.raises(Refused) as refused:
            vmm.transfer([first, page], mallory.guest, scene.victim)
        assert refused.value.reason == Refusal.REFUSED_PINNED
    assert (scene.machine.memory.owners()[first : first + 16] == mallory.guest.domain).all()
    vmm.transfer([first], mallory.guest, scene.victim)
    scene.unharmed()


def test_a_page_unmapped_while_dma_is_under_way(native):
    """The NIC may hold its translation: it stays pinned until whole rounds have passed."""
    scene = native("iommu:persistent")
    mallory, machine = scene.mallory, scene.machine
    page = mallory.guest.first_page
    assert mallory.iommu_map([0], [page]) == 1
    with machine:  # the NIC runs
        assert mallory.iommu_unmap([0]) == 1
        until(lambda: not _pinned(machine, mallory, page))
        machine.vmm.transfer([page], mallory.guest, scene.victim)
        assert machine.memory.owners()[page] == scene.victim.domain


def _pinned(machine, mallory, page):
    machine.vmm.tables.reap(mallory.context.index)
    return machine.memory.pins()[page]


@pytest.mark.parametrize("protection", ["validated", "iommu:persistent", "none"])
def test_a_guest_destroyed_with_its_rings_full(native, protection):
    """Its pages are somebody else's at once; no frame is read from them, none is written there."""
    scene = native(protection)
    mallory, machine = scene.mallory, scene.machine
    base = mallory.maddr()
    if protection.startswith("iommu"):
        first = mallory.guest.first_page
        assert mallory.iommu_map(range(16), range(first, first + 16)) == 16
        base = 0
    mallory.write(frame(OUTSIDE, mallory.mac))
    mallory.post(RX, [(base + PAGE * i, 2048, 0) for i in range(8)])
    mallory.post(TX, [(base, 60, EOP)] * 8)
    mac_, pages = mallory.mac, mallory.guest.first_page
    machine.vmm.destroy_guest(mallory.guest)
    heir = machine.vmm.create_guest("heir", 16 * PAGE)
    assert heir.first_page == pages
    assert not heir.memory.any()  # nothing of the last owner's
    heir.memory[:] = PATTERN
    scene.wire.put([frame(mac_, OUTSIDE, i) for i in range(8)])
    assert scene.step() == []
    assert (heir.memory == PATTERN).all()
    assert not machine.memory.pins()[pages : pages + 16].any()
    scene.unharmed()


def test_a_context_with_another_owner(native):
    """The next guest of a context finds nothing of the last one's: no index, number, fault or doorbell."""
    scene = native()
    mallory, machine = scene.mallory, scene.machine
    index = mallory.context.index
    for _ in range(3):
        mallory.post(TX, [(mallory.maddr(), 60, 0)] * 3)
        mallory.ring_doorbell(PRODUCER[TX], 7)
        scene.step()
        machine.vmm.destroy_guest(mallory.guest)
        mallory = Hostile(machine, "next")
        assert mallory.context.index == index
        assert mallory.context.state == ContextState.CONTEXT_RUNNING
        for field in ("mailbox", "doorbell", "tx_consumer", "rx_consumer", "fault"):
            assert not mallory.page[field].any()
        assert not any(mallory.context.stats().values())
        letter = frame(OUTSIDE, mallory.mac, 1, 60)
        mallory.write(letter)
        mallory.post(TX, [(mallory.maddr(), 60, EOP)])
        assert scene.step() == [letter]
    scene.unharmed()


def test_a_frontend_that_vanishes_with_its_eventfds(attack, host):
    """The NIC has copies of its own of their descriptors, and writes to no other file of the same number."""
    scene = attack()
    for ring in scene.bad.driver.queues:
        os.dup2(scene.tx.err_fd, ring.call_fd)  # another file has its number now
    check_traffic(host, scene.offender, scene.bad)
    assert not scene.tx.failed()
    scene.unharmed()
