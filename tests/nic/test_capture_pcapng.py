"""pcapng as it is written: blocks, names, stamps, comments and statistics; and files that end too soon."""

import contextlib
import os
import resource
import shutil
import struct
import subprocess

import pytest
from tests.support.nic_parts import capture_frames

from cdna.errors import ConfigError
from cdna.machine import Machine
from cdna.nic.capture_file import BlockFile, Recording, create
from cdna.nic.capture_reader import CaptureReader, InterfaceCount
from cdna.nic.capture_ring import CaptureDirection, CaptureReason, CaptureRing
from cdna.nic.pcapng import PcapngWriter, packet_options, whole_blocks
from tests.support.pcapng import INBOUND, OUTBOUND, read_blocks, read_pcapng

OUT, IN = CaptureDirection.CAPTURE_OUT, CaptureDirection.CAPTURE_IN
SENT = CaptureReason.CAPTURE_NOT_DROPPED
MAC = bytes.fromhex("02cd0a000001")
NS = 1_700_000_000_123_456_789


@pytest.fixture
def ring():
    machine = Machine()
    ring = CaptureRing(machine.nic, size=1 << 20)
    yield ring
    ring.close()
    machine.close()


@contextlib.contextmanager
def file_size_limit(size):
    """Files of this process can be no longer, as on a disk that is full then."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_what_is_written_can_be_read():
    writer = PcapngWriter()
    assert writer.add_interface("alice.0", description="x", mac=MAC, snaplen=100) == 0
    assert writer.add_interface("b\N{LATIN SMALL LETTER O WITH DIAERESIS}b", mac=MAC) == 1
    for size in range(14, 19):
        options = packet_options(flags=OUTBOUND, comment="x" * size)
        assert writer.add_packet(size & 1, NS + size, bytes(range(size)), 100 + size, options)
    assert writer.add_statistics(1, received=2**40, lost=7, start_ns=NS, end_ns=NS)
    capture = read_pcapng(bytes(writer.view()))
    assert [(i.name, i.mac, i.snaplen) for i in capture.interfaces] == [
        ("alice.0", MAC, 100),
        ("böb", MAC, 0),
    ]
    assert (capture.interfaces[1].received, capture.interfaces[1].dropped) == (2**40, 7)
    for size, packet in zip(range(14, 19), capture.packets, strict=True):
        assert packet.interface == capture.interfaces[size & 1].name
        assert packet.timestamp_ns == NS + size
        assert packet.data == bytes(range(size))
        assert packet.length == 100 + size
        assert packet.outbound
        assert packet.comment == "x" * size


def test_a_full_buffer_takes_nothing_by_halves():
    writer = PcapngWriter(1)
    writer.add_interface("a")
    packets = 0
    while writer.add_packet(0, NS, bytes(1000)):
        packets += 1
    while writer.add_interface("a" * 1000) >= 0:
        pass
    assert len(read_pcapng(bytes(writer.view())).packets) == packets > 50
    writer.clear()
    assert writer.add_packet(0, NS, bytes(1000))
    with pytest.raises(ConfigError, match="frame of 200000 bytes"):
        writer.add_packet(0, NS, bytes(200000))


def test_nothing_is_written_while_the_buffer_is_lent():
    writer = PcapngWriter()
    with writer.view(), pytest.raises(BufferError):
        writer.add_interface("a")
    assert writer.add_interface("a") == 0


def test_whole_blocks_wherever_a_file_ends():
    writer = PcapngWriter()
    ends = {0: 0, writer.used: 0}
    writer.add_interface("a")
    ends[writer.used] = 0
    for number in range(1, 4):
        writer.add_packet(0, NS, bytes(14 * number))
        ends[writer.used] = number
    data = bytes(writer.view())
    for size in range(len(data) + 1):
        whole = max(end for end in ends if end <= size)
        assert whole_blocks(data, size) == (whole, ends[whole])


def test_every_reason_has_its_comment(ring):
    ring.add(0, "alice.0", MAC)
    for reason in CaptureReason:
        capture_frames(ring.nic, 0, OUT, reason, bytes(60))
        capture_frames(ring.nic, 0, IN, reason, bytes(60))
    capture_frames(ring.nic, 0, IN, 200, bytes(60))  # a reason that only a newer engine gives
    writer = PcapngWriter()
    assert CaptureReader(ring.fd).transfer(writer) == 2 * len(CaptureReason) + 1
    packets = read_pcapng(bytes(writer.view())).packets
    assert [packet.flags for packet in packets] == [OUTBOUND, INBOUND] * len(CaptureReason) + [INBOUND]
    assert [packet.comment for packet in packets[:2]] == ["sent", "received"]
    for reason, packet in zip(list(CaptureReason)[1:], packets[2::2], strict=False):
        counter = reason.name.removeprefix("CAPTURE_").lower()
        assert packet.comment.startswith(f"dropped: {counter} (")
    assert packets[2].comment == "dropped: tx_drop_spoof (source address not the context's own)"
    assert packets[-1].comment.startswith("dropped: for a reason")


def record(ring, path, **options):
    """The whole of a ring that was closed, in a file."""
    fd = create(path)
    recording = Recording(CaptureReader(ring.fd), fd, **options)
    ring.close()
    recording.run(lambda: False)
    os.close(fd)
    return recording


def test_interfaces_come_as_they_appear_and_statistics_at_the_end(ring, tmp_path):
    ring.add(0, "alice.0", MAC)
    capture_frames(ring.nic, 0, OUT, SENT, bytes(60), 3)
    ring.add(1, "bob.1", MAC)
    capture_frames(ring.nic, 1, IN, SENT, bytes(60), 2)
    ring.add(0, "carol.0", MAC)
    capture_frames(ring.nic, 0, OUT, SENT, bytes(60), 4)
    capture_frames(ring.nic, 1, IN, SENT, bytes(60), 100_000)
    lost = ring.lost
    recording = record(ring, tmp_path / "x.pcapng")
    capture = read_pcapng(tmp_path / "x.pcapng")
    assert [i.name for i in capture.interfaces] == ["alice.0", "bob.1", "carol.0"]
    assert [i.received for i in capture.interfaces] == [3, 100_002, 4]
    assert [i.dropped for i in capture.interfaces] == [0, lost, 0]
    assert len(capture.packets) == recording.frames == 100_009 - lost
    assert recording.lost == lost > 0
    assert recording.reader.counts()[1] == InterfaceCount(1, 100_002 - lost, lost)


def test_frames_before_any_name_have_an_interface_too(ring):
    """A reader that comes late, when another has taken the names."""
    ring.add(5, "alice.5", MAC)
    CaptureReader(ring.fd).read()
    capture_frames(ring.nic, 5, OUT, SENT, bytes(60))
    writer = PcapngWriter()
    CaptureReader(ring.fd).transfer(writer)
    assert [packet.interface for packet in read_pcapng(bytes(writer.view())).packets] == ["context 5"]


@pytest.mark.parametrize("limit", [1, 2, 500])
def test_a_limit_is_met_exactly(ring, tmp_path, limit):
    ring.add(0, "a", MAC)
    capture_frames(ring.nic, 0, OUT, SENT, bytes(60), 1000)
    assert record(ring, tmp_path / "x", limit=limit).frames == limit
    assert len(read_pcapng(tmp_path / "x").packets) == limit


@pytest.mark.parametrize("room", [0, 50, 200, 1000, 20_000, 20_001, 50_003])
def test_a_full_disk_leaves_whole_blocks(ring, tmp_path, room):
    ring.add(0, "a", MAC)
    for number in range(1000):
        capture_frames(ring.nic, 0, OUT, SENT, number.to_bytes(4, "big") * 25)
    fd = create(tmp_path / "x")
    recording = Recording(CaptureReader(ring.fd), fd)
    ring.close()
    with file_size_limit(room), pytest.raises(OSError, match="File too large"):
        recording.run(lambda: False)
    os.close(fd)
    data = (tmp_path / "x").read_bytes()
    assert room - 200 < len(data) <= room
    packets = read_pcapng(data).packets
    assert len(packets) == recording.frames
    assert [packet.data[:4] for packet in packets] == [n.to_bytes(4, "big") for n in range(len(packets))]


def test_a_file_that_is_appended_to_keeps_what_was_there(tmp_path):
    (tmp_path / "x").write_bytes(b"before")
    fd = os.open(tmp_path / "x", os.O_WRONLY | os.O_APPEND)
    writer = PcapngWriter()
    writer.add_interface("a")
    writer.add_packet(0, NS, bytes(1000))
    with file_size_limit(600), pytest.raises(OSError, match="File too large"):
        BlockFile(fd).write(writer)
    os.close(fd)
    data = (tmp_path / "x").read_bytes()
    assert data[:6] == b"before"
    assert [kind for kind, _ in read_blocks(data[6:])] == [0x0A0D0D0A, 1]
    assert writer.used == 0


def test_a_closed_pipe_is_an_error(ring):
    ends = os.pipe()
    os.close(ends[0])
    recording = Recording(CaptureReader(ring.fd), ends[1])
    with pytest.raises(BrokenPipeError):
        recording.run(lambda: True)
    os.close(ends[1])


@pytest.mark.skipif(shutil.which("tshark") is None, reason="no tshark")
def test_tshark_reads_all_of_it(ring, tmp_path):
    ring.add(0, "alice.0", MAC)
    ring.add(1, "bob.1", MAC)
    data = b"\xff" * 6 + MAC + b"\x88\xb5" + bytes(50)
    capture_frames(ring.nic, 0, OUT, SENT, data)
    capture_frames(ring.nic, 1, IN, CaptureReason.CAPTURE_RX_DROP_NO_BUFFER, data)
    record(ring, tmp_path / "x.pcapng")
    fields = ["interface_name", "packet_flags_direction", "comment", "len"]
    command = ["tshark", "-r", tmp_path / "x.pcapng", "-T", "fields"]
    for name in fields:
        command += ["-e", f"frame.{name}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert [line.split("\t") for line in done.stdout.splitlines()] == [
        ["alice.0", "0x00000002", "sent", "64"],
        ["bob.1", "0x00000001", "dropped: rx_drop_no_buffer (no receive buffer for it)", "64"],
    ]


def test_the_time_stamps_are_nanoseconds(ring, tmp_path):
    ring.add(0, "a", MAC)
    capture_frames(ring.nic, 0, OUT, SENT, bytes(60))
    (expected,) = (r.timestamp_ns for r in CaptureReader(ring.fd).read())
    at = struct.pack("<Q", 0)
    os.pwrite(ring.fd, at, 64)  # read it once more
    record(ring, tmp_path / "x")
    assert [packet.timestamp_ns for packet in read_pcapng(tmp_path / "x").packets] == [expected]
