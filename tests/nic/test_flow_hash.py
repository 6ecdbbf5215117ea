"""The hashes of flows: virtio's against the published verification suite, the NIC's own by what it is for."""

import random
import struct
from collections import Counter

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, fragment
from scapy.layers.inet6 import (
    HAO,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    Pad1,
    PadN,
)
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether
from scapy.packet import Raw
from tests.support.nic_parts import hash_frame, hash_frame_rss

from cdna.nic.offload.flow_hash import HashReport, HashType

# Microsoft, "Verifying the RSS Hash Calculation": the key, and (destination, source, ports, hashes).
KEY = bytes.fromhex("6d5a56da255b0ec24167253d43a38fb0d0ca2bcbae7b30b477cb2da38030f20c6a42b73bbeac01fa")
SUITE = [
    ("161.142.100.80", "66.9.149.187", 1766, 2794, 0x323E8FC2, 0x51CCC178),
    ("65.69.140.83", "199.92.111.2", 4739, 14230, 0xD718262A, 0xC626B0EA),
    ("12.22.207.184", "24.19.198.95", 38024, 12898, 0xD2D0A5DE, 0x5C2B394A),
    ("209.142.163.6", "38.27.205.30", 2217, 48228, 0x82989176, 0xAFC7327F),
    ("202.188.127.2", "153.39.163.191", 1303, 44251, 0x5D1809C5, 0x10E828A2),
    ("3ffe:2501:200:3::1", "3ffe:2501:200:1fff::7", 1766, 2794, 0x2CC18CD5, 0x40207D3D),
    ("ff02::1", "3ffe:501:8::260:97ff:fe40:efab", 4739, 14230, 0x0F0C461C, 0xDDE51BBF),
    (
        "fe80::200:f8ff:fe21:67cf",
        "3ffe:1900:4545:3:200:f8ff:fe21:67cf",
        38024,
        44251,
        0x4B61E985,
        0x02D1FEEF,
    ),
]
ALL = sum(HashType)
STATIONS = {"dst": "02:00:00:00:00:02", "src": "02:00:00:00:00:01"}
T, R = HashType, HashReport


def rss(packet, types=ALL):
    return hash_frame_rss(bytes(packet), KEY, types)


def ip_of(text):
    return IPv6 if ":" in text else IP


@pytest.mark.parametrize("tags", [0, 1, 2])
@pytest.mark.parametrize("transport", [TCP, UDP])
@pytest.mark.parametrize(("to", "source", "dport", "sport", "of_ip", "of_ports"), SUITE)
def test_the_verification_suite(to, source, dport, sport, of_ip, of_ports, transport, tags):
    ip = ip_of(to)
    link = Ether(**STATIONS)
    for tag in [Dot1AD(vlan=3), Dot1Q(vlan=5)][2 - tags :]:
        link /= tag
    packet = link / ip(dst=to, src=source) / transport(sport=sport, dport=dport) / Raw(b"payload")
    version, name = ("v4" if ip is IP else "v6"), transport.__name__
    ports, addresses = (
        T[f"VIRTIO_NET_HASH_TYPE_{name}{version}"],
        T[f"VIRTIO_NET_HASH_TYPE_IP{version}"],
    )
    reports = R[f"VIRTIO_NET_HASH_REPORT_{name}{version}"], R[f"VIRTIO_NET_HASH_REPORT_IP{version}"]
    assert rss(packet) == rss(packet, ports) == (of_ports, reports[0])
    assert rss(packet, addresses) == rss(packet, ALL - ports) == (of_ip, reports[1])
    assert rss(packet, ALL - ports - addresses) == rss(packet, 0) == (0, R.VIRTIO_NET_HASH_REPORT_NONE)


def toeplitz(data):
    """The hash as it is defined, bit by bit."""
    key, result = int.from_bytes(KEY, "big"), 0
    for i in range(len(data) * 8):
        if data[i // 8] & 0x80 >> i % 8:
            result ^= key >> (len(KEY) * 8 - 32 - i) & 0xFFFFFFFF
    return result


def test_any_addresses_and_ports():
    rng = random.Random(3)
    for _ in range(200):
        data = rng.randbytes(36)
        packet = struct.pack("!IHBB", 6 << 28, 20, 6, 64) + data[:32] + data[32:] + bytes(16)
        assert hash_frame_rss(bytes(12) + b"\x86\xdd" + packet, KEY, ALL)[0] == toeplitz(data)


V6 = {"src": "2001:db8::1", "dst": "2001:db8::2"}
HOME, ROUTED = "2001:db8:ffff::7", "2001:db8:eeee::8"


def packed(*addresses):
    return b"".join(bytes(IPv6(src=address))[8:24] for address in addresses)


def extended(*headers, transport=None):
    packet = Ether(**STATIONS) / IPv6(**V6)
    for header in headers:
        packet /= header
    return packet / (transport or TCP(sport=1, dport=2))


HOME_OPTION = IPv6ExtHdrDestOpt(options=[Pad1(), PadN(optdata=b"\0"), HAO(hoa=HOME)])
TYPE_2 = IPv6ExtHdrRouting(type=2, segleft=1, addresses=[ROUTED])


@pytest.mark.parametrize(
    ("headers", "source", "to"),
    [
        ([HOME_OPTION], HOME, V6["dst"]),
        ([TYPE_2], V6["src"], ROUTED),
        ([TYPE_2, HOME_OPTION], HOME, ROUTED),
        ([IPv6ExtHdrHopByHop()], V6["src"], V6["dst"]),
        ([IPv6ExtHdrRouting(type=0, segleft=0, addresses=[ROUTED])], V6["src"], V6["dst"]),
    ],
)
@pytest.mark.parametrize("name", ["TCP", "UDP", "IP"])
def test_extension_headers(headers, source, to, name):
    transport = {"TCP": TCP(sport=1, dport=2), "UDP": UDP(sport=1, dport=2), "IP": ICMP()}[name]
    packet = extended(*headers, transport=transport)
    ports = b"\0\1\0\2" if name != "IP" else b""
    wanted, report = T[f"VIRTIO_NET_HASH_TYPE_{name}_EX"], R[f"VIRTIO_NET_HASH_REPORT_{name}v6_EX"]
    assert rss(packet) == (toeplitz(packed(source, to) + ports), report)
    assert rss(packet, wanted) == (toeplitz(packed(source, to) + ports), report)
    # Without that type: as if the extension headers were not there.
    plain = T[f"VIRTIO_NET_HASH_TYPE_{name}v6"]
    expected = toeplitz(packed(V6["src"], V6["dst"]) + ports)
    assert rss(packet, plain) == (expected, R[f"VIRTIO_NET_HASH_REPORT_{name}v6"])


def test_fragments_are_hashed_by_their_addresses():
    datagram = (
        Ether(**STATIONS) / IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=1, dport=2) / Raw(bytes(3000))
    )
    expected = toeplitz(bytes([10, 0, 0, 1, 10, 0, 0, 2]))
    for part in fragment(datagram, 1480):
        assert rss(part) == (expected, R.VIRTIO_NET_HASH_REPORT_IPv4)
    first = extended(IPv6ExtHdrFragment(m=1, id=5), transport=UDP(sport=1, dport=2))
    assert rss(first, ALL)[1] == R.VIRTIO_NET_HASH_REPORT_IPv6


