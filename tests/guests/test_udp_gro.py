"""Datagrams of one flow reach a guest's stack joined, and nothing else does."""

import os
import random

import numpy as np
import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Raw
from tests.support.nic_parts import internet_checksum

from cdna.abi import VNET_HEADER_DTYPE, VnetFlag, VnetGso
from tests.guests.test_pump import Lab, get, until
from tests.support.frames import mac

HEADER = VNET_HEADER_DTYPE.itemsize


@pytest.fixture
def lab():
    lab = Lab()
    lab.alice, lab.sender = lab.guest("alice")
    lab.bob, lab.receiver = lab.guest("bob", rx_ring=64, vlan="trunk", anti_spoof=False)
    lab.alice.context.set(vlan="trunk")
    lab.pump.set_gro(lab.ports[1], True)
    yield lab
    lab.close()


def header(frame, flags=VnetFlag.VNET_F_NEEDS_CSUM):
    entry = np.zeros(1, VNET_HEADER_DTYPE)
    packet = Ether(frame)
    start = len(frame) - len(packet[UDP]) if UDP in packet else 34
    if flags & VnetFlag.VNET_F_NEEDS_CSUM:
        entry["flags"], entry["csum_start"], entry["csum_offset"] = flags, start, 6
    return entry.tobytes()


def datagrams(lab, count, size=18, ip=IP, ports=(1000, 2000), **changes):
    """Frames as a stack sends them: identifications that rise, a payload of its own each."""
    rng = random.Random(size)
    addresses = {"src": "10.0.0.1", "dst": "10.0.0.2"} if ip is IP else {"src": "fd00::1", "dst": "fd00::2"}
    frames = []
    for number in range(count):
        network = ip(**addresses, **({"id": 100 + number} if ip is IP else {}), **changes)
        udp = UDP(sport=ports[0], dport=ports[1])
        packet = Ether(dst=mac(lab.bob).hex(":"), src=mac(lab.alice).hex(":")) / network / udp
        frames.append(bytes(packet / Raw(rng.randbytes(size))))
    return frames


def send(lab, frames, **kwargs):
    """All of them wait in the tap before the loop runs, so that one round has them all."""
    for frame in frames:
        lab.sender.send(header(frame, **kwargs) + frame)
    lab.start()


def split(data):
    """(header, the datagrams' payloads, the large frame) of what the stack got."""
    found = np.frombuffer(data[:HEADER], VNET_HEADER_DTYPE)[0]
    frame = data[HEADER:]
    payload = bytes(Ether(frame)[UDP].payload)
    size = int(found["gso_size"]) or len(payload)
    return found, [payload[i : i + size] for i in range(0, len(payload), size)], frame


def payloads(frames):
    return [bytes(Ether(frame)[UDP].payload) for frame in frames]


@pytest.mark.parametrize("ip", [IP, IPv6])
@pytest.mark.parametrize(("count", "size"), [(2, 1), (10, 18), (6, 1472)])  # no more than a turn has for sure
def test_datagrams_of_one_flow_are_joined(lab, ip, count, size):
    frames = datagrams(lab, count, size, ip)
    send(lab, frames)
    found, parts, frame = split(get(lab.receiver))
    assert parts == payloads(frames)
    assert (found["gso_type"], found["gso_size"], found["flags"]) == (VnetGso.VNET_GSO_UDP_L4, size, 1)
    packet = Ether(frame)
    assert packet[UDP].len == 8 + count * size
    start = len(frame) - len(packet[UDP])
    assert (found["csum_start"], found["csum_offset"], found["hdr_len"]) == (start, 6, start + 8)
    # The open checksum is the pseudo header's: completed, scapy finds it right.
    done = bytearray(frame)
    done[start + 6 : start + 8] = internet_checksum(frame[start:]).to_bytes(2, "big")
    expected = Ether(frame)
    del expected[UDP].chksum
    if ip is IP:
        assert packet[IP].len == 20 + 8 + count * size
        del expected[IP].chksum
    else:
        assert packet[IPv6].plen == 8 + count * size
    assert bytes(expected) == bytes(done)


def test_a_shorter_one_is_the_last(lab):
    frames = datagrams(lab, 3, 100) + datagrams(lab, 1, 40) + datagrams(lab, 2, 100)
    send(lab, frames)
    assert split(get(lab.receiver))[1] == payloads(frames[:4])
    assert split(get(lab.receiver))[1] == payloads(frames[4:])


def test_a_longer_one_begins_anew(lab):
    frames = datagrams(lab, 2, 40) + datagrams(lab, 2, 41)
    send(lab, frames)
    assert split(get(lab.receiver))[1] == payloads(frames[:2])
    assert split(get(lab.receiver))[1] == payloads(frames[2:])


