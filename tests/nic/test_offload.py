"""Offloads against scapy, which computes the same checksums and takes the segments apart.

Buffers lie against pages that can't be touched: a byte read or written too far ends the process.
"""

import ctypes
import itertools
import mmap
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.all import (
    ARP,
    IP,
    TCP,
    UDP,
    Dot1AD,
    Dot1Q,
    Ether,
    IPOption_NOP,
    IPOption_Router_Alert,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    IPv6ExtHdrSegmentRouting,
    PadN,
    Raw,
    RouterAlert,
)
from scapy.layers.inet import in4_pseudoheader
from scapy.layers.inet6 import in6_pseudoheader
from scapy.utils import checksum as scapy_checksum
from tests.support.nic_parts import finish_checksum, internet_checksum, segment, verify_checksum

from cdna.abi import Fault, Limits

CANARY = 0xA5
MACS = {"dst": "02:00:00:00:00:01", "src": "02:00:00:00:00:02"}
V4 = {"src": "192.0.2.1", "dst": "198.51.100.254"}
V6 = {"src": "2001:db8::1", "dst": "2001:db8:ffff::fffe"}

LINK = {
    "untagged": lambda: Ether(**MACS),
    "vlan": lambda: Ether(**MACS) / Dot1Q(vlan=5),
    "qinq": lambda: Ether(**MACS) / Dot1AD(vlan=7) / Dot1Q(vlan=5),
}
NETWORK = {
    "ipv4": lambda: IP(**V4, id=0xFFFE),
    "ipv4-options": lambda: IP(**V4, id=7, options=[IPOption_Router_Alert(), IPOption_NOP()]),
    "ipv6": lambda: IPv6(**V6),
    "ipv6-extensions": lambda: (
        IPv6(**V6)
        / IPv6ExtHdrHopByHop(options=[RouterAlert()])
        / IPv6ExtHdrRouting(segleft=0, addresses=["2001:db8::7"])
        / IPv6ExtHdrDestOpt(options=[PadN(optdata=bytes(12))])
    ),
}
# On the way to another address first: the pseudo header has the last one (RFC 8200, 8.1).
ROUTED = {
    "ipv6-routed": lambda: (
        IPv6(**V6) / IPv6ExtHdrRouting(segleft=2, addresses=["2001:db8::7", "2001:db8::8"])
    ),
    "ipv6-srv6": lambda: (
        IPv6(**V6)
        / IPv6ExtHdrHopByHop(options=[RouterAlert()])
        / IPv6ExtHdrSegmentRouting(segleft=1, addresses=["2001:db8::9", V6["dst"]])
        / IPv6ExtHdrDestOpt(options=[PadN(optdata=bytes(12))])
    ),
}
SEGMENTED = {**NETWORK, **ROUTED}
PORTS = {"sport": 40000, "dport": 40001}
TCP_OPTIONS = {
    "plain": [],
    "timestamp": [("NOP", None), ("NOP", None), ("Timestamp", (1, 2))],
    "sack": [("NOP", None), ("NOP", None), ("SAck", (1, 2, 3, 4))],
}


class Arena:
    """Memory between two pages that can't be touched, full of canaries."""

    def __init__(self, size):
        self.size = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
        self.map = mmap.mmap(-1, self.size + 2 * mmap.PAGESIZE)
        start = ctypes.addressof(ctypes.c_char.from_buffer(self.map))
        libc = ctypes.CDLL(None, use_errno=True)
        for guard in (start, start + mmap.PAGESIZE + self.size):
            assert libc.mprotect(ctypes.c_void_p(guard), ctypes.c_size_t(mmap.PAGESIZE), 0) == 0
        self.memory = memoryview(self.map)[mmap.PAGESIZE : mmap.PAGESIZE + self.size]

    def place(self, data, at_end=True):
        """A writable view of `data` that ends, or starts, where the memory does."""
        self.memory[:] = bytes([CANARY]) * self.size
        self.at = self.size - len(data) if at_end else 0
        self.end = self.at + len(data)
        self.memory[self.at : self.end] = data
        return self.memory[self.at : self.end]

    def intact(self):
        """Whether every byte outside the placed data is still a canary."""
        outside = bytes(self.memory[: self.at]) + bytes(self.memory[self.end :])
        return outside.count(CANARY) == len(outside)


