"""Memory that a frontend lends and takes back, and addresses of it that a guest makes up."""

import os
import socket

import numpy as np
import pytest

from cdna import abi
from cdna.abi import ContextState, Fault, Refusal
from cdna.guest_driver.vrings import Buffer, GuestMemory, MemoryRegion
from cdna.guests.hostile import EOP, RX, TX
from cdna.protocol.vhost_user import SINGLE_REGION, Request
from cdna.virtio import VirtioLimits
from tests.support.attack import PATTERN
from tests.support.frames import OUTSIDE, frame
from tests.support.vhost_host import incoming, outgoing

TOP = (1 << 64) - 1
TIB = 1 << 40
PAGE = abi.PAGE_BYTES


def test_regions_that_cannot_be(attack):
    """Of nothing, around the end of all addresses, behind their file's end, one in the other."""
    scene = attack()
    base, size, user, _ = scene.memory.regions[0]
    scene.frontend.send(Request.POSTCOPY_ADVISE)
    for regions in (
        [(base, 0, user, 0)],
        [(TOP - 4095, 8192, user, 0)],
        [(base, 8192, TOP - 4095, 0)],
        [(base, TOP, user, 0)],
        [(base, size + 1, user, 0)],
        [(base, 4096, user, size)],
        [(base, 8192, user, TOP - 4095)],
        [(base, 4096, user, 4095)],
        [(base, 8192, user, 0), (base + 4096, 8192, user + TIB, 0)],
        [(base, 8192, user, 0), (base + TIB, 8192, user + 4096, 0)],
    ):
        scene.reconnect()
        scene.frontend.send(
            Request.SET_MEM_TABLE, scene.frontend.table(regions), [scene.memory.fd] * len(regions)
        )
    scene.reconnect()
    assert all("SET_MEM_TABLE" in line for line in scene.host.lines()[1:])
    scene.unharmed()


def test_more_memory_than_there_are_addresses(attack):
    """A file of holes costs its owner nothing; what is mapped of it, the other guests lack."""
    scene = attack()
    fd = os.memfd_create("holes", os.MFD_CLOEXEC)
    os.ftruncate(fd, 1 << 46)
    scene.frontend.add_region((TIB, 5 * TIB, TIB, 0), fd)
    assert scene.frontend.ended()
    os.close(fd)
    scene.unharmed()


def test_more_regions_than_there_is_room_for(attack):
    scene = attack()
    for i in range(VirtioLimits.VIRTIO_MAX_REGIONS):
        scene.frontend.add_region((TIB + (i << 20), 4096, TIB + (i << 20), 0))
    assert scene.frontend.ended()
    assert "64" in scene.host.lines()[-1]
    scene.unharmed()


def test_files_that_are_no_memory(attack, tmp_path):
    """What lies behind them answers when it likes, or not at all, and the NIC would wait for it."""
    scene = attack()
    disk = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
    os.ftruncate(disk, 1 << 20)
    ours, theirs = socket.socketpair()
    zero, event = os.open("/dev/zero", os.O_RDWR | os.O_CLOEXEC), os.eventfd(0, os.EFD_CLOEXEC)
    scene.frontend.send(Request.POSTCOPY_ADVISE)
    for fd in (zero, event, theirs.fileno(), disk):
        scene.reconnect()
        scene.frontend.send(Request.ADD_MEM_REG, SINGLE_REGION.pack(TIB, 4096, TIB, 0), [fd])
    scene.reconnect()
    refused = scene.host.lines()[1:]
    assert len(refused) in (3, 4)  # the last one is good where it is on a tmpfs
    assert all("memory" in line for line in refused)
    for fd in (disk, zero, event):
        os.close(fd)
    ours.close()
    theirs.close()
    scene.unharmed()


