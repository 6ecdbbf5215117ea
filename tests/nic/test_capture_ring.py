"""The ring of a capture: what the engine puts in comes out, whole and in order, or is counted as lost."""

import os
import struct
import subprocess
import sys
import time

import pytest
from tests.support.nic_parts import capture_frames

from cdna.errors import ConfigError, ResourceError
from cdna.machine import Machine
from cdna.nic.capture_reader import CaptureReader
from cdna.nic.capture_ring import MAX_SNAPLEN, CaptureDirection, CaptureReason, CaptureRing
from tests.support.frames import Neighbours, frame, mac

OUT, IN = CaptureDirection.CAPTURE_OUT, CaptureDirection.CAPTURE_IN
SENT = CaptureReason.CAPTURE_NOT_DROPPED
MAC = bytes.fromhex("02cd0a000001")
HEAD = 36864  # bytes before the records
SMALL = 262144  # bytes, the smallest ring


@pytest.fixture
def machine():
    machine = Machine(wire="loopback")
    yield machine
    machine.close()


@pytest.fixture
def ring(machine):
    ring = CaptureRing(machine.nic, size=1)
    yield ring
    ring.close()


def test_frames_come_out_as_they_went_in(ring):
    ring.add(3, "alice.3", MAC)
    before = time.time_ns()
    frames = [bytes([n & 0xFF]) * n for n in (14, 15, 60, 1514, 9018, 65553)]
    for number, data in enumerate(frames):
        capture_frames(ring.nic, 3, number & 1, number, data)
    records = CaptureReader(ring.fd).read()
    assert [record.data for record in records] == frames
    assert [record.length for record in records] == [len(data) for data in frames]
    assert [record.reason for record in records] == list(range(6))
    assert [record.direction for record in records] == [OUT, IN] * 3
    assert {(record.interface, record.context) for record in records} == {("alice.3", 3)}
    stamps = [record.timestamp_ns for record in records]
    assert before <= stamps[0]
    assert stamps == sorted(stamps)
    assert stamps[-1] <= time.time_ns()


def test_a_frame_is_cut_to_the_snapshot_length(machine):
    ring = CaptureRing(machine.nic, snaplen=60)
    ring.add(0, "a", MAC)
    capture_frames(ring.nic, 0, OUT, SENT, bytes(range(100)))
    capture_frames(ring.nic, 0, OUT, SENT, bytes(20))
    assert [(r.length, len(r.data)) for r in CaptureReader(ring.fd).read()] == [(100, 60), (20, 20)]
    ring.close()


def test_the_ring_goes_round_and_nothing_is_lost(ring):
    """Frames of many sizes, so that records end everywhere at the ring's end."""
    ring.add(0, "a", MAC)
    reader = CaptureReader(ring.fd)
    number = 0
    while reader.consumed < 5 * ring.size:
        sizes = [14 + (number + i) * 997 % 9000 for i in range(10)]
        frames = [(number + i).to_bytes(4, "big") + bytes(size - 4) for i, size in enumerate(sizes)]
        for data in frames:
            capture_frames(ring.nic, 0, OUT, SENT, data)
        assert [record.data for record in reader.read()] == frames
        number += 10
    assert reader.lost == 0
    assert reader.frames == number


def test_the_longest_frame_always_fits_an_empty_ring(ring):
    ring.add(0, "a", MAC)
    reader = CaptureReader(ring.fd)
    for size in range(14, 9000, 1111):
        capture_frames(ring.nic, 0, OUT, SENT, bytes(size))
        assert len(reader.read()) == 1
        capture_frames(ring.nic, 0, OUT, SENT, bytes(MAX_SNAPLEN))
        assert [record.length for record in reader.read()] == [MAX_SNAPLEN]


def test_what_finds_no_room_is_counted_and_nothing_is_overwritten(ring):
    ring.add(0, "a", MAC)
    data = bytes(range(200))
    capture_frames(ring.nic, 0, OUT, SENT, data, 5000)
    reader = CaptureReader(ring.fd)
    assert ring.size < 5000 * 200
    assert reader.lost == ring.lost > 0
    records = reader.read(10000)
    assert len(records) + reader.lost == 5000
    assert all(record.data == data for record in records)
    capture_frames(ring.nic, 0, OUT, SENT, data)
    assert len(reader.read()) == 1


