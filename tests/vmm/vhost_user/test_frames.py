"""Frames through every kind of ring: to the wire, from it, and between guests."""

import itertools
import struct

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from cdna.base.units import parse_mac
from cdna.guest_driver.vhost_frontend import ALL_PACKED, LEGACY, MRG_RXBUF, SPLIT
from cdna.protocol.vhost_user import Request
from cdna.virtio import Feature
from tests.support.frames import BROADCAST, OUTSIDE, flows, frame
from tests.support.vhost_host import check_traffic, incoming, less, mac, outgoing, until

EVENT_IDX, IN_ORDER = Feature.VIRTIO_F_EVENT_IDX, Feature.VIRTIO_F_IN_ORDER
RINGS = {
    "split": (SPLIT, {}),
    "split, indirect": (SPLIT, {"indirect": True, "split_header": True}),
    "split, chains": (SPLIT, {"split_header": True}),
    "split, flags": (less(SPLIT, EVENT_IDX), {}),
    "split, any order": (less(SPLIT, IN_ORDER), {}),
    "split, not mergeable": (less(SPLIT, MRG_RXBUF), {}),
    "legacy": (LEGACY, {}),
    "legacy, mergeable": (LEGACY | 1 << MRG_RXBUF, {"split_header": True}),
    "packed": (ALL_PACKED, {}),
    "packed, indirect": (ALL_PACKED, {"indirect": True, "split_header": True}),
    "packed, chains": (ALL_PACKED, {"split_header": True}),
    "packed, flags": (less(ALL_PACKED, EVENT_IDX), {}),
    "packed, any order": (less(ALL_PACKED, IN_ORDER), {}),
    "packed, not mergeable": (less(ALL_PACKED, MRG_RXBUF), {}),
    "packed, 48 descriptors": (ALL_PACKED, {"size": 48}),
}


@pytest.fixture(params=RINGS)
def rings(request):
    return RINGS[request.param]


def test_frames_go_out_and_come_in(host, guest, rings):
    wanted, options = rings
    attached = host.attach(guest, wanted, **options)
    for _ in range(3):
        check_traffic(host, guest, attached)
    sizes = [60, 61, 64, 65, 128, 1000, 1514]
    sent = [frame(OUTSIDE, mac(guest), size, size) for size in sizes]
    attached.send(sent)
    there = [frame(mac(guest), OUTSIDE, size, size) for size in sizes]
    host.wire.put(there)
    host.step()
    assert host.wire.get() == sent
    assert attached.recv() == there
    assert all(len(header) == attached.driver.header_size for header in attached.driver.headers)


def test_rings_wrap_around(host, guest, rings):
    wanted, options = rings
    attached = host.attach(guest, wanted, **{**options, "size": 16})
    for start in range(0, 700, 7):
        sent = outgoing(guest, 7, 80, start)
        there = incoming(guest, 7, 300, start)
        assert attached.send(sent) == 7
        host.wire.put(there)
        host.step(2)
        assert host.wire.get() == sent
        assert attached.recv() == there


def test_a_full_ring_is_emptied_whole(host, guest, rings):
    wanted, options = rings
    attached = host.attach(guest, wanted, **options)
    sent = outgoing(guest, 200)
    fits = attached.send(sent)
    assert fits < 200
    there = incoming(guest, 200)
    host.wire.put(there)
    host.step(10)
    assert host.wire.get() == sent[:fits]
    received = attached.recv()
    assert received == there[: len(received)]
    assert len(received) == attached.rx[0].size
    assert guest.context.stats()["rx_drop_no_buffer"] == 200 - len(received)


def test_frames_are_as_many_as_are_counted(host, guest):
    attached = host.attach(guest)
    check_traffic(host, guest, attached)
    stats = guest.context.stats()
    assert (stats["tx_frames"], stats["rx_frames"]) == (10, 10)
    assert (stats["tx_bytes"], stats["rx_bytes"]) == (600, 10000)
    assert [queue["frames"] for queue in guest.describe()["queues"][:2]] == [10, 10]


def test_a_frame_in_several_buffers(host, guest):
    for wanted in (SPLIT, ALL_PACKED):
        attached = host.attach(guest, wanted, rx_room=256)
        there = incoming(guest, 5, 1514)
        for _ in range(5):
            host.wire.put(there)
            host.step()
            assert attached.recv() == there
            assert [struct.unpack("<H", header[10:])[0] for header in attached.driver.headers] == [6] * 5
        host.detach(guest, attached)


