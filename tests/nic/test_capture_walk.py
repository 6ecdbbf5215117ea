"""Captures as other programs write them: what is read, as tshark reads it, and what is refused."""

import shutil
import subprocess
import time
from decimal import Decimal

import pytest

from cdna.errors import ConfigError
from cdna.nic.capture import read_capture
from cdna.nic.capture_walk import CaptureWalk
from cdna.nic.replay import ReplayWire
from tests.support.capture_bytes import FLAGS, SECTION, Blocks, frame, pcap

L, B = Blocks("<"), Blocks(">")
F = frame(1)
S = 1_000_000_000  # nanoseconds
START = L.section() + L.interface()
MICROSECOND_MAGICS = {"modified": 0xA1B2CD34, "usual": 0xA1B2C3D4}


OTHERS = (
    L.block(4, bytes(4)),  # names
    L.block(5, bytes(12)),  # statistics
    L.block(10, bytes(8)),  # secrets
    L.block(77, b"MESSAGE=something that is no packet\n"),
    L.block(0x80000001, b""),
)


ODD_OPTIONS = ((9, b"\x09\x06"), (9, b"\x09"), (9, b"\x06"), (0, b""), (13, b"\x04"))

# Sections, each with what it holds: nanoseconds (None: no time), length, bytes captured.
SECTIONS = {
    "little-endian, nanoseconds": (
        L.section() + L.interface(tsresol=9) + L.enhanced(F, 5 * S + 1),
        [(5 * S + 1, 60, 60)],
    ),
    "big-endian, microseconds": (
        B.section() + B.interface() + B.enhanced(F, 7_000_001),
        [(7 * S + 1000, 60, 60)],
    ),
    "interfaces with a clock each, one of them later": (
        L.section(minor=2)
        + L.interface(tsresol=9)
        + L.enhanced(F, 5)
        + L.interface(tsresol=3)
        + L.enhanced(F, 7, interface=1)
        + L.enhanced(F, 6),
        [(5, 60, 60), (7_000_000, 60, 60), (6, 60, 60)],
    ),
    "an interface of another link type, without packets": (
        L.section() + L.interface(linktype=101) + L.interface() + L.enhanced(F, interface=1),
        [(0, 60, 60)],
    ),
    "if_tsoffset": (B.section() + B.interface(tsoffset=1000) + B.enhanced(F, 5), [(1000 * S + 5000, 60, 60)]),
    "if_tsoffset below zero": (
        L.section() + L.interface(tsoffset=-3) + L.enhanced(F, 5_000_000),
        [(2 * S, 60, 60)],
    ),
    "if_tsresol of whole seconds": (
        L.section() + L.interface(tsresol=0) + L.enhanced(F, 5),
        [(5 * S, 60, 60)],
    ),
    "if_tsresol of a power of two": (
        L.section() + L.interface(tsresol=0x8A) + L.enhanced(F, 3 * 1024 + 512),
        [(3_500_000_000, 60, 60)],
    ),
    "if_tsresol below a nanosecond": (
        L.section() + L.interface(tsresol=11) + L.enhanced(F, 100_000_000_199),
        [(S + 1, 60, 60)],
    ),
    "options twice, of a wrong length and behind their end": (
        L.section() + L.interface(options=b"".join(L.option(*o) for o in ODD_OPTIONS)) + L.enhanced(F, S),
        [(S, 60, 60)],
    ),
    "simple packet, no snapshot length": (
        START + L.simple(F) + L.simple(frame(2, 61)),
        [(None, 60, 60), (None, 61, 61)],
    ),
    "simple packet, cut": (B.section() + B.interface(snaplen=41) + B.simple(F[:41], 60), [(None, 60, 41)]),
    "packet block": (B.section() + B.interface() + B.old(F, 5, length=90), [(5000, 90, 60)]),
    "cut by a snapshot length": (
        L.section() + L.interface(snaplen=40) + L.enhanced(F[:40], length=60),
        [(0, 60, 40)],
    ),
    "beyond the snapshot length": (L.section() + L.interface(snaplen=40) + L.enhanced(F), [(0, 60, 60)]),
    "blocks of other types": (
        START + b"".join(OTHERS) + L.enhanced(F) + OTHERS[1],
        [(0, 60, 60)],
    ),
    "section length given": (
        L.section(len(L.interface() + L.enhanced(F))) + L.interface() + L.enhanced(F),
        [(0, 60, 60)],
    ),
    "section length wrong": (L.section(4) + L.interface() + L.enhanced(F), [(0, 60, 60)]),
}