def test_another_process_reads(ring):
    ring.add(0, "alice.0", MAC)
    capture_frames(ring.nic, 0, OUT, SENT, b"\x01" * 60, 3)
    script = (
        "import sys; from cdna.nic.capture_reader import CaptureReader\n"
        "print([(r.interface, r.data.hex()) for r in CaptureReader(int(sys.argv[1])).read()])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(ring.fd)],
        pass_fds=[ring.fd], capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == str([("alice.0", "01" * 60)] * 3)
    assert CaptureReader(ring.fd).read() == []  # the ring has one reader, and it has read


def test_the_file_keeps_its_size(ring):
    with pytest.raises(PermissionError):
        os.ftruncate(ring.fd, 4096)
    with pytest.raises(PermissionError):
        os.ftruncate(ring.fd, ring.size * 4)


def test_what_is_no_ring_is_refused(tmp_path):
    with (tmp_path / "x").open("w+b") as file:
        file.truncate(HEAD + SMALL)
        with pytest.raises(ConfigError, match="no capture buffer"):
            CaptureReader(file.fileno())
    fd = os.memfd_create("x")
    os.ftruncate(fd, HEAD + SMALL)
    with pytest.raises(ConfigError, match="no capture buffer"):
        CaptureReader(fd)
    os.close(fd)


HEADER = struct.Struct("<IHBBIIQ")


@pytest.mark.parametrize(
    ("field", "value"),
    [(0, 0), (0, 20), (0, 85), (0, 1 << 31), (0, 8), (1, 4096), (2, 7), (5, 65), (5, 0xFFFFFFFF)],
)
def test_a_damaged_ring_is_an_error_and_no_more(machine, field, value):
    ring = CaptureRing(machine.nic, size=1)
    reader = CaptureReader(ring.fd)
    capture_frames(ring.nic, 0, OUT, SENT, bytes(60))  # no capture wants it yet
    ring.add(0, "a", MAC)
    assert reader.read() == []
    at = HEAD + reader.consumed % ring.size
    capture_frames(ring.nic, 0, OUT, SENT, bytes(60))
    header = list(HEADER.unpack(os.pread(ring.fd, HEADER.size, at)))
    assert header[:2] == [88, 0]
    header[field] = value
    os.pwrite(ring.fd, HEADER.pack(*header), at)
    with pytest.raises(ResourceError, match="damaged at byte"):
        reader.read()
    ring.close()


def test_a_frame_longer_than_any_is_damage(ring):
    reader = CaptureReader(ring.fd)
    header = HEADER.pack(100024, 0, OUT, SENT, 100000, 100000, 0)
    os.pwrite(ring.fd, header, HEAD)
    os.pwrite(ring.fd, struct.pack("<Q", 100024), 0)
    with pytest.raises(ResourceError, match="damaged at byte 0"):
        reader.read()


def test_an_impossible_producer_is_an_error(ring):
    reader = CaptureReader(ring.fd)
    os.pwrite(ring.fd, struct.pack("<Q", ring.size + 8), 0)
    with pytest.raises(ResourceError, match="damaged"):
        reader.read()


@pytest.mark.parametrize("consumer", [1 << 63, 0xFFFFFFFFFFFFFFFF, 12345, 8])
def test_a_reader_that_lies_harms_no_traffic(machine, ring, consumer):
    neighbours = Neighbours(machine)
    ring.add(0, "a", MAC)
    ring.add(1, "b", MAC)
    neighbours.check()
    os.pwrite(ring.fd, struct.pack("<Q", consumer), 64)
    for _ in range(200):
        neighbours.check()


def test_who_is_captured(machine, ring):
    neighbours = Neighbours(machine)
    other = CaptureRing(machine.nic, size=1)
    ring.add(0, "alice.0", MAC)
    other.add(1, "bob.1", MAC)
    assert (ring.wants(0), ring.wants(1), other.wants(1)) == (True, False, True)
    neighbours.check(20)
    first, second = CaptureReader(ring.fd), CaptureReader(other.fd)
    assert [(r.interface, r.direction) for r in first.read()] == [("alice.0", OUT)] * 20 + [
        ("alice.0", IN)
    ] * 20
    assert [(r.interface, r.direction) for r in second.read()] == [("bob.1", IN)] * 20 + [("bob.1", OUT)] * 20
    ring.remove(0)
    other.close()
    assert second.ended
    assert not first.ended
    neighbours.check(20)
    assert first.read() == second.read() == []


def test_a_ring_that_is_not_closed_stays_while_the_nic_uses_it(machine):
    neighbours = Neighbours(machine)
    CaptureRing(machine.nic, size=1).add(0, "a", MAC)
    neighbours.check()


def test_a_context_that_gets_another_guest_gets_another_name(ring):
    reader = CaptureReader(ring.fd)
    ring.add(0, "alice.0", MAC)
    capture_frames(ring.nic, 0, OUT, SENT, bytes(60))
    ring.add(0, "bob.0", MAC)
    capture_frames(ring.nic, 0, OUT, SENT, bytes(60))
    assert [record.interface for record in reader.read()] == ["alice.0", "bob.0"]


def test_names_find_room_where_frames_do_not(ring):
    ring.add(0, "a", MAC)
    capture_frames(ring.nic, 0, OUT, SENT, bytes(1000), 1000)
    assert ring.lost
    for index in range(1, 20):
        ring.add(index, f"late.{index}", MAC)
    reader = CaptureReader(ring.fd)
    reader.read(10000)
    for index in range(1, 20):
        capture_frames(ring.nic, index, IN, SENT, bytes(60))
    assert [record.interface for record in reader.read()] == [f"late.{i}" for i in range(1, 20)]


def test_no_frame_gets_the_name_of_another_guest(ring):
    """Even where a reader stands still until there is no room for names either."""
    capture_frames(ring.nic, 0, OUT, SENT, bytes(60))
    ring.add(0, "first", MAC)
    capture_frames(ring.nic, 0, OUT, SENT, bytes(1000), 1000)
    for number in range(1000):
        ring.add(0, f"guest {number}", MAC)
    assert not ring.wants(0)
    capture_frames(ring.nic, 0, OUT, SENT, bytes(60))
    reader = CaptureReader(ring.fd)
    assert {record.interface for record in reader.read(10000)} == {"first"}
    ring.add(1, "other", MAC)  # which brings the name that is still missing
    capture_frames(ring.nic, 0, OUT, SENT, bytes(60))
    assert [record.interface for record in reader.read()] == ["guest 999"]


def test_while_the_nic_runs(machine):
    with machine:
        alice, bob = machine.attach("alice", tx_ring=64), machine.attach("bob", rx_ring=1024)
        ring = CaptureRing(machine.nic)
        reader = CaptureReader(ring.fd)
        ring.add(0, "alice.0", MAC)
        frames = [frame(mac(bob), mac(alice), i) for i in range(1000)]
        seen, sent, got = [], 0, []
        deadline = time.monotonic() + 60
        while len(seen) < len(frames) and time.monotonic() < deadline:
            sent += alice.send(frames[sent:])
            got += bob.recv()
            seen += [record.data for record in reader.read()]
        assert seen == frames
        ring.close()
        assert reader.lost == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"snaplen": -1}, "snaplen -1"),
        ({"size": 0}, "capture buffer 0"),
        ({"size": 1 << 40}, "capture buffer"),
        ({"size": "big"}, "whole number"),
    ],
)
def test_impossible_settings(machine, options, message):
    with pytest.raises(ConfigError, match=message):
        CaptureRing(machine.nic, **options)


def test_impossible_contexts(machine, ring):
    with pytest.raises(ConfigError, match="context 32: give 0 to 31"):
        ring.add(32, "x", MAC)
    ring.close()
    ring.close()
    with pytest.raises(ConfigError, match="was closed"):
        ring.add(0, "x", MAC)
