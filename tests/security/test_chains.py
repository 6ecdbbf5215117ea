"""Chains of descriptors that a driver makes up: where they lead, how long they are, what they allow."""

import os

import pytest

from cdna.abi import Fault
from cdna.guest_driver.vhost_frontend import ALL_PACKED, SPLIT
from cdna.guest_driver.vrings import Buffer, GuestMemory, MemoryRegion
from cdna.virtio import Feature, VirtioLimits
from tests.support.attack import INDIRECT, NEXT, NOWHERE, WRITE
from tests.support.vhost_host import less, mac, outgoing

GIB = 1 << 30


@pytest.mark.parametrize("where", ["ring", "table"])
def test_a_chain_that_loops(attack, where):
    scene = attack()
    at = scene.place()
    if where == "ring":
        scene.chain((at, 12, NEXT, 1), (at, 60, NEXT, 0))
    else:
        table = scene.table([(at, 12, NEXT, 1), (at, 60, NEXT, 0)])
        scene.chain((table, 32, INDIRECT, 0))
    assert scene.step() == []
    assert scene.fault == Fault.FAULT_CHAIN
    assert scene.offender.context.fault.found == VirtioLimits.VIRTIO_MAX_CHAIN + 1  # and no further
    scene.unharmed()


@pytest.mark.parametrize("following", [64, 0xFFFF])
@pytest.mark.parametrize("where", ["ring", "table"])
def test_a_next_that_leaves_its_table(attack, where, following):
    """What lies there looks like a descriptor of a frame."""
    scene = attack(size=64)
    at = scene.place()
    if where == "ring":
        scene.chain((at, 12, NEXT, following))
    else:
        table = scene.table([(at, 12, NEXT, following), *[(at, 60, 0, 0)] * 127])
        scene.chain((table, 32, INDIRECT, 0))
    assert scene.step() == []
    assert scene.fault == Fault.FAULT_CHAIN
    scene.unharmed()


def test_a_packed_chain_without_end(attack):
    """Each slot of the ring is available, and says that there is another one."""
    scene = attack(ALL_PACKED)
    at, available = scene.place(), 1 << 7 if scene.tx.avail_wrap else 1 << 15
    for slot in range(scene.tx.size):
        flags = available if slot >= scene.tx.next_avail else available ^ (1 << 7 | 1 << 15)
        scene.tx.table[slot] = (at, 1, slot, flags | NEXT)
    assert scene.step() == []
    assert scene.fault == Fault.FAULT_CHAIN
    assert scene.offender.context.fault.found == scene.tx.size  # slots, once around
    scene.unharmed()


@pytest.mark.parametrize("case", ["in a table", "and a next one", "not negotiated"])
def test_a_table_where_none_may_be(attack, case):
    scene = attack(less(SPLIT, Feature.VIRTIO_F_INDIRECT_DESC) if case == "not negotiated" else SPLIT)
    frame = scene.place()
    inner = scene.table([(frame, 72, 0, 0)])
    if case == "in a table":
        scene.chain((scene.table([(inner, 16, INDIRECT, 0)]), 16, INDIRECT, 0))
    elif case == "and a next one":
        scene.chain((inner, 16, INDIRECT | NEXT, 1), (frame, 72, 0, 0))
    else:
        scene.chain((inner, 16, INDIRECT, 0))
    assert scene.step() == []
    assert scene.fault == Fault.FAULT_INDIRECT
    scene.unharmed()


@pytest.mark.parametrize("length", [0, 15, 24, 0xFFFFFFF0])
def test_a_table_that_is_no_table(attack, length):
    """Of no entry, of half ones, and of four gigabytes."""
    scene = attack()
    scene.chain((scene.table([(scene.place(), 72, 0, 0)] * 2), length, INDIRECT, 0))
    assert scene.step() == []
    assert scene.fault == Fault.FAULT_INDIRECT
    scene.unharmed()


