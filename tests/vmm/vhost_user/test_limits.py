"""Limits of rings and chains that no other test reaches."""

from __future__ import annotations

import itertools
import os
import struct

import pytest

from cdna import ConfigError
from cdna.abi import ContextState, Fault, Limits, VnetFlag, VnetGso
from cdna.guest_driver.vhost_frontend import ALL_PACKED, SPLIT, AttachedGuest
from cdna.guest_driver.vrings import Buffer, GuestMemory, MemoryRegion, PackedRing, SplitRing
from cdna.nic.virtio.control_queue import ControlQueue
from cdna.nic.virtio.device import Region, VirtioDevice
from cdna.virtio import Feature
from tests.support.frames import OUTSIDE, frame
from tests.support.vhost_host import VhostHost, check_traffic, incoming, less, mac, outgoing

INDIRECT, NEXT = 4, 1
MAX_FRAME = Limits.MAX_FRAME
FORMATS = pytest.mark.parametrize("wanted", [SPLIT, ALL_PACKED], ids=["split", "packed"])


def fault_of(host: VhostHost, guest) -> Fault:
    host.step()
    assert guest.context.state == ContextState.CONTEXT_FAULTED
    return guest.context.fault.reason


# --- chains -----------------------------------------------------------------------------------------------


def test_a_chain_lies_in_no_more_pieces_than_descriptors_may_be(host):
    """Each of its descriptors crosses from one region to the next, which adjoins it in the guest alone."""
    guest = host.add()
    memory = host.memory(regions=2)
    first, second = memory.regions
    memory.regions[1] = MemoryRegion(first.guest_addr + first.size, *second[1:])
    attached = host.attach(guest, memory=memory)
    across = first.guest_addr + first.size - 8
    attached.tx[0].add([Buffer(across, 16)] * 129, indirect=True)
    assert fault_of(host, guest) == Fault.FAULT_CHAIN


@FORMATS
def test_a_chain_has_no_more_bytes_than_32_bits_count(host, wanted):
    guest = host.add()
    attached = host.attach(guest, wanted, memory=host.memory(size=64 << 20))
    start = attached.memory.regions[0].guest_addr
    attached.tx[0].add([Buffer(start, 63 << 20)] * 80, indirect=True)
    assert fault_of(host, guest) == Fault.FAULT_CHAIN


def test_the_descriptor_of_a_table_has_no_next_one(host):
    guest = host.add()
    attached = host.attach(guest)
    ring, memory = attached.tx[0], attached.memory
    assert isinstance(ring, SplitRing)
    table = memory.alloc(16, 16)
    memory.view(table, 16, ring.table.dtype)[0] = (memory.alloc(256), 100, 0, 0)
    ring.table[0] = (table, 16, INDIRECT | NEXT, 1)
    ring.expose(0)
    assert fault_of(host, guest) == Fault.FAULT_INDIRECT


def test_a_table_that_is_the_ring_itself_ends(host):
    """Its one entry names the same table again, which would go on for ever."""
    guest = host.add()
    attached = host.attach(guest)
    ring = attached.tx[0]
    assert isinstance(ring, SplitRing)
    ring.table[0] = (ring.desc, 16, INDIRECT, 0)
    ring.expose(0)
    assert fault_of(host, guest) == Fault.FAULT_INDIRECT


def test_a_table_in_a_table_is_refused_also_where_it_makes_sense(host):
    guest = host.add()
    attached = host.attach(guest)
    ring, memory = attached.tx[0], attached.memory
    assert isinstance(ring, SplitRing)
    outer, inner, place = memory.alloc(16, 16), memory.alloc(16, 16), memory.alloc(256)
    memory.view(inner, 16, ring.table.dtype)[0] = (place, 112, 0, 0)
    memory.view(outer, 16, ring.table.dtype)[0] = (inner, 16, INDIRECT, 0)
    ring.table[0] = (outer, 16, INDIRECT, 0)
    ring.expose(0)
    assert fault_of(host, guest) == Fault.FAULT_INDIRECT


@FORMATS
def test_tables_are_for_those_who_negotiated_them(host, wanted):
    guest = host.add()
    attached = host.attach(guest, less(wanted, Feature.VIRTIO_F_INDIRECT_DESC), indirect=True)
    attached.send(outgoing(guest, 1))
    assert fault_of(host, guest) == Fault.FAULT_INDIRECT