# The same with a frame check sequence, which tshark counts and a replay leaves out.
WITH_FCS = {
    "if_fcslen": (
        L.section() + L.interface(fcslen=4) + L.enhanced(F) + L.simple(F),
        [(0, 56, 56), (None, 56, 56)],
    ),
    "epb_flags": (START + L.enhanced(F, options=L.option(FLAGS, L.pack("I", 4 << 5))), [(0, 56, 56)]),
    "pack_flags": (
        B.section() + B.interface() + B.old(F, options=B.option(FLAGS, B.pack("I", 4 << 5 | 1))),
        [(0, 56, 56)],
    ),
    "flags that do not say": (
        L.section() + L.interface(fcslen=4) + L.enhanced(F, options=L.option(FLAGS, L.pack("I", 1))),
        [(0, 56, 56)],
    ),
}
NO_ETHERNET_FCS = {  # tshark takes them for a part of the frame
    "if_fcslen 8": (L.section() + L.interface(fcslen=8) + L.enhanced(F), [(0, 60, 60)]),
    "flags override": (
        L.section() + L.interface(fcslen=4) + L.enhanced(F, options=L.option(FLAGS, L.pack("I", 2 << 5))),
        [(0, 60, 60)],
    ),
}
ALL = SECTIONS | WITH_FCS | NO_ETHERNET_FCS


def found(path, data):
    path.write_bytes(data)
    return [(f.timestamp_ns, f.wire_length, len(f.data)) for f in read_capture(path)]


def expected(sections):
    return [(time or 0, length, kept) for _, packets in sections for time, length, kept in packets]


@pytest.mark.parametrize("name", ALL)
def test_a_section(name, tmp_path):
    assert found(tmp_path / "a.pcapng", ALL[name][0]) == expected([ALL[name]])


def test_sections_one_behind_the_other(tmp_path):
    data = b"".join(section for section, _ in ALL.values())
    assert found(tmp_path / "a.pcapng", data) == expected(ALL.values())


@pytest.mark.parametrize("size", [1, 7, 100])
def test_a_file_in_pieces(size):
    data = b"".join(section for section, _ in ALL.values())
    walk, waiting = CaptureWalk(), bytearray()
    for at in range(0, len(data), size):
        waiting += data[at : at + size]
        del waiting[: walk.feed(waiting)]
    walk.feed(waiting, last=True)
    assert [(f.timestamp_ns, f.wire_length, len(f.data)) for f in walk.frames] == expected(ALL.values())


@pytest.mark.skipif(shutil.which("tshark") is None, reason="no tshark")
def test_tshark_reads_the_same(tmp_path):
    (tmp_path / "a.pcapng").write_bytes(b"".join(section for section, _ in ALL.values()))
    command = ["tshark", "-r", str(tmp_path / "a.pcapng"), "-T", "fields", "-E", "separator=,"]
    for name in ("frame.time_epoch", "frame.len", "frame.cap_len", "eth.fcs"):
        command += ["-e", name]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    told = []
    for line in done.stdout.splitlines():
        time, length, kept, fcs = line.split(",")
        stripped = 4 if fcs else 0
        ns = int(Decimal(time) * S) if time else 0
        told.append((ns, int(length) - stripped, int(kept) - stripped))
    assert told == found(tmp_path / "a.pcapng", (tmp_path / "a.pcapng").read_bytes())


# --- refused ----------------------------------------------------------------------------------------------