@pytest.mark.parametrize("wanted", [SPLIT, ALL_PACKED], ids=["split", "packed"])
@pytest.mark.parametrize("case", ["nowhere", "its end outside", "around the end of all addresses"])
def test_a_table_outside_memory(attack, case, wanted):
    """Its first entry may be in memory, and describe a frame."""
    scene = attack(wanted)
    region = scene.memory.regions[0]
    at = {
        "nowhere": NOWHERE,
        "its end outside": region.guest_addr + region.size - 16,
        "around the end of all addresses": (1 << 64) - 16,
    }[case]
    if case == "its end outside":
        scene.memory.view(at, 16, scene.tx.table.dtype)[0] = (scene.place(), 72, 0, 0)
    if wanted == SPLIT:
        scene.chain((at, 32, INDIRECT, 0))
    else:
        slot = scene.tx.next_avail
        flags = 1 << 7 if scene.tx.avail_wrap else 1 << 15
        scene.tx.table[slot] = (at, 32, 0, flags | INDIRECT)
    assert scene.step() == []
    assert scene.fault == Fault.FAULT_INDIRECT
    scene.unharmed()


def test_descriptors_of_no_bytes(attack):
    """A table of four thousand of them: each costs the NIC a look, and none brings the frame further."""
    scene = attack()
    at = scene.place()
    table = scene.table([(at, 0, NEXT, i + 1) for i in range(4095)] + [(at, 72, 0, 0)])
    scene.chain((table, 16 * 4096, INDIRECT, 0))
    assert scene.step() == []
    assert scene.fault == Fault.FAULT_CHAIN
    scene.unharmed()


def test_more_pieces_than_there_is_room_for(attack):
    scene = attack()
    at = scene.place()
    table = scene.table([(at, 1, NEXT, i + 1) for i in range(299)] + [(at, 1, 0, 0)])
    scene.chain((table, 16 * 300, INDIRECT, 0))
    assert scene.step() == []
    assert scene.fault == Fault.FAULT_CHAIN
    scene.unharmed()


def test_a_header_in_crumbs(attack):
    """The virtio-net header byte by byte, with descriptors of nothing between, is read for what it is."""
    scene = attack()
    (frame,) = outgoing(scene.offender, 1)
    at = scene.place()
    scene.memory.write(at, bytes(12) + frame)
    crumbs = []
    for i in range(12):
        crumbs += [(at + i, 1), (at, 0)]
    pieces = [*crumbs, (at + 12, len(frame))]
    last = len(pieces) - 1
    table = scene.table([(a, n, NEXT if i < last else 0, i + 1) for i, (a, n) in enumerate(pieces)])
    scene.chain((table, 16 * len(pieces), INDIRECT, 0))
    assert scene.step() == [frame]
    assert scene.fault is None
    scene.unharmed()


@pytest.mark.parametrize("pieces", [[11], [5, 6], [0, 0, 0], [10, 1]])
def test_a_chain_that_ends_within_its_header(attack, pieces):
    scene = attack()
    at = scene.place()
    last = len(pieces) - 1
    scene.chain(*[(at, n, NEXT if i < last else 0, i + 1) for i, n in enumerate(pieces)])
    assert scene.step() == []
    assert scene.fault == Fault.FAULT_HEADER
    scene.unharmed()


def test_lengths_whose_sum_wraps(attack, host):
    """Two pieces of three gigabytes are two gigabytes to who counts with 32 bits."""
    scene = attack()
    fd = os.memfd_create("holes", os.MFD_CLOEXEC)
    os.ftruncate(fd, 4 * GIB)
    scene.frontend.add_region((64 * GIB, 4 * GIB, 64 * GIB, 0), fd)
    scene.frontend.sync()
    scene.chain((64 * GIB, 3 * GIB, NEXT, 1), (64 * GIB, GIB + 72, 0, 0))
    assert scene.step() == []
    assert scene.fault == Fault.FAULT_CHAIN
    assert os.stat(fd).st_blocks == 0  # not a page of it was touched
    os.close(fd)
    scene.unharmed()


@pytest.mark.parametrize("where", ["transmit", "receive", "the second of two", "receive by a table"])
def test_a_buffer_of_the_wrong_direction(attack, where):
    """What is given to be read is not written, and nobody is sent what is there to be written."""
    scene = attack()
    at = scene.place()
    if where == "transmit":
        scene.tx.add([Buffer(at, 72, True)])
    elif where == "the second of two":
        scene.tx.add([Buffer(at, 12), Buffer(at + 12, 60, True)])
    elif where == "receive":
        scene.rx.table["flags"] &= 0xFFFF ^ WRITE
    else:
        scene.rx.table[:] = (scene.table([(at, 2048, 0, 0)]), 16, INDIRECT, 0)
    before = scene.memory.bytes.copy() if where.startswith("receive") else None
    scene.host.wire.put([mac(scene.offender) + bytes(100)])
    assert scene.step() == []
    assert scene.fault == Fault.FAULT_DIRECTION
    if before is not None:
        assert (scene.memory.bytes == before).all()
    scene.unharmed()


