"""Frames behind a virtio-net header: what one guest leaves to do, another gets so, or the NIC does it."""

import dataclasses
import random
import struct

import numpy as np
import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Raw

import cdna
from cdna.abi import VNET_HEADER_DTYPE, Fault, Takes, VnetFlag, VnetGso
from cdna.nic.queue_wire import QueueWire
from tests.support.frames import BROADCAST, OUTSIDE, frame, mac, receive_all, vlan_tag
from tests.support.large import KINDS, finished, large, vnet_header

HEADER = VNET_HEADER_DTYPE.itemsize
PLAIN = bytes(HEADER)
RECEIVED = struct.pack("<BBHHHHH", 0, 0, 0, 0, 0, 0, 1)
MSS = 1000


@pytest.fixture
def machine():
    with_wire = cdna.Machine(memory=96 << 20, wire=QueueWire())
    yield with_wire
    with_wire.close()


def guest(machine, name, *, vnet=True, **settings):
    settings = {"tx_ring": 64, "rx_ring": 64, "buffer_size": 16384, **settings}
    return machine.attach(name, vnet_header=vnet, **settings)


def header(**fields):
    entry = np.zeros(1, VNET_HEADER_DTYPE)
    for name, value in fields.items():
        entry[name] = value
    return entry.tobytes()


def parsed(data):
    """(header as a dict, frame)."""
    entry = np.frombuffer(data[:HEADER], VNET_HEADER_DTYPE)[0]
    return {name: int(entry[name]) for name in VNET_HEADER_DTYPE.names}, data[HEADER:]


def tcp(source, to, length, ip=IP, tag=b"", flags="PA"):
    """(a frame whose TCP checksum is the pseudo header's alone, csum_start, all of it done by scapy)."""
    addresses = {"src": "10.0.0.1", "dst": "10.0.0.2"} if ip is IP else {"src": "fd00::1", "dst": "fd00::2"}
    payload = random.Random(length).randbytes(length)
    packet = ip(**addresses) / TCP(sport=1000, dport=2000, seq=5, flags=flags) / Raw(payload)
    network = bytes(packet)
    start = 14 + len(tag) + (20 if ip is IP else 40)
    ethertype = b"\x08\x00" if ip is IP else b"\x86\xdd"
    done = to + source + tag + ethertype + network
    size = (len(done) - start).to_bytes(4, "big")
    pseudo = network[12:20] if ip is IP else network[8:40]
    total = sum(struct.unpack(f"!{len(pseudo) // 2}H", pseudo)) + 6 + sum(struct.unpack("!2H", size))
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    at = start + 16
    return done[:at] + total.to_bytes(2, "big") + done[at + 2 :], start, done


def checksum_wanted(start, offset=16):
    return header(flags=VnetFlag.VNET_F_NEEDS_CSUM, csum_start=start, csum_offset=offset)


def segments_wanted(start, ip=IP, **fields):
    kind = VnetGso.VNET_GSO_TCPV4 if ip is IP else VnetGso.VNET_GSO_TCPV6
    wanted = {"flags": VnetFlag.VNET_F_NEEDS_CSUM, "gso_type": kind, "gso_size": MSS, "hdr_len": 7}
    return header(**{**wanted, "csum_start": start, "csum_offset": 16, **fields})


def check_segments(frames, done, start):
    """The segments carry the payload of the whole frame, each with checksums that are right."""
    payload = b""
    for data in frames:
        packet = Ether(data)
        whole = packet.copy()
        del whole[TCP].chksum
        if IP in whole:
            del whole[IP].chksum
            del whole[IP].len
        assert bytes(whole) == data
        assert packet[TCP].seq == 5 + len(payload)
        payload += bytes(packet[TCP].payload)[: len(data) - start - 20]
        assert len(data) - start - 20 <= MSS
    assert payload == done[start + 20 :]


def send(machine, source, data):
    assert source.send([data]) == 1
    machine.step(3)


def test_a_plain_frame_keeps_its_bytes(machine):
    alice, bob = guest(machine, "alice"), guest(machine, "bob")
    data = frame(mac(bob), mac(alice), 1)
    send(machine, alice, PLAIN + data)
    assert receive_all(bob) == [RECEIVED + data]
    assert bob.context.stats()["rx_bytes"] == len(data)
    assert alice.context.stats()["tx_bytes"] == len(data)


def test_plain_and_vnet_guests_reach_each_other(machine):
    alice, bob = guest(machine, "alice"), guest(machine, "bob", vnet=False)
    there, back = frame(mac(bob), mac(alice), 1), frame(mac(alice), mac(bob), 2)
    send(machine, alice, PLAIN + there)
    send(machine, bob, back)
    assert receive_all(bob) == [there]
    assert receive_all(alice) == [RECEIVED + back]