@pytest.mark.parametrize(
    "packet", [Ether(**STATIONS) / ARP(), Ether(**STATIONS, type=0x88B5) / Raw(bytes(60))]
)
def test_what_is_not_ip_has_no_rss_hash(packet):
    assert rss(packet) == (0, R.VIRTIO_NET_HASH_REPORT_NONE)


def test_frames_that_end_anywhere():
    """No byte behind the end is read: with what is there, the best that it allows."""
    for whole in (
        bytes(Ether(**STATIONS) / IP(options=b"\1" * 8) / TCP()),
        bytes(extended(TYPE_2, HOME_OPTION)),
        bytes(Ether(**STATIONS) / Dot1AD() / Dot1Q() / IPv6() / UDP()),
    ):
        for n in range(14, len(whole)):
            assert hash_frame_rss(whole[:n], KEY, ALL) == hash_frame_rss(bytearray(whole[:n]), KEY, ALL)
            assert hash_frame(whole[:n]) == hash_frame(bytearray(whole[:n]))


def test_any_bytes_at_all():
    rng = random.Random(4)
    heads = [b"\x08\x00\x45", b"\x08\x00\x4f", b"\x86\xdd\x60", b"\x81\x00\0\5\x86\xdd\x60"]
    for _ in range(3000):
        frame = bytearray(bytes(12) + rng.choice(heads) + rng.randbytes(rng.randrange(200)))
        if len(frame) > 20:
            frame[20] = rng.choice([0, 43, 60, 44, 6, 17, 255])
        hash_frame(frame)
        hash_frame_rss(frame, KEY, rng.randrange(ALL + 1))


# --- the NIC's own ------------------------------------------------------------------------------------------


def flow(ip=IP, transport=UDP, host=1, sport=1000, payload=b"", ttl=64):
    addresses = {"src": f"10.0.0.{host}", "dst": "10.0.1.1"}
    if ip is IPv6:
        addresses = {"src": f"fd00::{host:x}", "dst": "fd00::1:1"}
    hops = {"ttl": ttl} if ip is IP else {"hlim": ttl}
    return bytes(Ether(**STATIONS) / ip(**addresses, **hops) / transport(sport=sport) / payload)


@pytest.mark.parametrize("transport", [TCP, UDP])
@pytest.mark.parametrize("ip", [IP, IPv6])
def test_a_flow_keeps_its_hash(ip, transport):
    assert hash_frame(flow(ip, transport)) == hash_frame(flow(ip, transport, payload=bytes(500), ttl=3))


@pytest.mark.parametrize("queues", [2, 3, 8])
@pytest.mark.parametrize("varied", ["sport", "host"])
@pytest.mark.parametrize("transport", [TCP, UDP, ICMP])
@pytest.mark.parametrize("ip", [IP, IPv6])
def test_flows_are_spread_over_queues(ip, transport, varied, queues):
    """By the hash's low bits as by its high ones; neighbours among ports and addresses are what there is."""
    if transport is ICMP:
        if varied == "sport":
            pytest.skip("no ports")
        frames = [flow(ip, lambda sport: ICMP(), host=host) for host in range(1, 251)]
    else:
        frames = [flow(ip, transport, **{varied: number}) for number in range(1, 251)]
    hashes = [hash_frame(frame) for frame in frames]
    assert len(set(hashes)) == 250
    for choose in (lambda value: value % queues, lambda value: value * queues >> 32):
        counts = Counter(map(choose, hashes))
        assert len(counts) == queues
        assert max(counts.values()) < 1.6 * 250 / queues


def test_what_is_not_ip_is_told_apart_by_its_stations():
    frames = [
        bytes(Ether(dst=STATIONS["dst"], src=f"02:00:00:00:00:{i:02x}", type=0x88B5)) for i in range(250)
    ]
    assert len({hash_frame(frame) for frame in frames}) == 250
    assert hash_frame(frames[0] + b"one") == hash_frame(frames[0] + b"other")