FRAME = Arena(65536 + 4096)
OUT = Arena(131072)


def payload_of(length):
    return bytes((i * 7 + (i >> 8) + 1) & 0xFF for i in range(length))


def build(link, network, transport, length):
    """A frame as scapy builds it, checksums and lengths filled in."""
    return bytes(LINK[link]() / SEGMENTED[network]() / transport / Raw(payload_of(length)))


def layers(packet):
    while packet:
        yield packet
        packet = packet.payload


def rebuilt(frame):
    """The frame with each length and checksum computed by scapy, from the contents alone."""
    packet = Ether(frame)
    for layer in layers(packet):
        for name in ("len", "chksum", "plen"):
            if name in layer.fields:
                layer.delfieldval(name)
    return bytes(packet)


def transport_offset(frame):
    packet = Ether(frame)
    return len(frame) - len(packet[TCP] if TCP in packet else packet[UDP])


def pseudo_sum(frame):
    """The folded sum of the pseudo header, which a guest leaves in the checksum field."""
    packet = Ether(frame)
    transport = packet[TCP] if TCP in packet else packet[UDP]
    protocol = 6 if TCP in packet else 17
    pseudo = in4_pseudoheader if IP in packet else in6_pseudoheader
    return ~scapy_checksum(bytes(pseudo(protocol, transport.underlayer, len(transport)))) & 0xFFFF


def patched(frame, at, replacement):
    return frame[:at] + replacement + frame[at + len(replacement) :]


def agrees(frame, part, csum_start, csum_offset, **_):
    """Whether the checksum of a segment is what the partial sum of the large frame makes it."""
    (partial,) = struct.unpack_from("!H", frame, csum_start + csum_offset)
    shorter = len(frame) - len(part)
    return (partial - shorter - scapy_checksum(part[csum_start:])) % 0xFFFF == 0


def tcp_frame(link="untagged", network="ipv4", length=1000, options="plain", **fields):
    """A large TCP frame, and the offload descriptor that belongs to it but for the mss."""
    fields = {"flags": "A", "options": TCP_OPTIONS[options], **fields}
    tcp = TCP(**PORTS, seq=0xFFFFFF00, ack=5, window=777, **fields)
    frame = build(link, network, tcp, length)
    start = transport_offset(frame)
    frame = patched(frame, start + 16, struct.pack("!H", pseudo_sum(frame)))
    return frame, {"csum_start": start, "csum_offset": 16, "hdr_len": len(frame) - length}


def cut(frame, **offload):
    """The segments of a frame, made where no byte may be touched outside the two buffers."""
    out = OUT.place(bytes([CANARY]) * OUT.size)
    fault, lengths = segment(FRAME.place(frame), out, **offload)
    assert bytes(FRAME.memory[FRAME.at : FRAME.end]) == frame
    assert FRAME.intact()
    used = sum(lengths)
    rest = bytes(out[used:])
    assert rest.count(CANARY) == len(rest)
    segments, at = [], 0
    for length in lengths:
        segments.append(bytes(out[at : at + length]))
        at += length
    return fault, segments


def check_segments(frame, segments, mss, csum_start, hdr_len, **_):
    """Everything that segments of a frame must be, with scapy's view of each of them."""
    payload = frame[hdr_len:]
    assert b"".join(part[hdr_len:] for part in segments) == payload
    assert [len(part) - hdr_len for part in segments] == [
        min(mss, len(payload) - at) for at in range(0, len(payload), mss)
    ]
    whole = Ether(frame)
    for i, part in enumerate(segments):
        assert rebuilt(part) == part
        packet = Ether(part)
        assert packet[TCP].seq == (whole[TCP].seq + i * mss) % 2**32
        not_here = ("" if i == len(segments) - 1 else "FP") + ("" if i == 0 else "C")
        assert set(str(packet[TCP].flags)) == set(str(whole[TCP].flags)) - set(not_here)
        if IP in packet:
            assert packet[IP].id == (whole[IP].id + i) % 2**16
        # What else is in the headers is copied: nothing but these fields may differ.
        for layer, original in zip(layers(packet), layers(whole), strict=False):
            for name in {"len", "plen", "chksum", "id", "seq", "flags", "load"} ^ set(layer.fields):
                if name in layer.fields:
                    assert layer.fields[name] == original.fields[name], name
        assert part[:12] == frame[:12]