@pytest.mark.parametrize("what", ["a frame", "a receive buffer", "the rings"])
def test_a_file_that_shrinks(attack, host, what):
    """Who touches a page that is no more gets a signal: here it is one context's fault."""
    memory = host.memory(regions=1)
    scene = attack(memory=memory)
    kept = memory.offset(scene.place(1, 4096)) if what != "the rings" else 0
    if what == "a frame":
        scene.tx.add([Buffer(memory.regions[0].guest_addr + memory.size - PAGE, 72)])
    elif what == "a receive buffer":
        scene.rx.table["addr"][:] = memory.regions[0].guest_addr + memory.size - PAGE
        host.wire.put(incoming(scene.offender, 1))
    else:
        scene.bad.send(outgoing(scene.offender, 1))
    before = memory.bytes.copy()
    os.ftruncate(memory.fd, kept)
    scene.host.step()
    os.ftruncate(memory.fd, memory.size)  # or its driver could not be looked at
    memory.bytes[kept:] = before[kept:]
    assert scene.fault == Fault.FAULT_MEMORY_GONE
    host.wire.get()  # a frame of zeros may have been under way
    scene.unharmed()


@pytest.mark.parametrize("what", ["a frame", "a receive buffer"])
def test_a_region_that_is_taken_back_with_buffers_in_it(attack, host, what):
    """The frontend says so with the buffers posted; the NIC looks each address up when it uses it."""
    memory = host.memory(regions=2)
    scene = attack(memory=memory)
    at = memory.alloc(4096, region=1)
    host.wire.put(incoming(scene.offender, 1))
    if what == "a frame":
        host.step()
        scene.tx.add([Buffer(at, 72)])
    else:
        scene.rx.table["addr"][:] = at
    scene.frontend.remove_region(memory.regions[1])
    scene.frontend.sync()
    before = memory.bytes.copy()
    assert scene.step() == []
    assert scene.fault == Fault.FAULT_MEMORY
    assert (memory.bytes == before).all()
    scene.unharmed()


def test_another_table_while_rings_run(attack, host):
    """Nothing of the memory before is read or written any more."""
    scene = attack()
    old = scene.memory
    new = host.memory()
    new.bytes[:] = old.bytes
    scene.frontend.memory = new
    scene.frontend.give_memory()
    scene.frontend.sync()
    before = old.bytes.copy()
    old.bytes[:] = before
    scene.bad.send(outgoing(scene.offender, 4))  # in the old memory's rings
    left = old.bytes.copy()
    host.wire.put(there := incoming(scene.offender, 3))
    assert scene.step() == []
    assert (old.bytes == left).all()
    scene.bad.driver.move(new)
    assert scene.bad.recv() == there
    scene.unharmed()


def test_the_rings_lose_their_memory(attack, host):
    """A table without them: they rest, and the NIC touches nothing, until they have memory again."""
    scene = attack()
    other = GuestMemory(1 << 20)
    elsewhere = MemoryRegion(TIB, 1 << 20, TIB, 0)
    scene.frontend.send(Request.SET_MEM_TABLE, scene.frontend.table([elsewhere]), [other.fd])
    scene.frontend.sync()
    frames = outgoing(scene.offender, 4)
    scene.bad.send(frames)
    before = scene.memory.bytes.copy()
    host.wire.put(incoming(scene.offender, 4))
    assert scene.step() == []
    assert (scene.memory.bytes == before).all()
    assert not other.bytes.any()
    assert scene.fault is None
    scene.frontend.give_memory()
    scene.frontend.sync()
    assert scene.step() == frames
    other.close()
    scene.unharmed()


# --- native guests ------------------------------------------------------------------------------------------


