"""The benchmark's frames: what is written is what is checked, and nothing else passes."""

import os
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.l2 import Ether
from scapy.packet import Raw
from scapy.utils import wrpcap, wrpcapng

from cdna.errors import ConfigError
from cdna.nic.traffic import FrameError, Load

DST, SRC = bytes.fromhex("020000000001"), bytes.fromhex("0200000000fe")
STAMP = struct.Struct("<IIQ")

sizes = st.one_of(st.integers(60, 140), st.sampled_from([590, 1514, 9017, 9018]))
flows = st.integers(0, 2**32 - 1)
sequence_numbers = st.one_of(st.integers(0, 1000), st.integers(0, 2**64 - 2))


def capture_of(path, *payloads, write=wrpcap):
    write(str(path), [Ether(dst="ff:ff:ff:ff:ff:ff", src="02:00:00:00:00:09") / Raw(p) for p in payloads])
    return path


@given(sizes, flows, sequence_numbers, st.booleans())
def test_a_frame_is_laid_out_as_documented(size, flow, seq, verify):
    frame = Load.fixed(size, verify=verify).write(flow, seq, DST, SRC)
    assert len(frame) == size
    assert frame[:16] == DST + SRC + b"\x88\xb5\x00\x00"
    assert STAMP.unpack(frame[16:32]) == (flow, size, seq)


@given(sizes, flows, sequence_numbers, st.booleans())
def test_what_is_written_is_ok(size, flow, seq, verify):
    load = Load.fixed(size, verify=verify)
    assert load.check(load.write(flow, seq, DST, SRC), flow, seq) == FrameError.FRAME_OK


@given(sizes, st.data())
def test_a_verifying_load_notices_any_changed_byte_but_the_addresses(size, data):
    load = Load.fixed(size, verify=True)
    at = data.draw(st.integers(12, size - 1))
    frame = bytearray(load.write(3, 77, DST, SRC))
    frame[at] ^= 1 << data.draw(st.integers(0, 7))
    assert load.check(bytes(frame), 3, 77) != FrameError.FRAME_OK


def test_payload_is_not_looked_at_unless_verified():
    load = Load.fixed(200)
    frame = bytearray(load.write(0, 0))
    frame[100] ^= 0xFF
    assert load.check(bytes(frame), 0, 0) == FrameError.FRAME_OK
    load.verify = True
    assert load.check(bytes(frame), 0, 0) == FrameError.FRAME_PAYLOAD


def test_each_error_has_its_own_code():
    load = Load.fixed(100, verify=True)
    frame = load.write(5, 9)
    assert load.check(frame, 4, 9) == FrameError.FRAME_FLOW
    assert load.check(frame, 5, 8) == FrameError.FRAME_SEQUENCE
    assert load.check(frame[:-1], 5, 9) == FrameError.FRAME_LENGTH
    assert load.check(frame[:20], 5, 9) == FrameError.FRAME_LENGTH
    assert load.check(b"", 5, 9) == FrameError.FRAME_LENGTH
    assert load.check(frame[:20] + b"\0" + frame[21:], 5, 9) == FrameError.FRAME_LENGTH
    assert load.check(frame[:-8] + load.write(5, 10)[-8:], 5, 9) == FrameError.FRAME_TAIL
    assert load.check(frame[:-8] + load.write(6, 9)[-8:], 5, 9) == FrameError.FRAME_TAIL
    assert load.check(frame[:12] + b"\x08\x00" + frame[14:], 5, 9) == FrameError.FRAME_HEADER
    assert load.check(frame[:50] + b"\0\0" + frame[52:], 5, 9) == FrameError.FRAME_PAYLOAD


def test_patterns_of_frames_differ():
    load = Load.fixed(1514, verify=True)
    payloads = {load.write(flow, seq)[32:-8] for flow in range(8) for seq in range(8)}
    assert len(payloads) == 64


@given(st.lists(st.integers(60, 300), min_size=1, max_size=13), st.integers(0, 2**63))
def test_lengths_come_in_a_cycle(lengths, seq):
    load = Load(lengths, verify=True)
    frame = load.write(1, seq)
    assert len(frame) == lengths[seq % len(lengths)]
    assert load.check(frame, 1, seq) == FrameError.FRAME_OK


def test_imix_is_seven_four_one():
    load = Load.imix()
    assert sorted(load.lengths) == [64] * 7 + [590] * 4 + [1514]
    assert load.max_length == 1514
    assert load.mean_length == pytest.approx((7 * 64 + 4 * 590 + 1514) / 12)


@pytest.mark.parametrize(("write", "suffix"), [(wrpcap, "pcap"), (wrpcapng, "pcapng")])
def test_a_capture_is_the_load(tmp_path, write, suffix):
    payloads = [bytes(range(200)), os.urandom(1500), b"short"]
    load = Load.capture(capture_of(tmp_path / f"c.{suffix}", *payloads, write=write), verify=True)
    assert load.lengths == [214, 1514, 60]
    for seq in (0, 1, 3, 4):
        frame = load.write(2, seq, DST, SRC)
        assert frame[:12] == DST + SRC
        assert frame[32:-8] == payloads[seq % 3][18:-8]
        assert load.check(frame, 2, seq) == FrameError.FRAME_OK
        wrong = frame[:40] + bytes([frame[40] ^ 1]) + frame[41:]
        assert load.check(wrong, 2, seq) == FrameError.FRAME_PAYLOAD
    assert load.write(2, 2)[32:-8] == bytes(20)  # padded with zeros


def test_a_cut_capture_gets_its_lengths_back(tmp_path):
    path = tmp_path / "cut.pcap"
    wrpcap(str(path), Ether(bytes(100)), snaplen=100)
    data = bytearray(path.read_bytes())
    data[36:40] = struct.pack("=I", 1000)  # the length on the wire, of the record's header
    path.write_bytes(data)
    assert Load.capture(path).lengths == [1000]


def test_loads_by_name(tmp_path):
    assert Load.parse("1514").lengths == [1514]
    assert Load.parse("imix", verify=True).verify
    assert Load.parse(str(capture_of(tmp_path / "a.pcap", bytes(100)))).lengths == [114]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("59", "59 bytes: give 60 to 9018"),
        ("9019", "9019 bytes: give 60 to 9018"),
        ("-64", "neither a number of bytes"),
        ("imax", "nor imix, nor the path"),
        ("", "neither a number of bytes"),
        ("/nowhere/x.pcap", "nor the path of a capture file"),
        ("/", "cannot read this capture"),
    ],
)
def test_an_impossible_load(text, message):
    with pytest.raises(ConfigError, match=message):
        Load.parse(text)


def test_a_load_of_nothing():
    with pytest.raises(ConfigError, match="at least one"):
        Load([])
    with pytest.raises(ConfigError, match="payload of 1 frames for 2"):
        Load([60, 60], [b""])


def test_an_address_is_six_bytes():
    with pytest.raises(ConfigError, match="six bytes"):
        Load.fixed(60).write(0, 0, b"\x02")


def test_forked_processes_share_a_load():
    load = Load([60, 100], verify=True)
    child = os.fork()
    if child == 0:
        ok = load.check(load.write(0, 1), 0, 1) == FrameError.FRAME_OK and len(load.write(0, 1)) == 100
        load.verify = False
        os._exit(0 if ok else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert not load.verify