# --- the sum ------------------------------------------------------------------------------------------------


@settings(deadline=None)  # a machine that does other things as well
@given(data=st.binary(max_size=600), shift=st.integers(0, 9))
def test_sum_of_any_bytes_at_any_alignment(data, shift):
    FRAME.place(data + bytes(shift))
    view = FRAME.memory[FRAME.at : FRAME.at + len(data)]
    assert internet_checksum(view) == scapy_checksum(data)


@pytest.mark.parametrize("length", [0, 1, 2, 7, 8, 9, 63, 64, 65, 1514, 9018, 65535, 1 << 20])
@pytest.mark.parametrize("byte", [0x00, 0x01, 0xFF])
def test_sum_of_lengths_and_carries(length, byte):
    data = bytes([byte]) * length
    assert internet_checksum(data) == scapy_checksum(data)


# --- checksums on transmit ----------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [0, 1, 2, 3, 100, 1459, 1460])
@pytest.mark.parametrize("transport", [TCP, UDP])
@pytest.mark.parametrize("network", SEGMENTED)
@pytest.mark.parametrize("link", LINK)
def test_finished_frame_is_what_scapy_builds(link, network, transport, length):
    frame = build(link, network, transport(**PORTS), length)
    start, offset = transport_offset(frame), 16 if transport is TCP else 6
    view = FRAME.place(patched(frame, start + offset, struct.pack("!H", pseudo_sum(frame))))
    assert finish_checksum(view, start, offset) == Fault.FAULT_NONE
    assert bytes(view) == frame
    assert FRAME.intact()


@pytest.mark.parametrize(("transport", "offset", "stored"), [(UDP, 6, 0xFFFF), (TCP, 16, 0)])
@pytest.mark.parametrize("network", NETWORK)
def test_checksum_that_comes_out_as_zero(network, transport, offset, stored):
    frame = bytes(LINK["untagged"]() / NETWORK[network]() / transport(**PORTS) / Raw(bytes(2)))
    start = transport_offset(frame)
    frame = frame[:-2] + frame[start + offset : start + offset + 2]  # the sum is now 0xFFFF
    view = FRAME.place(patched(frame, start + offset, struct.pack("!H", pseudo_sum(frame))))
    assert finish_checksum(view, start, offset) == Fault.FAULT_NONE
    assert struct.unpack("!H", view[start + offset : start + offset + 2]) == (stored,)
    assert verify_checksum(view)
    assert bytes(view) == rebuilt(bytes(view))
    # The same sum with a field of zero: in UDP it says that there is no checksum.
    view[start + offset : start + offset + 2] = bytes(2)
    assert verify_checksum(view) == (transport is TCP)


WORDS = st.one_of(st.integers(0, 120), st.integers(0, 0xFFFF), st.sampled_from([0xFFFE, 0xFFFF]))
TAG = b"\x81\x00\0\1"
LINK_BYTES = {14: b"\x08\x00", 18: TAG + b"\x08\x00", 22: b"\x88\xa8\0\1" + TAG + b"\x08\x00", 0: 9 * TAG}
for old, tpid in enumerate((b"\x91\x00", b"\x92\x00", b"\x93\x00")):
    LINK_BYTES[26 + 4 * old] = LINK_BYTES[22 + 4 * old][:-2] + tpid + b"\0\1\x08\x00"


@pytest.mark.parametrize("network", [14, 18, 22, 26, 30, 34])
def test_any_offload_changes_two_bytes_behind_the_link_header_or_none(network):
    frame = bytes(12) + LINK_BYTES[network] + payload_of(11)
    values = [*range(len(frame) + 4), 0x7FFF, 0x8000, 0xFFFE, 0xFFFF]
    for start, offset in itertools.product(values, values):
        view = FRAME.place(frame)
        fits = network <= start and start + offset + 2 <= len(frame)
        assert finish_checksum(view, start, offset) == (Fault.FAULT_NONE if fits else Fault.FAULT_OFFLOAD)
        expected = frame
        if fits:
            value = scapy_checksum(frame[start:])
            if value == 0 and offset == 6:
                value = 0xFFFF
            expected = patched(frame, start + offset, struct.pack("!H", value))
        assert bytes(view) == expected, (start, offset)
    assert FRAME.intact()


