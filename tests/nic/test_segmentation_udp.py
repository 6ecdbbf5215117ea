"""UDP as segments and as IP fragments, against scapy and a reassembly in plain Python."""

import random
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, UDP, IPOption_NOP, IPOption_Router_Alert, defragment, fragment
from scapy.layers.inet6 import IPv6, defragment6
from scapy.layers.l2 import Ether
from scapy.packet import Raw
from tests.support.nic_parts import segment, verify_checksum

from cdna.abi import Fault, Limits, OffloadKind
from tests.nic.test_offload import (
    FRAME,
    LINK,
    MACS,
    NETWORK,
    OUT,
    PORTS,
    SEGMENTED,
    V4,
    WORDS,
    agrees,
    build,
    cut,
    options_of,
    patched,
    payload_of,
    pseudo_sum,
    rebuilt,
    transport_offset,
)
from tests.support.tcp import checksum

SEGMENTS, FRAGMENTS = OffloadKind.OFFLOAD_UDP_SEGMENTS, OffloadKind.OFFLOAD_UDP_FRAGMENTS
EXTENSIONS = (0, 43, 60)  # hop-by-hop, routing, destination options


def udp_frame(link="untagged", network="ipv4", length=1000, kind=SEGMENTS):
    """A large frame, and the offload descriptor that belongs to it but for the mss."""
    frame = build(link, network, UDP(**PORTS), length)
    start = transport_offset(frame)
    frame = patched(frame, start + 6, struct.pack("!H", pseudo_sum(frame)))
    return frame, {"csum_start": start, "csum_offset": 6, "hdr_len": start + 8 + kind}


def network_of(frame):
    at = 14
    while frame[at - 2 : at] in (b"\x81\x00", b"\x88\xa8"):
        at += 4
    return at


def reassembled(frames):
    """The frame that was fragmented, as RFC 791 and RFC 8200 put it together, and the identification."""
    at = network_of(frames[0])
    version = frames[0][at] >> 4
    payload, heads, numbers = b"", set(), set()
    for part in frames:
        if version == 4:
            end = at + (part[at] & 15) * 4
            length, number, word = struct.unpack_from("!HHH", part, at + 2)
            assert checksum(part[at:end]) == b"\0\0"
            offset, more = (word & 0x1FFF) * 8, bool(word & 0x2000)
            assert word & 0xC000 == 0
            assert length == len(part) - at
            heads.add(
                part[: at + 2] + part[at + 4 : at + 6] + part[at + 8 : at + 10] + part[at + 12 : at + 20]
            )
        else:
            assert struct.unpack_from("!H", part, at + 4)[0] == len(part) - at - 40
            end, field = at + 40, at + 6
            while part[field] in EXTENSIONS:
                field, end = end, end + (part[end + 1] + 1) * 8
            assert part[field] == 44
            protocol, reserved, word, number = struct.unpack_from("!BBHI", part, end)
            assert (protocol, reserved, word & 6) == (17, 0, 0)
            offset, more = word & 0xFFF8, bool(word & 1)
            heads.add(part[: at + 4] + part[at + 6 : field] + b"\x11" + part[field + 1 : end])
            end += 8
        assert offset == len(payload)
        assert more == (part is not frames[-1])
        payload += part[end:]
        numbers.add(number)
        assert not more or len(part[end:]) % 8 == 0
    assert len(heads) == len(numbers) == 1
    if version == 4:
        options = frames[0][at + 20 : at + (frames[0][at] & 15) * 4]
        head = bytearray(frames[0][: at + 20] + options)
        struct.pack_into("!HHH", head, at + 2, len(head) - at + len(payload), *numbers, 0)
        head[at + 10 : at + 12] = bytes(2)
        head[at + 10 : at + 12] = checksum(bytes(head[at:]))
    else:
        (head,) = heads
        length = struct.pack("!H", len(head) + 2 - at - 40 + len(payload))
        head = head[: at + 4] + length + head[at + 4 :]
    return bytes(head) + payload


def check_datagrams(frame, segments, mss, hdr_len, **_):
    """Datagrams of mss bytes each, with scapy's view of each of them."""
    hdr_len -= SEGMENTS
    payload = frame[hdr_len:]
    assert b"".join(part[hdr_len:] for part in segments) == payload
    assert [len(part) - hdr_len for part in segments] == [
        min(mss, len(payload) - at) for at in range(0, len(payload), mss)
    ]
    whole = Ether(frame)
    for i, part in enumerate(segments):
        assert rebuilt(part) == part
        packet = Ether(part)
        assert packet[UDP].len == len(part) - hdr_len + 8
        assert (packet[UDP].sport, packet[UDP].dport) == (whole[UDP].sport, whole[UDP].dport)
        if IP in packet:
            assert packet[IP].id == (whole[IP].id + i) % 2**16
            assert packet[IP].options == whole[IP].options