APART = {
    "ports": {"ports": (1000, 2001)},
    "time to live": {"ttl": 63},
    "type of service": {"tos": 4},
    "don't fragment": {"flags": "DF"},
}


@pytest.mark.parametrize("case", APART)
def test_another_flow_stays_apart(lab, case):
    one, other = datagrams(lab, 2), datagrams(lab, 2, **APART[case])
    frames = [one[0], other[0], one[1], other[1]]
    send(lab, frames)
    for frame in frames:
        data = get(lab.receiver)
        assert data[HEADER:] == frame
        assert data[1] == VnetGso.VNET_GSO_NONE


def ethernet(lab):
    return Ether(dst=mac(lab.bob).hex(":"), src=mac(lab.alice).hex(":"))


def test_nothing_is_joined_unless_it_is_wanted(lab):
    lab.pump.set_gro(lab.ports[1], False)
    frames = datagrams(lab, 4)
    send(lab, frames)
    assert [get(lab.receiver)[HEADER:] for _ in frames] == frames


SINGLE = {
    "fragments": lambda lab: datagrams(lab, 2, flags="MF"),
    "later fragments": lambda lab: datagrams(lab, 2, frag=3),
    "IP options": lambda lab: datagrams(lab, 2, options=b"\x01\x01\x01\x01"),
    "a length that lies": lambda lab: [f[:38] + b"\x00\x20" + f[40:] for f in datagrams(lab, 2)],
    "padding": lambda lab: [f + bytes(4) for f in datagrams(lab, 2)],
    "no payload": lambda lab: datagrams(lab, 2, 0),
    "tags": lambda lab: [bytes(ethernet(lab) / Dot1Q(vlan=3) / f[14:]) for f in datagrams(lab, 2)],
    "TCP": lambda lab: [bytes(ethernet(lab) / IP() / TCP() / Raw(b"x" * 20))] * 2,
}


@pytest.mark.parametrize("case", SINGLE)
def test_what_is_never_joined(lab, case):
    frames = SINGLE[case](lab)
    send(lab, frames, flags=0)
    assert [get(lab.receiver)[HEADER:] for _ in frames] == frames


def test_unknown_checksums_are_not_vouched_for(lab):
    frames = datagrams(lab, 4)
    send(lab, frames, flags=0)
    assert [get(lab.receiver)[HEADER:] for _ in frames] == frames


def test_a_checksum_that_a_tunnel_left_open_stays_open(lab):
    """What is left to do is in the payload: the datagrams' own checksums say nothing of it."""
    frames = datagrams(lab, 2, 60)
    start = 14 + 20 + 8 + 34
    for frame in frames:
        entry = np.zeros(1, VNET_HEADER_DTYPE)
        entry["flags"], entry["csum_start"], entry["csum_offset"] = 1, start, 16
        lab.sender.send(entry.tobytes() + frame)
    lab.start()
    for frame in frames:
        data = get(lab.receiver)
        assert data[HEADER:] == frame
        found = np.frombuffer(data[:HEADER], VNET_HEADER_DTYPE)[0]
        assert (found["flags"], found["gso_type"], found["csum_start"]) == (1, VnetGso.VNET_GSO_NONE, start)


def test_a_header_whose_checksum_is_wrong_is_not_mended(lab):
    frames = datagrams(lab, 3)
    frames[1] = frames[1][:24] + bytes([frames[1][24] ^ 1]) + frames[1][25:]
    send(lab, frames)
    assert [get(lab.receiver)[HEADER:] for _ in frames] == frames


def test_the_order_within_a_flow_and_beside_other_frames(lab):
    frames = datagrams(lab, 3)
    other = bytes(ethernet(lab) / IP() / TCP() / Raw(b"between"))
    send(lab, [frames[0], frames[1], other, frames[2]], flags=1)
    assert split(get(lab.receiver))[1] == payloads(frames[:2])
    assert get(lab.receiver)[HEADER:][:34] == other[:34]
    assert get(lab.receiver)[HEADER:] == frames[2]


def test_a_tap_that_takes_no_joined_datagrams(lab):
    """Each is then written by itself; here the kernel says EINVAL to these, too, and all are counted."""
    counter = os.eventfd(0, os.EFD_NONBLOCK)  # takes writes of eight bytes alone
    try:
        carol = lab.machine.attach("carol", vnet_header=True, buffer_size=16384, tx_ring=8, rx_ring=32)
        port = lab.pump.add(carol, counter)
        lab.pump.set_gro(port, True)
        frames = [mac(carol) + frame[6:] for frame in datagrams(lab, 5)]
        send(lab, frames)
        assert until(lambda: lab.pump.stats(port)["lost_to_tap"] == 5)
        lab.pump.remove(port)
    finally:
        os.close(counter)