@settings(deadline=None)  # a machine that does other things as well
@given(
    body=st.binary(max_size=60), link=st.sampled_from(list(LINK_BYTES.values())), start=WORDS, offset=WORDS
)
def test_any_offload_of_any_bytes_stays_inside_the_frame(body, link, start, offset):
    for at_end in (True, False):
        finish_checksum(FRAME.place((bytes(12) + link + body)[: len(body)], at_end), start, offset)
        assert FRAME.intact()


# --- segmentation -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("length", "mss"),
    [
        (30, 1),
        (1, 1),
        (1, 1448),
        (1448, 1448),
        (2896, 1448),
        (2897, 1448),
        (2895, 1448),
        (999, 333),
        (100, 7),
    ],
)
@pytest.mark.parametrize("options", TCP_OPTIONS)
@pytest.mark.parametrize("network", SEGMENTED)
@pytest.mark.parametrize("link", LINK)
def test_segments(link, network, options, length, mss):
    frame, offload = tcp_frame(link, network, length, options, flags="FPAUEC", urgptr=3)
    fault, segments = cut(frame, mss=mss, **offload)
    assert fault == Fault.FAULT_NONE
    check_segments(frame, segments, mss, **offload)


@pytest.mark.parametrize("mss", [536, 1448, 8800])
@pytest.mark.parametrize("network", SEGMENTED)
def test_largest_frame(network, mss):
    header = tcp_frame("untagged", network, 0)[1]["hdr_len"]
    frame, offload = tcp_frame("untagged", network, 65535 - header)
    assert len(frame) == 65535
    fault, segments = cut(frame, mss=mss, **offload)
    assert fault == Fault.FAULT_NONE
    check_segments(frame, segments, mss, **offload)