AT = len(START)
REFUSED = {
    "unknown interface": (
        START + L.enhanced(F, interface=1),
        "packet 1 is of interface 1, and its section has described 1",
    ),
    "packet block of an unknown interface": (START + L.old(F, interface=3), "packet 1 is of interface 3"),
    "an interface of the section before": (
        START + L.enhanced(F) + B.section() + B.enhanced(F),
        "packet 2 is of interface 0, and its section has described 0",
    ),
    "simple packet before an interface": (L.section() + L.simple(F), "packet 1 is of interface 0"),
    "simple packet longer than its block": (
        START + L.simple(F, 100),
        rf"offset {AT}: a pcapng block of 76 bytes that needs 116",
    ),
    "simple packet shorter than its block": (START + L.simple(F, 50), "76 bytes that needs 68"),
    "simple packet without a length": (START + L.block(3, b""), "12 bytes that needs 16"),
    "packet longer than its block": (
        START + L.block(6, L.pack("IIIII", 0, 0, 0, 61, 61) + F),
        "92 bytes that needs 96",
    ),
    "packet of nearly 4 GiB": (
        START + L.block(6, L.pack("IIIII", 0, 0, 0, 0xFFFFFFFF, 60) + F),
        "92 bytes that needs 4294967328",
    ),
    "packet block without its head": (START + L.block(6, bytes(16)), "28 bytes that needs 32"),
    "interface without its head": (
        L.section() + L.block(1, bytes(4)),
        "offset 28: a pcapng block of 16 bytes that needs 20",
    ),
    "section without its head": (L.block(SECTION, L.pack("IHH", 0x1A2B3C4D, 1, 0)), "20 bytes that needs 28"),
    "statistics without their head": (START + L.enhanced(F) + L.block(5, b""), "12 bytes that needs 24"),
    "block of no multiple of four": (
        START + L.block(77, b"abc", total=15),
        rf"offset {AT}: a pcapng block of 15 bytes",
    ),
    "packet of no multiple of four": (START + L.block(6, bytes(60), total=71), "a pcapng block of 71 bytes"),
    "block of zeros": (START + L.enhanced(F) + bytes(64), "a pcapng block of 0 bytes"),
    "packet whose lengths differ": (
        START + L.block(6, L.pack("IIIII", 0, 0, 0, 60, 60) + F, last=48),
        "begins with a length of 92 bytes ends with one of 48",
    ),
    "other block whose lengths differ": (
        START + L.block(77, b"abcd", last=20),
        "length of 16 bytes ends with one of 20",
    ),
    "packet too large for any": (
        START + L.pack("III", 6, 1 << 25, 0),
        "a pcapng block of 33554432 bytes; 16777216 are the most",
    ),
    "option longer than the interface": (
        L.section() + L.interface(options=L.pack("HH", 9, 100)),
        "an option of 100 bytes where 4 are left",
    ),
    "option longer than the packet": (
        START + L.enhanced(F, options=L.pack("HH", 2, 100)),
        "an option of 100 bytes where 0",
    ),
    "flags of two bytes": (
        START + L.enhanced(F, options=L.option(FLAGS, b"\1\1")),
        "an option of 2 bytes where 4",
    ),
    "version 2": (L.section(major=2), "a pcapng section of version 2.0 at offset 0"),
    "version 1.1": (
        START + L.enhanced(F) + L.section(minor=1),
        "a pcapng section of version 1.1 at offset 140",
    ),
    "no byte order": (
        START + L.block(SECTION, L.pack("IHHq", 0x1A2B3C4E, 1, 0, -1)),
        "section of no known byte order",
    ),
    "another link type": (
        L.section() + L.interface(linktype=101) + L.enhanced(F),
        "packet 1 has link type 101",
    ),
    "before 1970": (
        L.section() + L.interface(tsoffset=-6) + L.enhanced(F, 5_999_999),
        "packet 1 is from before 1970",
    ),
    "too late": (L.section() + L.interface(tsresol=9) + L.enhanced(F, 1 << 63), "of the year 2262 or later"),
    "much too late": (
        L.section() + L.interface(tsresol=0, tsoffset=(1 << 63) - 1) + L.enhanced(F, (1 << 64) - 1),
        "of the year 2262",
    ),
    "shorter without its FCS": (
        L.section() + L.interface(fcslen=4) + L.enhanced(F[:17]),
        "packet 1 has 13 bytes",
    ),
    "cut in another block": (
        START + OTHERS[3][:-6],
        r"the block before packet 1 at offset \d+: 6 of \d+ bytes missing",
    ),
    "cut in a packet": (START + L.enhanced(F)[:-5], rf"packet 1 at offset {AT}: 5 of 92 bytes missing"),
    "pcap of version 2.2": (pcap((1, 1, F), version=(2, 2)), "pcap of version 2.2"),
    "pcap of version 3": (pcap((1, 1, F), version=(3, 4)), "pcap of version 3.4"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name, tmp_path):
    data, message = REFUSED[name]
    with pytest.raises(ConfigError, match=message) as refused:
        found(tmp_path / "a.pcapng", data)
    assert "\n" not in str(refused.value)


def test_a_large_block_of_no_use_is_passed_over(tmp_path):
    assert found(tmp_path / "a.pcapng", START + L.block(77, bytes(17 << 20)) + L.enhanced(F)) == [(0, 60, 60)]


# --- pcap -------------------------------------------------------------------------------------------------

RECORDS = [(5, 7, F), (6, 80_000, frame(2, 61)), (7, 999_999, frame(3, 1514))]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("magic", "extra"), [("modified", 8), ("modified", 12), ("usual", 8), ("usual", 4)])
@pytest.mark.parametrize("records", [2, 3])
def test_records_with_longer_heads(order, magic, extra, records, tmp_path):
    data = pcap(*RECORDS[:records], order=order, magic=MICROSECOND_MAGICS[magic], extra=bytes(extra))
    expected = [(s * S + us * 1000, len(f), len(f)) for s, us, f in RECORDS[:records]]
    assert found(tmp_path / "a.pcap", data) == expected