@pytest.mark.parametrize("beyond", [65, 1000, 0xFFFF])
def test_more_available_than_the_ring_holds(attack, beyond):
    """Each of them would be read and kept, again and again."""
    scene = attack(size=64)
    scene.tx.avail[1] = (int(scene.tx.avail[1]) + beyond) & 0xFFFF
    assert scene.step() == []
    assert scene.fault == Fault.FAULT_AVAIL
    scene.unharmed()


# --- addresses ----------------------------------------------------------------------------------------------


def adjoining(host):
    """Memory of two regions that follow each other in the guest, and nowhere else."""
    memory = host.memory()
    half, first = memory.size // 2, memory.regions[0]
    memory.regions = [
        MemoryRegion(first.guest_addr, half, first.user_addr, 0),
        MemoryRegion(first.guest_addr + half, half, 1 << 40, half),
    ]
    return memory, first.guest_addr + half


@pytest.mark.parametrize("wanted", [SPLIT, ALL_PACKED], ids=["split", "packed"])
def test_a_frame_across_two_regions(attack, host, wanted):
    """The guest's addresses go on where the first region ends; the NIC's do not."""
    memory, border = adjoining(host)
    scene = attack(wanted, memory=memory)
    (frame,) = outgoing(scene.offender, 1, 1000)
    whole = bytes(12) + frame
    memory.write(border - 500, whole[:500])
    memory.write(border, whole[500:])
    scene.tx.add([Buffer(border - 500, len(whole))])
    assert scene.step() == [frame]
    assert scene.fault is None
    scene.unharmed()


@pytest.mark.parametrize("wanted", [SPLIT, ALL_PACKED], ids=["split", "packed"])
def test_a_frame_that_ends_outside_its_region(attack, host, wanted):
    """What is mapped behind the region here, if anything, is somebody else's."""
    memory, border = adjoining(host)
    scene = attack(wanted, memory=memory)
    end = border + memory.size // 2
    scene.tx.add([Buffer(end - 500, 1012)])
    assert scene.step() == []
    assert scene.fault == Fault.FAULT_MEMORY
    scene.unharmed()


@pytest.mark.parametrize("address", [NOWHERE, (1 << 64) - 40, 0])
def test_one_bad_address_in_a_batch(attack, address):
    """Sixteen buffers of a packed ring are looked at together; those before the bad one are sent."""
    scene = attack(ALL_PACKED)
    frames = outgoing(scene.offender, 16)
    first = scene.tx.next_avail
    scene.bad.send(frames)
    scene.tx.table["addr"][first + 7] = address
    assert scene.step() == frames[:7]
    assert scene.fault == Fault.FAULT_MEMORY
    scene.unharmed()


@pytest.mark.parametrize("wanted", [SPLIT, ALL_PACKED], ids=["split", "packed"])
def test_receive_buffers_at_bad_addresses(attack, wanted):
    scene = attack(wanted)
    scene.rx.table["addr"][:] = scene.memory.regions[0].guest_addr + scene.memory.size - 40
    scene.host.wire.put([mac(scene.offender) + bytes(100)])
    before = scene.memory.bytes[-4096:].copy()
    scene.step()
    assert scene.fault == Fault.FAULT_MEMORY
    assert (scene.memory.bytes[-4096:] == before).all()
    scene.unharmed()


def test_the_memory_of_another_guest_is_no_address(attack):
    """Both guests use the same numbers for their own memory; a frontend's own addresses are none here."""
    scene = attack()
    other = scene.good.memory
    assert isinstance(other, GuestMemory)
    secret = other.alloc(4096)
    other.write(secret, b"secret" * 100)
    scene.tx.add([Buffer(other.user(secret), 112)])
    assert scene.step() == []
    assert scene.fault == Fault.FAULT_MEMORY
    scene.unharmed()