@settings(deadline=None)  # a machine that does other things as well
@given(
    link=st.sampled_from(list(LINK)),
    network=st.sampled_from(list(SEGMENTED)),
    options=st.sampled_from(list(TCP_OPTIONS)),
    length=st.integers(1, 5000),
    parts=st.integers(1, 12),
    flags=st.sets(st.sampled_from("FPAUEC")),
)
def test_any_segmentation(link, network, options, length, parts, flags):
    frame, offload = tcp_frame(link, network, length, options, flags="".join(flags))
    mss = -(-length // parts)
    fault, segments = cut(frame, mss=mss, **offload)
    assert fault == Fault.FAULT_NONE
    check_segments(frame, segments, mss, **offload)


@pytest.mark.parametrize("network", ["ipv4", "ipv6"])
def test_the_length_and_the_checksum_of_a_large_packet_do_not_matter(network):
    frame, offload = tcp_frame("untagged", network, 3000)
    zeros = [(16, 2), (24, 2)] if network == "ipv4" else [(18, 2)]
    blank = frame
    for at, n in zeros:
        blank = patched(blank, at, bytes(n))
    assert cut(blank, mss=1000, **offload) == cut(frame, mss=1000, **offload)


def test_stops_where_a_segment_has_no_room():
    frame, offload = tcp_frame(length=1000)
    size = offload["hdr_len"] + 300
    for room in (0, size - 1, size, 2 * size - 1, 2 * size + 7):
        out = OUT.place(bytes(room))
        fault, lengths = segment(frame, out, mss=300, **offload)
        assert (fault, lengths) == (Fault.FAULT_NONE, [size] * (room // size))
        assert OUT.intact()


def ip_bytes(at, value):
    """A change of the network header of an untagged frame."""
    return lambda frame: patched(frame, 14 + at, value)


REFUSED = {
    "no mss": ({"mss": 0}, {}, None),
    "no payload": ({}, {"length": 0}, None),
    "headers longer than the frame": ({"hdr_len": 60000}, {}, None),
    "headers end inside TCP": ({"hdr_len": 53}, {}, None),
    "headers end behind TCP": ({"hdr_len": 55}, {}, None),
    "no headers": ({"hdr_len": 0}, {}, None),
    "csum_start inside IP": ({"csum_start": 33}, {}, None),
    "csum_start inside TCP": ({"csum_start": 35}, {}, None),
    "csum_offset of UDP": ({"csum_offset": 6}, {}, None),
    "all at its largest": (dict.fromkeys(["csum_start", "csum_offset", "mss", "hdr_len"], 0xFFFF), {}, None),
    "segment larger than a frame": ({"mss": 9000}, {"length": 9000}, None),
    "SYN": ({}, {"flags": "SA"}, None),
    "RST": ({}, {"flags": "RA"}, None),
    "data offset too small": ({}, {}, lambda frame: patched(frame, 14 + 20 + 12, b"\x40")),
    "TCP header too short": ({"hdr_len": 50}, {}, lambda frame: patched(frame, 14 + 20 + 12, b"\x40")),
    "data offset too large": ({}, {}, lambda frame: patched(frame, 14 + 20 + 12, b"\xf0")),
    "not IP": ({}, {}, lambda frame: patched(frame, 12, b"\x08\x06")),
    "IPv6 in the ethertype of IPv4": ({}, {"network": "ipv6"}, lambda frame: patched(frame, 12, b"\x08\x00")),
    "IPv4 in the ethertype of IPv6": ({}, {}, lambda frame: patched(frame, 12, b"\x86\xdd")),
    "a tag in the place of IP": ({}, {"link": "qinq"}, lambda frame: patched(frame, 20, b"\x81\x00")),
    "IPv4 header longer than it says": ({}, {}, ip_bytes(0, b"\x44")),
    "IPv4 header too short": (
        {"csum_start": 30, "hdr_len": 50},
        {},
        lambda frame: patched(patched(frame, 14, b"\x44"), 30 + 12, b"\x50"),
    ),
    "IPv4 header too long": ({}, {}, ip_bytes(0, b"\x4f")),
    "UDP": ({}, {}, ip_bytes(9, b"\x11")),
    "first fragment": ({}, {}, ip_bytes(6, b"\x20\x00")),
    "later fragment": ({}, {}, ip_bytes(6, b"\x00\x01")),
    "IPv6 of another protocol": ({}, {"network": "ipv6"}, ip_bytes(6, b"\x11")),
    "IPv6 fragment header": ({}, {"network": "ipv6-extensions"}, ip_bytes(6, b"\x2c")),
    "IPv6 extension header too long": ({}, {"network": "ipv6-extensions"}, ip_bytes(41, b"\xff")),
    "IPv6 extension header over the end": ({}, {"network": "ipv6"}, ip_bytes(6, b"\x00")),
    "IPv6 another header in the chain": ({}, {"network": "ipv6-extensions"}, ip_bytes(48, b"\x33")),
}


@pytest.mark.parametrize("why", REFUSED)
def test_refuses(why):
    values, arguments, change = REFUSED[why]
    frame, offload = tcp_frame(**arguments)
    if change is not None:
        changed = change(frame)
        assert changed != frame
        frame = changed
    assert cut(frame, **{"mss": 500, **offload, **values}) == (Fault.FAULT_OFFLOAD, [])


def test_the_frames_of_the_refused_are_cut_otherwise():
    for _, arguments, _ in REFUSED.values():
        if "flags" not in arguments and arguments.get("length") != 0:
            frame, offload = tcp_frame(**arguments)
            assert cut(frame, mss=500, **offload)[0] == Fault.FAULT_NONE


def options_of(length):
    """Destination options of so many bytes, in as few headers as they take (RFC 8200, 4.6)."""
    headers = IPv6(**V6)
    while length:
        size = min(length, 2048)
        pads = [min(255, left) for left in range(size - 4, -1, -257)]
        headers /= IPv6ExtHdrDestOpt(options=[PadN(optdata=bytes(pad)) for pad in pads])
        length -= size
    return headers


@pytest.mark.parametrize(("length", "fault"), [(2224, Fault.FAULT_NONE), (2232, Fault.FAULT_OFFLOAD)])
def test_refuses_headers_that_are_too_long_to_repeat(length, fault):
    tcp = TCP(**PORTS, flags="A") / Raw(payload_of(500))
    frame = bytes(Ether(**MACS) / options_of(length) / tcp)
    start = len(frame) - 520
    assert start == 14 + 40 + length
    frame = patched(frame, start + 16, struct.pack("!H", pseudo_sum(frame)))
    found, segments = cut(frame, csum_start=start, csum_offset=16, mss=100, hdr_len=start + 20)
    assert (found, len(segments)) == (fault, 0 if fault else 5)
    assert all(rebuilt(part) == part for part in segments)


def test_refuses_a_frame_larger_than_any():
    frame, offload = tcp_frame(length=65535 - 54)
    frame = frame.ljust(Limits.MAX_TSO_FRAME, b"\0")
    assert cut(frame, mss=1448, **offload)[0] == Fault.FAULT_NONE
    assert cut(frame + b"\0", mss=1448, **offload) == (Fault.FAULT_OFFLOAD, [])


@pytest.mark.parametrize("network", SEGMENTED)
@pytest.mark.parametrize("link", LINK)
def test_frames_that_end_anywhere(link, network):
    frame, offload = tcp_frame(link, network, 10)
    for n in range(len(frame)):
        fault, segments = cut(frame[:n], mss=4, **offload)
        if n <= offload["hdr_len"]:
            assert (fault, segments) == (Fault.FAULT_OFFLOAD, [])
        for length in (n, min(n, offload["hdr_len"])):  # with a header length that fits the shorter frame
            cut(frame[:n], mss=4, **{**offload, "hdr_len": length})
        assert not verify_checksum(FRAME.place(frame[:n]))


@settings(deadline=None)  # a machine that does other things as well
@given(
    link=st.sampled_from(list(LINK)),
    network=st.sampled_from(list(SEGMENTED)),
    length=st.integers(0, 300),
    changes=st.lists(st.tuples(st.integers(12, 120), st.integers(0, 255)), max_size=4),
    keep=st.integers(0, 500),
    values=st.fixed_dictionaries(
        {"mss": st.one_of(st.integers(1, 300), WORDS)},
        optional={"csum_start": WORDS, "csum_offset": WORDS, "hdr_len": WORDS},
    ),
)
def test_hostile_frames_and_descriptors(link, network, length, changes, keep, values):
    frame, offload = tcp_frame(link, network, length)
    data = bytearray(frame)
    for at, value in changes:
        if at < len(data):
            data[at] = value
    frame, offload = bytes(data[:keep]), {**offload, **values}
    fault, segments = cut(frame, **offload)
    if fault:
        assert (fault, segments) == (Fault.FAULT_OFFLOAD, [])
        return
    # What was let through comes out right, however it was made.
    assert b"".join(part[offload["hdr_len"] :] for part in segments) == frame[offload["hdr_len"] :]
    for part in segments:
        assert len(part) - offload["hdr_len"] <= offload["mss"]
        assert agrees(frame, part, **offload)


# --- verification on receive --------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [0, 1, 2, 31, 1458])
@pytest.mark.parametrize("transport", [TCP, UDP])
@pytest.mark.parametrize("network", NETWORK)
@pytest.mark.parametrize("link", LINK)
def test_verifies_what_scapy_builds(link, network, transport, length):
    frame = build(link, network, transport(**PORTS), length)
    assert verify_checksum(FRAME.place(frame))
    assert verify_checksum(FRAME.place(frame + b"\xde\xad\xbe"))  # padded by the wire
    assert not verify_checksum(FRAME.place(frame[:-1]))


@pytest.mark.parametrize("transport", [TCP, UDP])
@pytest.mark.parametrize("network", ["ipv4", "ipv6"])
def test_every_changed_byte_is_noticed(network, transport):
    frame = build("untagged", network, transport(**PORTS), 33)
    addresses = range(26, 34) if network == "ipv4" else range(22, 54)
    for at in [*addresses, *range(transport_offset(frame), len(frame))]:
        for change in (0x01, 0x80, 0xFF):
            assert not verify_checksum(FRAME.place(patched(frame, at, bytes([frame[at] ^ change])))), at


@pytest.mark.parametrize("transport", [TCP, UDP])
@pytest.mark.parametrize("network", NETWORK)
def test_every_wrong_length_is_noticed(network, transport):
    frame = build("untagged", network, transport(**PORTS), 33)
    at = 14 + (2 if IP in Ether(frame) else 4)
    right = struct.unpack("!H", frame[at : at + 2])[0]
    for length in [*range(len(frame) + 20), 0x7FFF, 0x8000, 0xFFFF]:
        view = FRAME.place(patched(frame, at, struct.pack("!H", length)))
        # A datagram has a length of its own, which a longer packet does not change.
        assert verify_checksum(view) == (length == right), length


@pytest.mark.parametrize(
    ("protocol", "size", "at"), [(6, 20, 16), (6, 19, 16), (6, 18, 16), (17, 8, 6), (17, 7, 0), (17, 2, 0)]
)
@pytest.mark.parametrize("network", [IP, IPv6])
def test_header_cut_short_under_a_checksum_that_is_right(network, protocol, size, at):
    packet = IP(**V4, proto=protocol) if network is IP else IPv6(**V6, nh=protocol)
    pseudo = in4_pseudoheader if network is IP else in6_pseudoheader
    transport = bytearray(payload_of(30))
    transport[at : at + 2] = bytes(2)
    if protocol == 17:
        transport[4:6] = struct.pack("!H", size)
    else:
        del transport[size:]
    pseudo_header = bytes(pseudo(protocol, packet, size))
    transport[at : at + 2] = struct.pack("!H", scapy_checksum(pseudo_header + bytes(transport[:size])))
    frame = bytes(Ether(**MACS) / packet / Raw(bytes(transport)))
    assert verify_checksum(FRAME.place(frame)) == (size >= (20 if protocol == 6 else 8))


def test_datagram_shorter_than_its_packet():
    frame = build("untagged", "ipv4", UDP(**PORTS, len=8 + 20), 33)
    packet = Ether(frame)
    short = bytes(Ether(**MACS) / IP(**V4) / UDP(**PORTS) / Raw(payload_of(20)))
    frame = patched(frame, 40, short[40:42])
    assert packet[IP].len == 20 + 8 + 33
    assert verify_checksum(FRAME.place(frame))
    assert not verify_checksum(FRAME.place(patched(frame, 38, struct.pack("!H", 8 + 34))))
    assert not verify_checksum(FRAME.place(patched(frame, 38, struct.pack("!H", 7))))


UNKNOWN = {
    "nothing": b"",
    "half an Ethernet header": bytes(13),
    "ARP": bytes(Ether(**MACS) / ARP()),
    "UDP without a checksum": bytes(Ether(**MACS) / IP(**V4) / UDP(**PORTS, chksum=0) / Raw(b"x")),
    "IPv6 UDP without a checksum": bytes(Ether(**MACS) / IPv6(**V6) / UDP(**PORTS, chksum=0) / Raw(b"x")),
    "first fragment": bytes(Ether(**MACS) / IP(**V4, flags="MF") / UDP(**PORTS) / Raw(bytes(8))),
    "later fragment": bytes(Ether(**MACS) / IP(**V4, frag=1) / UDP(**PORTS) / Raw(bytes(8))),
    "IPv6 fragment": bytes(Ether(**MACS) / IPv6(**V6) / IPv6ExtHdrFragment() / UDP(**PORTS) / Raw(bytes(8))),
    "another protocol": bytes(Ether(**MACS) / IP(**V4, proto=132) / Raw(bytes(40))),
    "nine tags": bytes(Ether(**MACS)) + 9 * TAG + b"\x08\x00" + bytes(IP(**V4) / UDP(**PORTS)),
    "segments of a route left": build("untagged", "ipv6-routed", TCP(**PORTS), 33),
    # What the checksum would be if the packet were where it is going first.
    "segments of a route left behind": patched(
        build("untagged", "ipv6-extensions", TCP(**PORTS), 33), 14 + 48 + 3, b"\x01"
    ),
}


@pytest.mark.parametrize("what", UNKNOWN)
def test_what_is_not_known_is_not_verified(what):
    assert not verify_checksum(FRAME.place(UNKNOWN[what]))


@settings(deadline=None)  # a machine that does other things as well
@given(
    body=st.binary(max_size=120),
    ethertype=st.sampled_from([b"\x08\x00", b"\x86\xdd", TAG + b"\x86\xdd"]),
)
def test_verification_of_random_bytes_stays_inside_the_frame(body, ethertype):
    for at_end in (True, False):
        verify_checksum(FRAME.place((bytes(12) + ethertype + body)[: len(body)], at_end))
    assert FRAME.intact()