@pytest.mark.parametrize("ip", [IP, IPv6])
def test_a_checksum_is_left_to_a_guest_that_can(machine, ip):
    alice, bob = guest(machine, "alice"), guest(machine, "bob")
    data, start, _ = tcp(mac(alice), mac(bob), 700, ip)
    send(machine, alice, checksum_wanted(start) + data)
    (found, received), *more = map(parsed, receive_all(bob))
    assert received == data
    assert not more
    assert (found["flags"], found["csum_start"], found["csum_offset"]) == (1, start, 16)


@pytest.mark.parametrize("ip", [IP, IPv6])
def test_a_checksum_is_completed_for_a_guest_that_cannot(machine, ip):
    alice, bob = guest(machine, "alice"), guest(machine, "bob", vnet=False)
    data, start, done = tcp(mac(alice), mac(bob), 700, ip)
    send(machine, alice, checksum_wanted(start) + data)
    assert receive_all(bob) == [done]


@pytest.mark.parametrize("ip", [IP, IPv6])
@pytest.mark.parametrize("buffer_size", [2048, 16384, 65472])
def test_a_large_segment_stays_whole_for_a_guest_that_can(machine, ip, buffer_size):
    alice, bob = guest(machine, "alice"), guest(machine, "bob", buffer_size=buffer_size)
    data, start, _ = tcp(mac(alice), mac(bob), 40_000, ip, flags="C")
    send(machine, alice, segments_wanted(start, ip) + data)
    ((found, received),) = map(parsed, receive_all(bob))
    assert received == data
    kind = VnetGso.VNET_GSO_TCPV4 if ip is IP else VnetGso.VNET_GSO_TCPV6
    assert found["gso_type"] == kind | VnetGso.VNET_GSO_ECN  # the frame has CWR
    assert (found["gso_size"], found["csum_start"], found["hdr_len"]) == (MSS, start, start + 20)
    assert bob.context.stats()["rx_frames"] == 1


@pytest.mark.parametrize("protection", ["validated", "iommu:single-use", "iommu:persistent", "none"])
@pytest.mark.parametrize("ip", [IP, IPv6])
def test_a_large_segment_is_cut_for_a_guest_that_cannot(machine, ip, protection):
    size = 8192 if protection == "iommu:single-use" else 16384
    alice = guest(machine, "alice", protection=protection, buffer_size=size)
    bob = guest(machine, "bob", vnet=False, buffer_size=2048, protection=protection)
    data, start, done = tcp(mac(alice), mac(bob), 40_000, ip)
    send(machine, alice, segments_wanted(start, ip) + data)
    frames = receive_all(bob)
    assert len(frames) == 40
    check_segments(frames, done, start)


def test_the_largest_segment(machine):
    alice, bob = guest(machine, "alice", buffer_size=65472), guest(machine, "bob", buffer_size=65472)
    data, start, _ = tcp(mac(alice), mac(bob), 65495)
    send(machine, alice, segments_wanted(start) + data)
    ((_, received),) = map(parsed, receive_all(bob))
    assert received == data


def test_the_wire_that_takes_no_offload_gets_segments(machine):
    alice = guest(machine, "alice")
    data, start, done = tcp(mac(alice), OUTSIDE, 8000)
    send(machine, alice, segments_wanted(start) + data)
    check_segments(machine.wire.get(), done, start)


def test_broadcast_is_completed_for_all(machine):
    alice, bob, carol = guest(machine, "alice"), guest(machine, "bob"), guest(machine, "carol", vnet=False)
    data, start, done = tcp(mac(alice), BROADCAST, 300)
    send(machine, alice, checksum_wanted(start) + data)
    assert machine.wire.get() == receive_all(carol) == [done]
    ((found, received),) = map(parsed, receive_all(bob))
    assert (received, found["flags"]) == (done, VnetFlag.VNET_F_DATA_VALID)


def test_a_promiscuous_neighbour_sees_what_travels_on_a_wire(machine):
    alice, bob = guest(machine, "alice"), guest(machine, "bob")
    eve = guest(machine, "eve", vnet=False, promiscuous=True)
    data, start, done = tcp(mac(alice), mac(bob), 5000)
    send(machine, alice, segments_wanted(start) + data)
    check_segments(receive_all(eve), done, start)
    check_segments([received for _, received in map(parsed, receive_all(bob))], done, start)