@pytest.mark.skipif(shutil.which("editcap") is None, reason="no editcap")
@pytest.mark.parametrize("kind", ["modpcap", "nsecpcap", "rh6_1pcap", "suse6_3pcap", "nokiapcap"])
def test_what_wireshark_writes(kind, tmp_path):
    (tmp_path / "in.pcap").write_bytes(pcap(*RECORDS))
    command = ["editcap", "-F", kind, tmp_path / "in.pcap", tmp_path / "out.pcap"]
    subprocess.run(command, check=True, timeout=100)
    assert list(read_capture(tmp_path / "out.pcap")) == list(read_capture(tmp_path / "in.pcap"))


def test_the_fcs_of_a_pcap_file_is_left_out(tmp_path):
    assert found(tmp_path / "a.pcap", pcap((0, 0, F), linktype=0x24000001)) == [(0, 56, 56)]
    assert found(tmp_path / "b.pcap", pcap((0, 0, F), linktype=0x20000001)) == [(0, 60, 60)]
    cut = pcap((0, 0, F), linktype=0x24000001, length=62)  # half of it was captured
    assert found(tmp_path / "c.pcap", cut) == [(0, 58, 58)]


def test_lengths_the_other_way_round(tmp_path):
    assert found(tmp_path / "a.pcap", pcap((0, 0, F), version=(2, 3), length=80)) == [(0, 80, 60)]
    header = pcap(version=(2, 3))
    swapped = L.pack("IIII", 0, 0, 80, 60) + F
    assert found(tmp_path / "b.pcap", header + swapped) == [(0, 80, 60)]


# --- when frames are due ----------------------------------------------------------------------------------

MS = 1_000_000