def test_a_head_is_in_the_table_also_where_a_descriptor_lies_behind_it(host):
    guest = host.add()
    attached = host.attach(guest)
    ring, memory = attached.tx[0], attached.memory
    assert isinstance(ring, SplitRing)
    place = memory.alloc(256)
    memory.write(place, bytes(12) + outgoing(guest, 1)[0])
    behind = memory.alloc(16, 16)
    memory.view(behind, 16, ring.table.dtype)[0] = (place, 72, 0, 0)
    ring.expose((behind - ring.desc) // 16)
    assert fault_of(host, guest) == Fault.FAULT_CHAIN
    assert host.wire.get() == []


@FORMATS
def test_a_chain_has_no_more_descriptors_than_256_be_they_empty(host, wanted):
    guest = host.add()
    attached = host.attach(guest, wanted)
    place = attached.memory.alloc(4096)
    attached.tx[0].add([*[Buffer(place, 0)] * 256, Buffer(place, 100)], indirect=True)
    assert fault_of(host, guest) == Fault.FAULT_CHAIN


def test_a_frame_across_two_regions_is_sent_as_the_guest_sees_it(host):
    """They adjoin in the guest and in nothing else: each has a mapping of its own."""
    guest = host.add()
    memory = host.memory(regions=2)
    first, second = memory.regions
    memory.regions[1] = second._replace(guest_addr=first.guest_addr + first.size)
    attached = host.attach(guest, memory=memory)
    data = outgoing(guest, 1, size=100)[0]
    at = first.guest_addr + first.size - 56
    memory.write(at, bytes(12) + data[:44])
    memory.write(at + 56, data[44:])
    attached.tx[0].add([Buffer(at, 112)])
    host.step()
    assert host.wire.get() == [data]


@FORMATS
def test_a_chain_has_a_whole_header(host, wanted):
    guest = host.add()
    attached = host.attach(guest, wanted)
    place = attached.memory.alloc(64)
    attached.tx[0].add([Buffer(place, 5), Buffer(place + 5, 6)])
    assert fault_of(host, guest) == Fault.FAULT_HEADER


# --- lengths of frames ------------------------------------------------------------------------------------

LENGTHS = {
    "shorter than a header": 13,
    "longer than a frame": MAX_FRAME + 1,
    "longer than any": Limits.MAX_TSO_FRAME + 1,
}


@FORMATS
@pytest.mark.parametrize("split_header", [False, True], ids=["one piece", "pieces"])
@pytest.mark.parametrize("length", LENGTHS.values(), ids=LENGTHS)
def test_a_frame_of_no_possible_length_is_dropped_and_counted(host, wanted, split_header, length):
    guest = host.add()
    attached = host.attach(guest, wanted, split_header=split_header)
    data = frame(OUTSIDE, mac(guest), 1, 60).ljust(length, b"\0")[:length]
    assert attached.send([data]) == 1
    host.step()
    assert guest.context.stats()["tx_drop_invalid"] == 1
    assert host.wire.get() == []
    check_traffic(host, guest, attached)


@FORMATS
def test_a_frame_whose_headers_are_said_to_be_long_fits_the_nic(host, wanted):
    """Such frames are collected before anything of them is looked at."""
    guest = host.add()
    attached = host.attach(guest, wanted)
    place = attached.memory.alloc(60012)
    header = struct.pack("<BBHHHHH", VnetFlag.VNET_F_NEEDS_CSUM, VnetGso.VNET_GSO_TCPV6, 0, 1000, 300, 16, 0)
    attached.memory.write(place, header + frame(OUTSIDE, mac(guest), 1, 60))
    attached.tx[0].add([Buffer(place, 60012), Buffer(place, 60000)])
    host.step()
    assert guest.context.stats()["tx_drop_invalid"] == 1
    assert host.wire.get() == []
    check_traffic(host, guest, attached)


# --- receive buffers --------------------------------------------------------------------------------------


@FORMATS
def test_a_frame_takes_no_more_buffers_than_64(host, wanted):
    guest = host.add()
    attached = host.attach(guest, wanted, size=256, rx_room=100)
    host.wire.put([frame(mac(guest), OUTSIDE, 1, 9000)])
    host.step()
    assert guest.context.stats()["rx_drop_no_buffer"] == 1
    assert guest.context.state == ContextState.CONTEXT_RUNNING
    assert attached.recv() == []


def test_a_frame_is_not_scattered_over_crumbs(host):
    guest = host.add()
    attached = host.attach(guest, size=256, rx_room=4)
    ring = attached.rx[0]
    assert isinstance(ring, SplitRing)
    for i in range(255):  # all of them one buffer
        ring.table["flags"][int(ring.avail[2 + i])] |= NEXT
        ring.table["next"][int(ring.avail[2 + i])] = int(ring.avail[3 + i])
    host.wire.put(incoming(guest, 1))
    assert fault_of(host, guest) == Fault.FAULT_CHAIN


# --- setting up -------------------------------------------------------------------------------------------


def test_a_position_that_cannot_be_is_not_taken_up(host):
    """A packed ring's event area is the guest's memory: what was noted there may be anything."""
    guest = host.add()
    frontend = host.connect(guest)
    frontend.negotiate(ALL_PACKED)
    driver = host.driver(frontend.memory, frontend.features)
    for ring in driver.queues:
        assert isinstance(ring, PackedRing)
        ring.device_event["off_wrap"][0] = 0x4000 | 0x0FFF
    attached = AttachedGuest(frontend, driver)
    attached.start()
    check_traffic(host, guest, attached)


@pytest.fixture
def device(host):
    """A device without a frontend."""
    return host.add().device


def give_memory(device: VirtioDevice, memory: GuestMemory) -> None:
    device.set_memory(
        [Region(r.guest_addr, r.size, r.user_addr, memory.fd, r.offset) for r in memory.regions]
    )


def set_up(device: VirtioDevice, memory: GuestMemory, size: int = 64) -> None:
    give_memory(device, memory)
    at = memory.user(memory.alloc(64 * size, 64))
    device.set_size(0, size)
    device.set_addresses(0, at, at + 16 * size, at + 32 * size)


V1 = 1 << Feature.VIRTIO_F_VERSION_1
PACKED = V1 | 1 << Feature.VIRTIO_F_RING_PACKED


def test_a_started_ring_keeps_size_position_and_format(host, device):
    set_up(device, host.memory())
    device.start(0)
    with pytest.raises(ConfigError, match="is started"):
        device.set_size(0, 32)
    with pytest.raises(ConfigError, match="is started"):
        device.set_base(0, 7)
    with pytest.raises(ConfigError, match="started in the other ring format"):
        device.set_features(PACKED)
    assert (device.info(0)["size"], device.info(0)["packed"]) == (64, False)


def test_a_ring_is_started_with_a_size_and_at_an_index_that_it_has(host, device):
    with pytest.raises(ConfigError, match="has no size yet"):
        device.start(0)
    device.set_features(PACKED)
    set_up(device, host.memory())
    device.set_base(0, 63)
    device.set_size(0, 32)
    with pytest.raises(ConfigError, match="cannot begin at index 63 of 32"):
        device.start(0)


def test_a_ring_lies_in_memory_and_is_aligned(host, device):
    memory = host.memory()
    set_up(device, memory)
    first = memory.regions[0]
    good = first.user_addr + 4096
    end = first.user_addr + first.size
    for desc, driver, used in (
        (1 << 62, good, good),
        (good, 1 << 62, good),
        (good, good, end - 64),
        (end - 512, good, good),
        (good + 8, good, good),
        (good, good + 1, good),
        (good, good, good + 2),
    ):
        device.set_addresses(0, desc, driver, used)
        with pytest.raises(ConfigError, match="outside the guest's memory, or not aligned"):
            device.start(0)
    device.set_addresses(0, good, good + 4096, good + 8192)
    device.start(0)


def test_the_size_of_a_split_ring_is_a_power_of_two(device):
    with pytest.raises(ConfigError, match="give a power of two"):
        device.set_size(0, 48)
    device.set_features(PACKED)
    device.set_size(0, 48)


def test_an_inflight_area_is_as_large_as_its_queues_need(host, device, area):
    with pytest.raises(ConfigError, match=r"inflight area of 4096 bytes: 2 queues of 256 need"):
        device.set_inflight(area, 4096, 0, 2, 256)


def test_a_queue_has_a_part_of_the_inflight_area_that_is_its_own(host, device, area):
    """Of an area for one queue the other has none."""
    memory = host.memory()
    set_up(device, memory)
    at = memory.user(memory.alloc(64 * 64, 64))
    device.set_size(1, 64)
    device.set_addresses(1, at, at + 16 * 64, at + 32 * 64)
    device.set_inflight(area, 1 << 16, 0, 1, 64)
    device.start(1)
    assert os.pread(area, 1 << 16, 0) == bytes(1 << 16)
    device.stop(1)


def test_a_part_of_the_inflight_area_ends_within_it(host, device, area):
    """The area was large enough for split rings, and packed rings want more."""
    set_up(device, host.memory())
    device.set_inflight(area, 1088, 0, 1, 64)
    device.set_features(PACKED)
    device.start(0)
    assert os.pread(area, 4096, 0) == bytes(4096)


def test_a_page_beyond_the_dirty_log_is_not_marked(host):
    """The log is shorter than its file, in whose rest the bits of these pages would be."""
    guest = host.add()
    attached = host.attach(guest, memory=host.memory(guest_addr=1 << 20))
    fd = os.memfd_create("log")
    os.ftruncate(fd, 4096)
    try:
        guest.device.set_log(fd, 8, 0)
        host.wire.put(incoming(guest))
        host.step()
        assert len(attached.recv()) == 10
        assert os.pread(fd, 4096, 0) == bytes(4096)
    finally:
        guest.device.set_log(-1, 0, 0)
        os.close(fd)


# --- commands ---------------------------------------------------------------------------------------------

COMMANDS = {
    "half a head": ([(1, False), (1, True)], Fault.FAULT_HEADER),
    "nothing to write to": ([(3, False)], Fault.FAULT_DIRECTION),
    "read behind written": ([(3, False), (1, True), (3, False), (1, True)], Fault.FAULT_DIRECTION),
}


@pytest.fixture
def commands(host, device):
    """A control queue without a frontend, and the driver's side of it."""
    memory = host.memory()
    give_memory(device, memory)
    ring = SplitRing(memory, 64)
    queue = ControlQueue(host.machine.nic, device.index, device.memory)
    queue.set_size(2, 64)
    queue.set_addresses(2, memory.user(ring.desc), memory.user(ring.driver), memory.user(ring.device))
    queue.enable(2, True)
    queue.start(2)
    yield queue, ring
    queue.reset()
    ring.close()


@pytest.mark.parametrize(("chain", "reason"), COMMANDS.values(), ids=COMMANDS)
def test_a_command_that_breaks_a_rule(host, device, commands, chain, reason):
    queue, ring = commands
    place = ring.memory.alloc(64)
    ring.add([Buffer(place, length, writable) for length, writable in chain])
    assert queue.pop() is None
    assert fault_of(host, host.server.guests[0]) == reason


def test_a_command_longer_than_any_is_not_read(commands):
    queue, ring = commands
    place = ring.memory.alloc(20000)
    ring.add([Buffer(place, 16385), Buffer(place, 1, True)])
    assert queue.pop() == b""
    queue.answer(1)
    ring.add([Buffer(place, 16384), Buffer(place, 1, True)])
    assert len(queue.pop()) == 16384


@pytest.fixture
def area():
    """The file of an inflight area."""
    fd = os.memfd_create("inflight")
    os.ftruncate(fd, 1 << 16)
    yield fd
    os.close(fd)


def test_a_ring_larger_than_its_part_of_the_inflight_area_has_none(host, device, area):
    set_up(device, host.memory(), 64)
    device.set_inflight(area, 1 << 16, 0, 1, 32)
    device.start(0)
    assert os.pread(area, 1 << 16, 0) == bytes(1 << 16)


@pytest.mark.parametrize("at", [(64, 0), (0, 64), (0xFFFF, 0xFFFF)])
def test_a_position_in_the_inflight_area_is_in_the_ring(host, device, area, at):
    device.set_features(PACKED)
    set_up(device, host.memory(), 64)
    used, old = at
    head = struct.pack("<QHHHHHHBB", 0, 1, 64, 0, 0, used, old, 1, 1)
    os.pwrite(area, head, 0)
    device.set_inflight(area, 1 << 16, 0, 1, 64)
    device.start(0)
    assert device.info(0)["avail"] == 0


def test_an_rss_table_and_its_key_are_as_long_as_they_must_be(device):
    with pytest.raises(ConfigError, match="an RSS table of 3 entries"):
        device.set_rss(1, bytes(40), [0, 0, 0], 0)
    with pytest.raises(ConfigError, match="an RSS table of 256 entries"):
        device.set_rss(1, bytes(40), [0] * 256, 0)
    with pytest.raises(ConfigError, match="an RSS key of 41 bytes"):
        device.set_rss(1, bytes(41), [0], 0)


@FORMATS
def test_a_frame_that_was_collected_in_vain_costs_as_much_as_one_that_is_sent(host, wanted):
    """Otherwise a guest had the NIC copy a hundred of them in each of its turns."""
    guest = host.add()
    attached = host.attach(guest, wanted)
    place = attached.memory.alloc(60012)
    header = struct.pack("<BBHHHHH", VnetFlag.VNET_F_NEEDS_CSUM, VnetGso.VNET_GSO_TCPV6, 0, 1000, 300, 16, 0)
    attached.memory.write(place, header + frame(OUTSIDE, mac(guest), 1, 60))
    for _ in range(4):
        attached.tx[0].add([Buffer(place, 60012)])
    dropped = []
    for _ in range(20):
        host.step(1)
        dropped.append(guest.context.stats()["tx_drop_invalid"])
    assert dropped[-1] == 4
    assert all(after - before <= 1 for before, after in itertools.pairwise([0, *dropped]))