@pytest.mark.parametrize("vlan", [0, 5, "trunk"])
def test_a_large_segment_stays_whole_within_a_vlan(machine, vlan):
    alice, bob = guest(machine, "alice", vlan=vlan), guest(machine, "bob", vlan=vlan)
    for tag in [b"", vlan_tag(7)] if vlan == "trunk" else [b""]:
        data, start, _ = tcp(mac(alice), mac(bob), 5000, tag=tag)
        send(machine, alice, segments_wanted(start) + data)
        assert [received for _, received in map(parsed, receive_all(bob))] == [data]


def test_vlans(machine):
    """Between access ports of one VLAN a segment stays whole; where a tag comes or goes it is cut."""
    alice, bob = guest(machine, "alice", vlan=5), guest(machine, "bob", vlan=5)
    trunk, other = guest(machine, "trunk", vlan="trunk"), guest(machine, "other", vlan=6)
    data, start, _ = tcp(mac(alice), mac(bob), 5000)
    send(machine, alice, segments_wanted(start) + data)
    assert [received for _, received in map(parsed, receive_all(bob))] == [data]

    data, start, done = tcp(mac(alice), mac(trunk), 5000)
    send(machine, alice, segments_wanted(start) + data)
    tagged = [received for _, received in map(parsed, receive_all(trunk))]
    assert {part[12:16] for part in tagged} == {vlan_tag(5)}
    check_segments([part[:12] + part[16:] for part in tagged], done, start)

    data, start, _ = tcp(mac(alice), mac(other), 5000)
    send(machine, alice, segments_wanted(start) + data)
    assert receive_all(other) == []

    data, start, done = tcp(mac(trunk), mac(bob), 5000, tag=vlan_tag(5))
    send(machine, trunk, segments_wanted(start) + data)
    untagged = [received for _, received in map(parsed, receive_all(bob))]
    check_segments(untagged, done[:12] + done[16:], start - 4)


def test_no_buffer_for_a_large_segment(machine):
    alice, bob = guest(machine, "alice"), guest(machine, "bob", rx_ring=8, buffer_size=2048)
    data, start, _ = tcp(mac(alice), mac(bob), 40_000)
    send(machine, alice, segments_wanted(start) + data)
    assert receive_all(bob) == []
    assert bob.context.stats()["rx_drop_no_buffer"] == 1
    assert alice.context.state.name == bob.context.state.name == "CONTEXT_RUNNING"


BAD = {
    "segments without a checksum": {"flags": 0},
    "an unknown kind": {"gso_type": 9},
    "the other family": {"gso_type": VnetGso.VNET_GSO_TCPV6},
    "segments of nothing": {"gso_size": 0},
    "more segments than the NIC cuts": {"gso_size": 4},
    "segments longer than a frame": {"gso_size": 9019},
    "a checksum in front of IP": {"csum_start": 6},
    "a checksum behind the headers": {"csum_start": 250},
    "a checksum behind the frame": {"csum_start": 65535},
    "not TCP's checksum": {"csum_offset": 6},
}


@pytest.mark.parametrize("case", BAD)
def test_a_header_that_cannot_be_stops_its_guest_alone(machine, case):
    alice, bob, carol = guest(machine, "alice"), guest(machine, "bob"), guest(machine, "carol")
    data, start, _ = tcp(mac(alice), mac(bob), 20_000)
    send(machine, alice, segments_wanted(start, **BAD[case]) + data)
    machine.vmm.collect_faults()
    assert alice.context.fault.reason == Fault.FAULT_OFFLOAD
    assert receive_all(bob) == []
    honest = frame(mac(bob), mac(carol), 3)
    send(machine, carol, PLAIN + honest)
    assert receive_all(bob) == [RECEIVED + honest]


@pytest.mark.parametrize("size", [1, HEADER, HEADER + 13])
def test_a_frame_shorter_than_any(machine, size):
    alice = guest(machine, "alice", protection="none")
    with pytest.raises(cdna.ConfigError, match="give 26 to"):
        alice.send([bytes(size)])


def test_a_long_frame_that_asks_for_nothing(machine):
    alice, bob = guest(machine, "alice"), guest(machine, "bob")
    alice.send([PLAIN + frame(mac(bob), mac(alice), size=9019)])
    machine.step(3)
    machine.vmm.collect_faults()
    assert alice.context.fault.reason == Fault.FAULT_LENGTH