def test_pages_of_others(native):
    """A neighbour's page, the byte before one's own, the byte behind it, nobody's, and none at all."""
    scene = native(pages=16)
    mallory, memory = scene.mallory, scene.machine.memory
    foreign = [
        (scene.victim.maddr, 60),
        (mallory.maddr() - 1, 60),
        (mallory.maddr(16) - 1, 2),
        (mallory.maddr(15), 9000),
        (memory.size - 60, 60),
    ]
    for ring in (TX, RX):
        for addr, length in foreign:
            assert mallory.enqueue(ring, [(addr, length, EOP)]) == Refusal.REFUSED_OWNER
        for addr, length in ((memory.size, 1), (memory.size - 59, 60), (TOP, 60), (TOP - 30, 60)):
            assert mallory.enqueue(ring, [(addr, length, EOP)]) == Refusal.REFUSED_ADDRESS
    assert not memory.pins()[mallory.guest.first_page :][:16].any()
    assert scene.step() == []
    assert scene.fault is None
    scene.unharmed()


@pytest.mark.parametrize("ring", [TX, RX])
@pytest.mark.parametrize("address", ["behind the end", "around the end", "below zero"])
def test_machine_addresses_without_an_owner(native, ring, address):
    """In the mode that believes addresses, they have to be in machine memory at least."""
    scene = native("none")
    size = scene.machine.memory.size
    addr = {"behind the end": size - 59, "around the end": TOP - 30, "below zero": 1 << 63}[address]
    scene.mallory.post(ring, [(addr, 2048 if ring == RX else 60, EOP)])
    scene.wire.put([scene.mallory.mac + bytes(100)])
    assert scene.step() == []
    assert scene.fault == Fault.FAULT_ADDRESS
    scene.unharmed()


@pytest.mark.parametrize("ring", [TX, RX])
@pytest.mark.parametrize("address", ["not mapped", "the next page not mapped", "a machine address", "around"])
def test_io_addresses_that_are_not_mapped(native, ring, address):
    scene = native("iommu:persistent")
    mallory = scene.mallory
    assert mallory.iommu_map([3], [mallory.guest.first_page]) == 1
    mallory.memory[:] = PATTERN
    addr = {
        "not mapped": 5 * PAGE,
        "the next page not mapped": 4 * PAGE - 30,
        "a machine address": scene.victim.maddr,
        "around": TOP - 30,
    }[address]
    mallory.post(ring, [(addr, 2048 if ring == RX else 60, EOP)])
    scene.wire.put([frame(mallory.mac, OUTSIDE, 0, 100)])
    assert scene.step() == []
    assert scene.fault == Fault.FAULT_TRANSLATION
    assert (mallory.memory[:-PAGE] == PATTERN).all() or ring == RX
    scene.unharmed()


def test_io_pages_of_others(native):
    """Mapped at one's own I/O page, another's memory would be one's own."""
    scene = native("iommu:persistent")
    mallory, victim = scene.mallory, scene.victim
    before = scene.machine.memory.pins().copy()
    pages = (victim.first_page, mallory.guest.first_page - 1, scene.machine.memory.pages - 1)
    for page in pages:
        assert mallory.iommu_map([0], [page]) == Refusal.REFUSED_OWNER
    for io_page, page in ((0, scene.machine.memory.pages), (0, 0xFFFFFFFF), (0xFFFFFFFF, 0), (1 << 20, 0)):
        assert mallory.iommu_map([io_page], [page]) == Refusal.REFUSED_ADDRESS
    for context in (scene.neighbours.alice.context.index, 7, 0xFFFFFFFF):
        own = mallory.guest.first_page
        assert mallory.iommu_map([0], [own], context=context) == Refusal.REFUSED_CONTEXT
        assert mallory.iommu_unmap([0], context=context) == Refusal.REFUSED_CONTEXT
    assert np.array_equal(before, scene.machine.memory.pins())
    assert scene.mallory.context.state == ContextState.CONTEXT_RUNNING
    scene.unharmed()


def test_what_a_guest_writes_on_its_context_page(native):
    """Consumer indices, state, every mailbox, every doorbell: the NIC reads none of it back but the bells."""
    scene = native()
    mallory = scene.mallory
    for value in (0xFF, 0x80, 0x01):
        mallory.machine.nic.page_view(mallory.context.index)[:] = value
        scene.step()
    assert scene.fault == Fault.FAULT_PRODUCER
    scene.unharmed()