def test_a_frame_that_fits_no_buffer(host, guest):
    attached = host.attach(guest, less(SPLIT, MRG_RXBUF), rx_room=256)
    host.wire.put(incoming(guest, 3, 1514))
    host.step()
    assert attached.recv() == []
    assert guest.context.stats()["rx_drop_no_buffer"] == 3
    host.wire.put(incoming(guest, 3, 200))
    host.step()
    assert attached.recv() == incoming(guest, 3, 200)


def test_a_mergeable_frame_beyond_all_buffers(host, guest):
    attached = host.attach(guest, SPLIT, rx_room=256, size=4)
    host.wire.put(incoming(guest, 1, 1514))
    host.step()
    assert attached.recv() == []
    assert guest.context.stats()["rx_drop_no_buffer"] == 1
    host.wire.put(incoming(guest, 1, 900))
    host.step()
    assert attached.recv() == incoming(guest, 1, 900)


def test_another_address_is_not_sent(host, guest):
    attached = host.attach(guest)
    attached.send([frame(OUTSIDE, bytes.fromhex("020000000099"), i) for i in range(3)])
    host.step()
    assert host.wire.get() == []
    assert guest.context.stats()["tx_drop_spoof"] == 3
    assert attached.reclaim() == 3


# --- between guests ---------------------------------------------------------------------------------------


PAIRS = list(itertools.combinations(["split", "legacy", "packed", "packed, chains"], 2))


@pytest.mark.parametrize(("one", "two"), PAIRS)
def test_two_guests(host, one, two):
    guests = [host.add(name, number) for name, number in (("one", 11), ("two", 12))]
    ends = [
        host.attach(guest, RINGS[kind][0], **RINGS[kind][1])
        for guest, kind in zip(guests, (one, two), strict=True)
    ]
    for (source, sender), (to, receiver) in itertools.permutations(zip(guests, ends, strict=True)):
        for size in (60, 1514):
            sent = [frame(mac(to), mac(source), i, size) for i in range(20)]
            assert sender.send(sent) == 20
            host.step()
            assert receiver.recv() == sent
            assert sender.recv() == []
        sent = [frame(BROADCAST, mac(source), i) for i in range(5)]
        sender.send(sent)
        host.step()
        assert receiver.recv() == sent == host.wire.get()
    assert guests[0].context.stats()["tx_local"] > 0


def test_beside_guests_of_other_kinds(host, guest):
    """A context is a context: a native guest and a virtio guest on one NIC."""
    native = host.machine.attach("native")
    attached = host.attach(guest)
    address = parse_mac(native.context.mac)
    there = [frame(mac(guest), address, i, 700) for i in range(10)]
    back = [frame(address, mac(guest), i, 700) for i in range(10)]
    native.send(there)
    attached.send(back)
    host.step()
    assert attached.recv() == there
    assert native.recv() == back
    host.machine.vmm.destroy_guest(native.context.guest)


def test_a_running_engine(host, guest):
    """Nobody steps: kicks, calls and a thread of the NIC's own."""
    attached = host.attach(guest, ALL_PACKED)
    host.machine.start()
    arrived, received = [], []
    for start in range(0, 600, 30):
        sent = outgoing(guest, 30, 200, start)
        attached.send(sent)
        there = incoming(guest, 30, 200, start)
        host.wire.put(there)
        until(lambda: arrived.extend(host.wire.get()) or arrived[-1:] == sent[-1:])  # noqa: B023
        until(lambda: received.extend(attached.recv()) or received[-1:] == there[-1:])  # noqa: B023
    assert arrived == outgoing(guest, 600, 200)
    assert received == incoming(guest, 600, 200)
    assert attached.rx[0].called() > 0
    host.machine.nic.stop_engine()


# --- queues -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wanted", [SPLIT, ALL_PACKED], ids=["split", "packed"])
@pytest.mark.parametrize("pairs", [2, 4, 8])
def test_every_queue_is_used(host, guest, wanted, pairs):
    attached = host.attach(guest, wanted, pairs=pairs, size=32)
    check_traffic(host, guest, attached, range(pairs))
    found = [[] for _ in range(pairs)]
    there = flows(mac(guest), OUTSIDE, 64)
    for start in range(0, 64, 16):
        host.wire.put(there[start : start + 16])
        host.step()
        for pair in range(pairs):
            found[pair] += attached.recv(pair)
    assert sorted(itertools.chain(*found)) == sorted(there)
    assert all(found)


def test_a_flow_stays_in_its_queue(host, guest):
    attached = host.attach(guest, pairs=4)
    there = flows(mac(guest), OUTSIDE, 1) * 20
    host.wire.put(there)
    host.step()
    assert sorted(len(attached.recv(pair)) for pair in range(4)) == [0, 0, 0, 20]