def test_random_headers_never_make_a_frame_of_other_bytes(machine):
    """Whatever a header says, what arrives is the frame, its segments, or nothing."""
    rng = random.Random(7)
    for number in range(300):
        alice = guest(machine, f"alice{number}", memory=4 << 20, tx_ring=8, rx_ring=8)
        bob = guest(machine, f"bob{number}", memory=4 << 20, tx_ring=8, rx_ring=64)
        data, start, _ = tcp(mac(alice), mac(bob), rng.choice([0, 100, 3000]), rng.choice([IP, IPv6]))
        fields = {
            "flags": rng.choice([0, 1, 1, 3, 255]),
            "gso_type": rng.choice([0, 0, 1, 4, 0x81, 0x84, 3, 5, 77]),
            "gso_size": rng.choice([0, 64, 1000, 1448, 65535]),
            "csum_start": rng.choice([start, start, 0, 14, 34, 54, len(data), 65535]),
            "csum_offset": rng.choice([16, 16, 6, 0, 65535]),
            "hdr_len": rng.randrange(65536),
        }
        send(machine, alice, header(**fields) + data)
        for found, received in map(parsed, receive_all(bob)):
            assert received == data
            if found["flags"] & VnetFlag.VNET_F_NEEDS_CSUM:
                assert found["csum_start"] + found["csum_offset"] + 2 <= len(data)
        for name in (f"alice{number}", f"bob{number}"):
            machine.vmm.destroy_guest(machine.guest(name))


def test_random_headers_of_udp_and_every_field_of_them(machine):
    """Guests that take everything, and nothing: each gets the frame, what it is cut into, or nothing."""
    rng = random.Random(8)
    taker, plain = guest(machine, "taker", takes=sum(Takes)), guest(machine, "plain", vnet=False)
    words = [0, 1, 6, 7, 8, 14, 16, 34, 42, 54, 62, 500, 1000, 9018, 65535]
    seen = set()
    for number in range(600):
        alice = guest(machine, f"alice{number}", memory=4 << 20, tx_ring=8, rx_ring=8)
        to = rng.choice([taker, plain])
        kind = KINDS[rng.choice(list(KINDS))]
        kind = dataclasses.replace(kind, length=rng.choice([0, 1, 100, 3000, 9000]))
        data, offload = large(kind, mac(to), mac(alice))
        fields = dict(
            zip(VNET_HEADER_DTYPE.names, struct.unpack("<BBHHHHH", vnet_header(kind, offload)), strict=True)
        )
        for name in rng.sample(list(fields), rng.randrange(4)):
            limit = 256 if name in ("flags", "gso_type") else 65536
            fields[name] = rng.choice([rng.randrange(limit), *(word for word in words if word < limit)])
        send(machine, alice, header(**fields) + data)
        machine.vmm.collect_faults()
        received = receive_all(to)
        if to is taker:
            for found, whole in map(parsed, received):
                assert whole == data or found["flags"] != VnetFlag.VNET_F_NEEDS_CSUM
                assert found["gso_type"] & 0x7F in (0, 1, 3, 4, 5)
        assert sum(map(len, received)) >= len(data) or len(received) in (0, 64)  # its ring was full
        if not received:
            assert alice.context.fault.reason in (Fault.FAULT_OFFLOAD, Fault.FAULT_LENGTH)
        seen.add((to is taker, len(received) > 1))
        machine.vmm.destroy_guest(machine.guest(f"alice{number}"))
    assert len(seen) == 4  # to both, whole and cut: 65 datagrams are more than any stack takes in one frame


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("size", [1000, 3000, 8000, 65535])
def test_a_frame_no_longer_than_its_segments_is_a_frame(machine, name, size):
    """As Linux reads it: there is nothing to cut, only a checksum to complete."""
    kind = dataclasses.replace(KINDS[name], length=900, mss=size)
    alice, bob, carol = guest(machine, "alice"), guest(machine, "bob"), guest(machine, "carol", vnet=False)
    for to in (bob, carol):
        data, offload = large(kind, mac(to), mac(alice))
        send(machine, alice, vnet_header(kind, offload) + data)
        received = receive_all(to)
        if to is carol:
            assert received == finished(data, offload._replace(mss=0))
        else:
            ((found, whole),) = map(parsed, received)
            assert whole == data
            assert (found["flags"], found["gso_type"], found["gso_size"]) == (1, 0, 0)


def test_udp_checksum(machine):
    alice, bob = guest(machine, "alice"), guest(machine, "bob", vnet=False)
    packet = Ether(dst=mac(bob).hex(":"), src=mac(alice).hex(":")) / IP(src="10.0.0.1", dst="10.0.0.2")
    done = bytes(packet / UDP(sport=1, dport=2) / Raw(b"x" * 99))
    pseudo = struct.unpack("!4H", done[26:34])
    total = sum(pseudo) + 17 + 107
    total = (total & 0xFFFF) + (total >> 16)
    data = done[:40] + total.to_bytes(2, "big") + done[42:]
    send(machine, alice, checksum_wanted(34, 6) + data)
    assert receive_all(bob) == [done]