# --- segments -----------------------------------------------------------------------------------------------

SIZES = [(30, 1), (1, 1), (1, 1400), (2800, 1400), (2801, 1400), (2799, 1400), (999, 333), (100, 7)]


@pytest.mark.parametrize(("length", "mss"), SIZES)
@pytest.mark.parametrize("network", SEGMENTED)
@pytest.mark.parametrize("link", LINK)
def test_segments(link, network, length, mss):
    frame, offload = udp_frame(link, network, length)
    fault, segments = cut(frame, mss=mss, **offload)
    assert fault == Fault.FAULT_NONE
    check_datagrams(frame, segments, mss, **offload)


@settings(deadline=None)  # a machine that does other things as well
@given(
    link=st.sampled_from(list(LINK)),
    network=st.sampled_from(list(SEGMENTED)),
    length=st.integers(1, 5000),
    parts=st.integers(1, 12),
)
def test_any_segments(link, network, length, parts):
    frame, offload = udp_frame(link, network, length)
    mss = -(-length // parts)
    fault, segments = cut(frame, mss=mss, **offload)
    assert fault == Fault.FAULT_NONE
    check_datagrams(frame, segments, mss, **offload)


def test_a_checksum_that_comes_out_as_zero_is_sent_as_ones():
    """A checksum of 0 says that there is none (RFC 768)."""
    frame, offload = udp_frame(length=4)
    _, (plain,) = cut(frame, mss=4, **offload)
    frame = frame[:-2] + struct.pack("!H", (struct.unpack("!H", frame[-2:])[0] + 1) % 0x10000)
    for _ in range(2):  # once to find the payload that makes it 0, once to see it
        _, (plain,) = cut(frame, mss=4, **offload)
        at = offload["csum_start"] + 6
        sum_of_it = struct.unpack("!H", plain[at : at + 2])[0]
        payload = struct.unpack("!H", frame[-2:])[0] + sum_of_it
        frame = frame[:-2] + struct.pack("!H", (payload & 0xFFFF) + (payload >> 16))
    assert plain[at : at + 2] == b"\xff\xff"
    assert verify_checksum(plain)


# --- fragments ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("length", "mss"),
    [
        (30, 8),
        (1, 8),
        (9, 16),
        (1472, 1480),
        (1473, 1480),
        (4000, 1480),
        (4000, 1487),
        (2952, 1480),
        (57, 64),
    ],
)
@pytest.mark.parametrize("network", NETWORK)
@pytest.mark.parametrize("link", LINK)
def test_fragments(link, network, length, mss):
    frame, offload = udp_frame(link, network, length, FRAGMENTS)
    fault, parts = cut(frame, mss=mss, **offload)
    assert fault == Fault.FAULT_NONE
    assert len(parts) == -(-(length + 8) // (mss & ~7))
    if len(parts) == 1:
        assert parts == [rebuilt(frame)]  # a packet that is no fragment, its checksum completed
    else:
        assert reassembled(parts) == rebuilt(frame)
        assert {len(part) for part in parts[:-1]} == {len(parts[0])}


@pytest.mark.parametrize("link", LINK)
def test_the_fragments_that_scapy_makes(link):
    frame, offload = udp_frame(link, "ipv4", 5000, FRAGMENTS)
    whole = Ether(rebuilt(frame))
    expected = [bytes(part) for part in fragment(whole, 1480)]
    assert cut(frame, mss=1480, **offload) == (Fault.FAULT_NONE, expected)
    (again,) = defragment([Ether(part) for part in expected])
    assert bytes(again[UDP]) == bytes(whole[UDP])


@pytest.mark.parametrize("link", LINK)
def test_scapy_puts_ipv6_fragments_together(link):
    frame, offload = udp_frame(link, "ipv6", 5000, FRAGMENTS)
    fault, parts = cut(frame, mss=1448, **offload)
    assert (fault, len(parts)) == (Fault.FAULT_NONE, 4)
    packets = [Ether(part) for part in parts]
    again = defragment6([packet[IPv6] for packet in packets])
    assert bytes(again)[40:] == bytes(Ether(rebuilt(frame))[UDP])


def test_identifications_of_ipv6_differ():
    frame, offload = udp_frame("untagged", "ipv6", 5000, FRAGMENTS)
    seen = {struct.unpack_from("!I", cut(frame, mss=1448, **offload)[1][0], 58)[0] for _ in range(200)}
    assert len(seen) == 200
    assert len({number >> 24 for number in seen}) > 50  # nor do they count up


@pytest.mark.parametrize("flags", ["DF", 0])
def test_a_datagram_that_was_not_to_be_fragmented_is_what_was_asked_for(flags):
    packet = Ether(**MACS) / IP(**V4, id=7, flags=flags) / UDP(**PORTS) / Raw(payload_of(3000))
    frame = bytes(packet)
    offload = {"csum_start": 34, "csum_offset": 6, "hdr_len": 42 + FRAGMENTS}
    for mss, more in ((1480, True), (3200, False)):
        fault, parts = cut(frame, mss=mss, **offload)
        assert fault == Fault.FAULT_NONE
        assert bool(Ether(parts[0])[IP].flags.DF) == (flags == "DF" and not more)


def test_options_that_are_not_copied_stand_in_the_first_fragment_alone():
    """RFC 791, 3.1: record route (7) is not copied, router alert (148) is."""
    route = b"\x07\x07\x04\0\0\0\0"
    options = [IPOption_Router_Alert(), IPOption_NOP()]
    head = bytes(Ether(**MACS) / IP(**V4, id=7, options=options))[14:]
    size = 20 + 4 + 1 + 7
    ip = bytearray(head[:25] + route)
    ip[0] = 0x40 | size // 4
    ip[9] = 17
    frame = b"\2" + bytes(11) + b"\x08\0" + bytes(ip) + struct.pack("!HHHH", 1, 2, 1008, 0) + payload_of(1000)
    start = 14 + size
    fault, parts = cut(frame, csum_start=start, csum_offset=6, mss=504, hdr_len=start + 8 + FRAGMENTS)
    assert (fault, len(parts)) == (Fault.FAULT_NONE, 2)
    copied = bytes(head[20:24])
    assert parts[0][34:46] == copied + b"\x01" + route
    assert parts[1][34:46] == copied + b"\x01" * 8
    assert checksum(parts[1][14:46]) == b"\0\0"


@pytest.mark.parametrize(
    "bad", [b"\x07\x00", b"\x07\x01", b"\x07\x09", b"\x07\xff", b"\x00\x07", b"\x01\x01"]
)
def test_options_that_are_none_are_repeated(bad):
    ip = bytearray(bytes(IP(**V4, id=7, proto=17, options=[IPOption_Router_Alert()]))[:24])
    ip[0] = 0x47
    ip[20:] = bytes(2) + bad + bytes([1, 1, 1, 1])
    ip = ip[:24] + bytes(4) if bad == b"\x00\x07" else ip[:20] + b"\x01\x01" + ip[22:28]
    frame = b"\2" + bytes(11) + b"\x08\0" + bytes(ip) + struct.pack("!HHHH", 1, 2, 208, 0) + payload_of(200)
    start = 14 + len(ip)
    fault, parts = cut(frame, csum_start=start, csum_offset=6, mss=104, hdr_len=start + 8 + FRAGMENTS)
    assert (fault, len(parts)) == (Fault.FAULT_NONE, 2)
    assert {part[34:start] for part in parts} == {bytes(ip[20:])}


@pytest.mark.parametrize("network", NETWORK)
def test_a_datagram_whose_checksum_is_not_wanted(network):
    frame, offload = udp_frame("untagged", network, 3000, FRAGMENTS)
    start = offload["csum_start"]
    for stored in (b"\0\0", b"\x12\x34"):
        frame = patched(frame, start + 6, stored)
        _, parts = cut(frame, mss=1400, **{**offload, "csum_offset": 0})
        again = reassembled(parts)
        assert again[again.index(frame[start : start + 6]) :] == frame[start:]


@pytest.mark.parametrize("network", NETWORK)
@pytest.mark.parametrize(
    ("kind", "mss"), [(SEGMENTS, 1448), (SEGMENTS, 8800), (FRAGMENTS, 1480), (FRAGMENTS, 8800)]
)
def test_largest_frame(network, kind, mss):
    header = (udp_frame("untagged", network, 0)[1]["hdr_len"] - SEGMENTS) - 14
    if network.startswith("ipv6"):
        header -= 40  # which its length does not count
    frame, offload = udp_frame("untagged", network, 65535 - header, kind)
    if len(frame) > Limits.MAX_TSO_FRAME:  # a tag's room is all there is
        frame, offload = udp_frame("untagged", network, 65535 - header - 40, kind)
    fault, parts = cut(frame, mss=mss, **offload)
    assert fault == Fault.FAULT_NONE
    if kind == SEGMENTS:
        check_datagrams(frame, parts, mss, **offload)
    else:
        assert reassembled(parts) == rebuilt(frame)


def test_no_packet_longer_than_ipv4_allows():
    frame, offload = udp_frame("untagged", "ipv4", 65507, FRAGMENTS)
    assert len(frame) == 65549
    assert cut(frame, mss=1480, **offload)[0] == Fault.FAULT_NONE
    assert cut(frame + b"\0", mss=1480, **offload) == (Fault.FAULT_OFFLOAD, [])


@settings(deadline=None)  # a machine that does other things as well
@given(
    link=st.sampled_from(list(LINK)),
    network=st.sampled_from(list(SEGMENTED)),
    length=st.integers(1, 5000),
    parts=st.integers(1, 12),
    odd=st.integers(0, 7),
)
def test_any_fragments(link, network, length, parts, odd):
    frame, offload = udp_frame(link, network, length, FRAGMENTS)
    mss = -(-(length + 8) // parts // 8) * 8 + odd
    mss = max(mss, 8)
    fault, made = cut(frame, mss=mss, **offload)
    assert fault == Fault.FAULT_NONE
    assert (reassembled(made) if len(made) > 1 else made[0]) == rebuilt(frame)


# --- what is refused ----------------------------------------------------------------------------------------

KINDS = pytest.mark.parametrize("kind", [SEGMENTS, FRAGMENTS])


def ip_bytes(at, value):
    return lambda frame: patched(frame, 14 + at, value)


REFUSED = {
    "no mss": ({"mss": 0}, {}, None),
    "no payload": ({}, {"length": 0}, None),
    "headers longer than the frame": ({"hdr_len": 6000}, {}, None),
    "headers end inside UDP": ({"hdr_len": 41}, {}, None),
    "headers end behind UDP": ({"hdr_len": 43}, {}, None),
    "no headers": ({"hdr_len": 0}, {}, None),
    "csum_start inside IP": ({"csum_start": 33}, {}, None),
    "csum_start inside UDP": ({"csum_start": 35}, {}, None),
    "csum_offset of TCP": ({"csum_offset": 16}, {}, None),
    "segment larger than a frame": ({"mss": 9008}, {"length": 9900}, None),
    "TCP": ({}, {}, ip_bytes(9, b"\x06")),
    "not IP": ({}, {}, lambda frame: patched(frame, 12, b"\x08\x06")),
    "a tag in the place of IP": ({}, {"link": "qinq"}, lambda frame: patched(frame, 20, b"\x81\x00")),
    "first fragment": ({}, {}, ip_bytes(6, b"\x20\x00")),
    "later fragment": ({}, {}, ip_bytes(6, b"\x00\x01")),
    "IPv4 header too long": ({}, {}, ip_bytes(0, b"\x4f")),
    "IPv6 fragment header": ({}, {"network": "ipv6-extensions"}, ip_bytes(6, b"\x2c")),
    "IPv6 another header in the chain": ({}, {"network": "ipv6-extensions"}, ip_bytes(48, b"\x33")),
}


@KINDS
@pytest.mark.parametrize("why", REFUSED)
def test_refuses(why, kind):
    values, arguments, change = REFUSED[why]
    frame, offload = udp_frame(**arguments, kind=kind)
    assert arguments.get("length") == 0 or cut(frame, mss=500, **offload)[0] == Fault.FAULT_NONE
    if change is not None:
        frame = change(frame)
    if "hdr_len" in values:
        values = {**values, "hdr_len": values["hdr_len"] + kind}
    assert cut(frame, **{"mss": 500, **offload, **values}) == (Fault.FAULT_OFFLOAD, [])


@pytest.mark.parametrize("mss", range(1, 8))
def test_no_fragments_below_eight_bytes(mss):
    frame, offload = udp_frame(kind=FRAGMENTS)
    assert cut(frame, mss=mss, **offload) == (Fault.FAULT_OFFLOAD, [])


def test_only_fragments_may_leave_the_checksum_alone():
    frame, offload = udp_frame(kind=SEGMENTS)
    assert cut(frame, mss=500, **{**offload, "csum_offset": 0}) == (Fault.FAULT_OFFLOAD, [])


def test_there_is_no_other_kind():
    frame, offload = udp_frame(kind=SEGMENTS)
    hdr_len = offload["hdr_len"] & 0x3FFF | SEGMENTS | FRAGMENTS
    assert cut(frame, mss=500, **{**offload, "hdr_len": hdr_len}) == (Fault.FAULT_OFFLOAD, [])
    assert cut(frame, mss=500, **{**offload, "hdr_len": hdr_len & 0x3FFF}) == (Fault.FAULT_OFFLOAD, [])


@KINDS
def test_stops_where_a_part_has_no_room(kind):
    for network in NETWORK:
        frame, offload = udp_frame("untagged", network, 1000, kind)
        _, parts = cut(frame, mss=304, **offload)
        size = len(parts[0])
        for room in (0, size - 1, size, 2 * size - 1, 2 * size + 7):
            fault, lengths = segment(FRAME.place(frame), OUT.place(bytes(room)), mss=304, **offload)
            assert (fault, lengths) == (Fault.FAULT_NONE, [size] * (room // size))
            assert OUT.intact()


@KINDS
@pytest.mark.parametrize(("length", "fault"), [(2240, Fault.FAULT_NONE), (2248, Fault.FAULT_OFFLOAD)])
def test_refuses_headers_that_are_too_long_to_repeat(length, fault, kind):
    frame = bytes(Ether(**MACS) / options_of(length) / UDP(**PORTS) / Raw(payload_of(496)))
    start = len(frame) - 504
    found, parts = cut(frame, csum_start=start, csum_offset=6, mss=104, hdr_len=start + 8 + kind)
    assert (found, len(parts)) == (fault, 0 if fault else 5)


@KINDS
@pytest.mark.parametrize("network", NETWORK)
@pytest.mark.parametrize("link", LINK)
def test_frames_that_end_anywhere(link, network, kind):
    frame, offload = udp_frame(link, network, 10, kind)
    for n in range(len(frame)):
        for length in (offload["hdr_len"] & 0x3FFF, n, 8):
            cut(frame[:n], mss=8, **{**offload, "hdr_len": min(n, length) + kind})


@settings(deadline=None)  # a machine that does other things as well
@given(
    link=st.sampled_from(list(LINK)),
    network=st.sampled_from(list(NETWORK)),
    length=st.integers(0, 300),
    kind=st.sampled_from([SEGMENTS, FRAGMENTS]),
    changes=st.lists(st.tuples(st.integers(12, 120), st.integers(0, 255)), max_size=4),
    keep=st.integers(0, 500),
    values=st.fixed_dictionaries(
        {"mss": st.one_of(st.integers(1, 300), WORDS)},
        optional={"csum_start": WORDS, "csum_offset": WORDS, "hdr_len": WORDS},
    ),
)
def test_hostile_frames_and_descriptors(link, network, length, kind, changes, keep, values):
    frame, offload = udp_frame(link, network, length, kind)
    data = bytearray(frame)
    for at, value in changes:
        if at < len(data):
            data[at] = value
    frame, offload = bytes(data[:keep]), {**offload, **values}
    fault, parts = cut(frame, **offload)
    if fault:
        assert (fault, parts) == (Fault.FAULT_OFFLOAD, [])
        return
    # What was let through comes out right, however it was made.
    start = offload["csum_start"]
    if offload["hdr_len"] & OffloadKind.OFFLOAD_KIND == SEGMENTS:
        hdr_len = offload["hdr_len"] & 0x3FFF
        assert b"".join(part[hdr_len:] for part in parts) == frame[hdr_len:]
        assert all(len(part) - hdr_len <= offload["mss"] for part in parts)
        assert all(agrees(frame, part, **offload) for part in parts)
    elif len(parts) > 1:
        again = reassembled(parts)
        assert len(again) == len(frame)
        assert again[start + 8 :] == frame[start + 8 :]
        assert offload["csum_offset"] == 0 or agrees(frame, again, **offload)
    else:
        assert offload["csum_offset"] == 0 or agrees(frame, parts[0], **offload)


def test_any_descriptor_at_all_stays_inside_the_buffers():
    rng = random.Random(11)
    frames = [udp_frame(link, network, 700)[0] for link in LINK for network in NETWORK]
    words = [0, 1, 6, 7, 8, 14, 34, 42, 0x3FFF, 0x4000, 0x8000, 0xC000, 0xFFFF]
    for _ in range(3000):
        frame = bytearray(rng.choice(frames)[: rng.choice([0, 13, 14, 40, 60, 300, 900])])
        for _ in range(rng.randrange(3)):
            if frame:
                frame[rng.randrange(len(frame))] = rng.randrange(256)
        fields = {
            name: rng.choice([rng.choice(words), rng.randrange(65536), rng.randrange(300)])
            for name in ("csum_start", "csum_offset", "mss", "hdr_len")
        }
        cut(bytes(frame), **fields)