def due(path, data):
    """Milliseconds after the first frame at which a replay with the recorded timing sends each."""
    path.write_bytes(data)
    frames = read_capture(path)
    return [frames.due_ns(i) // MS for i in range(len(frames))]


def milliseconds(*stamps, interface=0):
    return b"".join(L.enhanced(F, stamp, interface=interface) for stamp in stamps)


CLOCK = L.section() + L.interface(tsresol=3)
TWO_CLOCKS = CLOCK + L.interface(tsresol=3)


def test_a_clock_that_is_set_back_goes_on_from_where_it_was(tmp_path):
    hour = milliseconds(7_200_000, 7_200_010, 3_600_000, 3_600_010, 3_600_030)
    assert due(tmp_path / "a.pcapng", CLOCK + hour) == [0, 10, 10, 20, 40]
    little = milliseconds(5000, 5010, 5005, 5010, 5030)
    assert due(tmp_path / "b.pcapng", CLOCK + little) == [0, 10, 10, 15, 35]
    beyond_the_first = milliseconds(5000, 4000, 4100, 4000, 4010)
    assert due(tmp_path / "c.pcapng", CLOCK + beyond_the_first) == [0, 0, 100, 100, 110]
    records = [(9, 0, F), (9, 10_000, F), (2, 0, F), (2, 20_000, F)]
    assert due(tmp_path / "d.pcap", pcap(*records)) == [0, 10, 10, 30]


def test_a_section_of_an_earlier_time_follows_the_one_before(tmp_path):
    sections = CLOCK + milliseconds(9000, 9010) + CLOCK + milliseconds(1000, 1020)
    assert due(tmp_path / "a.pcapng", sections) == [0, 10, 10, 30]


def test_interfaces_that_are_written_in_batches_stay_in_time(tmp_path):
    """Their stamps go back from one to the other, but no clock was set."""
    batches = [
        milliseconds(*range(at, at + 50, 10), interface=interface) for at in (0, 50) for interface in (0, 1)
    ]
    times = [*range(0, 50, 10), *[40] * 5, *range(50, 100, 10), *[90] * 5]
    assert due(tmp_path / "a.pcapng", TWO_CLOCKS + b"".join(batches)) == times
    late = milliseconds(100, interface=0) + milliseconds(50, 60, interface=1) + milliseconds(120)
    assert due(tmp_path / "b.pcapng", TWO_CLOCKS + late) == [0, 0, 0, 20]


def test_one_clock_of_two_interfaces_is_set_back_once(tmp_path):
    before = milliseconds(90_000) + milliseconds(90_005, interface=1)
    after = milliseconds(10_000) + milliseconds(10_005, interface=1) + milliseconds(10_010)
    assert due(tmp_path / "a.pcapng", TWO_CLOCKS + before + after) == [0, 5, 5, 10, 15]


def test_frames_without_a_time_are_due_with_the_one_before(tmp_path):
    first = CLOCK + L.simple(F) + milliseconds(5000) + L.simple(F) + milliseconds(5010)
    assert due(tmp_path / "a.pcapng", first) == [0, 0, 0, 10]


def test_times_as_far_apart_as_they_can_be(tmp_path):
    far = [0, (1 << 63) - 1, 1, (1 << 63) - 1, 5]
    section = L.section() + L.interface(tsresol=9) + b"".join(L.enhanced(F, stamp) for stamp in far)
    times = due(tmp_path / "a.pcapng", section)
    assert times == sorted(times)
    assert times[-1] == (1 << 62) // MS


def test_a_replay_keeps_the_distances_behind_a_step_back(tmp_path):
    (tmp_path / "a.pcapng").write_bytes(CLOCK + milliseconds(90_000, 90_004, 1000, 1004, 1008))
    wire = ReplayWire(read_capture(tmp_path / "a.pcapng"), recorded=True)
    begun, number = time.monotonic_ns(), 0
    while not wire.done:
        for _ in wire.receive():
            assert time.monotonic_ns() - begun >= (0, 4, 4, 8, 12)[number] * MS
            number += 1
    assert number == 5


def test_frames_that_a_wire_replays_are_not_added_to():
    walk = CaptureWalk()
    walk.feed(pcap((0, 60, frame(1))), last=True)
    ReplayWire(walk.frames)
    with pytest.raises(ConfigError, match="replayed already"):
        walk.frames.append(bytes(60), 0)
    with pytest.raises(ConfigError, match="replayed already"):
        walk.feed(pcap((0, 60, frame(2))))