def test_queues_that_are_disabled_get_nothing(host, guest):
    """As QEMU does when the guest's driver takes fewer queues than there are."""
    attached = host.attach(guest, pairs=4)
    for queue in range(2, 8):
        attached.frontend.state(Request.SET_VRING_ENABLE, queue, 0)
    attached.frontend.sync()
    there = flows(mac(guest), OUTSIDE, 40)
    host.wire.put(there)
    host.step()
    assert attached.recv(0) == there
    for queue in range(2, 8):
        attached.frontend.state(Request.SET_VRING_ENABLE, queue, 1)
    attached.frontend.sync()
    host.wire.put(there)
    host.step()
    assert len(attached.recv(0)) < 40
    attached.recv()


# --- work left to do --------------------------------------------------------------------------------------

NEEDS_CSUM, GSO_TCPV4 = 1, 1


def segment(guest, size):
    """A TCP segment without its checksum, and the header that says so."""
    whole = bytes(
        Ether(dst=OUTSIDE.hex(":"), src=mac(guest).hex(":"))
        / IP(src="10.0.0.1", dst="10.0.0.2", id=7)
        / TCP(sport=1, dport=2, seq=1000, flags="A")
        / Raw(bytes(i & 0xFF for i in range(size)))
    )
    pseudo = sum(struct.unpack(">4H", whole[26:34])) + 6 + 20 + size
    pseudo = (pseudo & 0xFFFF) + (pseudo >> 16)
    return whole[:50] + struct.pack(">H", (pseudo & 0xFFFF) + (pseudo >> 16)) + whole[52:], whole


def test_an_open_checksum_is_completed_for_the_wire(host, guest, rings):
    wanted, options = rings
    attached = host.attach(guest, wanted, **options)
    partial, whole = segment(guest, 500)
    attached.send([partial], header=struct.pack("<BBHHHH", NEEDS_CSUM, 0, 54, 0, 34, 16))
    host.step()
    assert host.wire.get() == [whole]


def test_a_large_segment_is_cut_for_the_wire(host, guest, rings):
    wanted, options = rings
    attached = host.attach(guest, wanted, **options)
    partial, _ = segment(guest, 10000)
    attached.send([partial], header=struct.pack("<BBHHHH", NEEDS_CSUM, GSO_TCPV4, 54, 1448, 34, 16))
    host.step()
    payload = b""
    for piece in map(Ether, host.wire.get()):
        assert piece[TCP].seq == 1000 + len(payload)
        checksum = piece[TCP].chksum
        del piece[TCP].chksum
        assert Ether(bytes(piece))[TCP].chksum == checksum
        payload += bytes(piece[TCP].payload)
    assert payload == bytes(i & 0xFF for i in range(10000))


def test_a_large_segment_goes_whole_to_a_guest_that_takes_it(host):
    one, two = host.add("one", 11), host.add("two", 12)
    sender, receiver = host.attach(one), host.attach(two, ALL_PACKED)
    partial, _ = segment(one, 30000)
    partial = mac(two) + partial[6:]
    header = struct.pack("<BBHHHH", NEEDS_CSUM, GSO_TCPV4, 54, 1448, 34, 16)
    sender.send([partial], header=header)
    host.step()
    assert receiver.recv() == [partial]
    assert receiver.driver.headers[0][:10] == header


def test_frames_for_a_guest_without_a_driver_are_counted_as_that(host, guest):
    """Nobody is at its socket; later its frontend is, and its cable is out."""

    def arrive():
        host.wire.put([*incoming(guest, 2), frame(BROADCAST, OUTSIDE)])
        host.step()
        return {name: value for name, value in guest.context.stats().items() if "drop" in name and value}

    assert arrive() == {"rx_drop_no_driver": 3}
    assert host.machine.nic.counters["rx_drop_filter"] == 0
    attached = host.attach(guest)
    assert arrive() == {"rx_drop_no_driver": 3}
    assert len(attached.recv()) == 3
    guest.set_link(False)
    assert arrive() == {"rx_drop_no_driver": 3, "rx_drop_link": 3}
    guest.set_link(True)
    host.detach(guest, attached)
    assert arrive() == {"rx_drop_no_driver": 6, "rx_drop_link": 3}


def test_a_guest_receives_by_the_address_that_it_has_changed_to(host, guest):
    """Its driver sends with another address, and tells nobody: QEMU keeps the control queue."""
    changed = bytes.fromhex("02aa00000001")
    attached = host.attach(guest)
    there = [frame(changed, OUTSIDE)]
    for allowed in (False, True):
        guest.context.set(anti_spoof=not allowed)
        attached.send([frame(BROADCAST, changed)])
        host.step()
        host.wire.put(there)
        host.step()
        assert attached.recv() == (there if allowed else [])
    host.detach(guest, attached)
    assert host.machine.nic.learned(guest.context.index) == []
