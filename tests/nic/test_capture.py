"""Capture files: read whole or not at all, with the place of the damage."""

import gzip
import struct

import pytest
from scapy.layers.l2 import Ether
from scapy.utils import RawPcapNgReader, RawPcapReader, RawPcapWriter, wrpcap, wrpcapng

from cdna.errors import ConfigError, ResourceError
from cdna.nic.capture import CaptureWriter, read_capture

FRAMES = [bytes(range(n)) for n in (60, 61, 200)]
NS = 1_700_000_000_123_456_789


def capture_of(path, frames=FRAMES):
    (wrpcapng if path.suffix == ".pcapng" else wrpcap)(str(path), [Ether(frame) for frame in frames])
    return path


@pytest.mark.parametrize("suffix", ["pcap", "pcapng"])
def test_frames_and_time_stamps_are_read(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    packets = [Ether(frame) for frame in FRAMES]
    for i, packet in enumerate(packets):
        packet.time = 1_600_000_000 + i
    (wrpcapng if suffix == "pcapng" else wrpcap)(str(path), packets)
    captured = read_capture(path)
    assert [frame.data for frame in captured] == FRAMES
    assert [frame.timestamp_ns for frame in captured] == [(1_600_000_000 + i) * 10**9 for i in range(3)]


@pytest.mark.parametrize("endianness", ["<", ">"])
@pytest.mark.parametrize("nano", [False, True])
def test_nanoseconds_are_kept(tmp_path, nano, endianness):
    writer = RawPcapWriter(str(tmp_path / "n.pcap"), linktype=1, nano=nano, endianness=endianness)
    writer.write_header(None)
    writer.write_packet(FRAMES[0], sec=NS // 10**9, usec=NS % 10**9 // (1 if nano else 1000))
    writer.close()
    assert read_capture(tmp_path / "n.pcap")[0].timestamp_ns == (NS if nano else NS // 1000 * 1000)


def test_gzip_is_read(tmp_path):
    data = capture_of(tmp_path / "a.pcap").read_bytes()
    (tmp_path / "a.pcap.gz").write_bytes(gzip.compress(data))
    assert len(read_capture(tmp_path / "a.pcap.gz")) == 3
    (tmp_path / "b.pcap.gz").write_bytes(gzip.compress(data)[:-20])
    with pytest.raises(ConfigError, match="damaged gzip"):
        read_capture(tmp_path / "b.pcap.gz")


@pytest.mark.parametrize("suffix", ["pcap", "pcapng"])
def test_a_cut_file_is_refused_wherever_it_is_cut(tmp_path, suffix):
    data = capture_of(tmp_path / f"a.{suffix}").read_bytes()
    cut = tmp_path / f"cut.{suffix}"
    whole = {len(capture_of(tmp_path / f"b.{suffix}", FRAMES[:n]).read_bytes()) for n in (1, 2, 3)}
    for size in range(len(data)):
        cut.write_bytes(data[:size])
        if size in whole:
            assert len(read_capture(cut)) < 3
        else:
            with pytest.raises(ConfigError):
                read_capture(cut)


def test_where_a_file_is_cut_is_told(tmp_path):
    path = capture_of(tmp_path / "a.pcap")
    data = path.read_bytes()
    path.write_bytes(data[:-50])
    second = 24 + 16 + 60 + 16 + 61
    with pytest.raises(ConfigError, match=rf"packet 3 at offset {second + 16}: 50 of 200 bytes missing"):
        read_capture(path)
    path.write_bytes(data[: second + 7])
    with pytest.raises(ConfigError, match=rf"header of packet 3 at offset {second}: 9 of 16 bytes missing"):
        read_capture(path)


def test_where_a_pcapng_is_cut_is_told(tmp_path):
    path = capture_of(tmp_path / "a.pcapng")
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(ConfigError, match=r"packet 3 at offset \d+: 5 of \d+ bytes missing"):
        read_capture(path)


def pcap(linktype, *frames):
    header = struct.pack("<IHHIIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, linktype)
    return header + b"".join(struct.pack("<IIII", 0, 0, len(f), len(f)) + f for f in frames)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "0 bytes are no capture"),
        (b"GIF89a", "not a capture file: it starts with 47494638"),
        (pcap(1), "no packet in this capture"),
        (pcap(101, bytes(20)), "packet 1 has link type 101"),
        (pcap(1, bytes(14), bytes(13)), "packet 2 has 13 bytes"),
        (struct.pack("<IIIHHq", 0x0A0D0D0A, 3, 0x1A2B3C4D, 1, 0, -1), "a pcapng block of 3 bytes"),
    ],
)
def test_what_is_no_capture_is_told(tmp_path, data, message):
    (tmp_path / "x.pcap").write_bytes(data)
    with pytest.raises(ConfigError, match=message):
        read_capture(tmp_path / "x.pcap")


def test_a_frame_too_long_for_the_nic_is_told(tmp_path):
    capture_of(tmp_path / "a.pcap", [bytes(60), bytes(9019)])
    with pytest.raises(ConfigError, match="packet 2 has 9019 bytes; frames of 14 to 9018"):
        read_capture(tmp_path / "a.pcap")


@pytest.mark.parametrize("suffix", ["pcap", "pcapng"])
def test_what_is_written_is_read(tmp_path, suffix):
    path = tmp_path / f"w.{suffix}"
    writer = CaptureWriter(path)
    writer.start()
    for frame in FRAMES:
        writer.write(frame, NS)
    writer.close()
    assert [tuple(frame) for frame in read_capture(path)] == [(f, NS, len(f)) for f in FRAMES]
    with RawPcapReader(str(path)) as reader:
        assert isinstance(reader, RawPcapNgReader) == (suffix == "pcapng")


def test_where_nothing_can_be_written(tmp_path):
    with pytest.raises(ConfigError, match=r"name it \.pcap or \.pcapng"):
        CaptureWriter(tmp_path / "w.cap")
    with pytest.raises(ResourceError, match="No such file or directory"):
        CaptureWriter(tmp_path / "nowhere" / "w.pcap")
