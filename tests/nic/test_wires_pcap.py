"""The pcap wire: replay and recording."""

import os
import time

import pytest
from scapy.layers.l2 import Ether
from scapy.utils import wrpcap

import cdna
from cdna.errors import ConfigError, ResourceError
from cdna.nic.capture import read_capture
from cdna.nic.pcap_wire import PcapWire
from cdna.nic.replay import ReplayWire
from cdna.nic.wire import finish_offload
from cdna.nic.wires import make_wire
from tests.support.namespace import VNET, until
from tests.support.tcp import IPV4, VNET_GSO, large_segment

FRAMES = [bytes([i]) * (60 + i) for i in range(100)]


def capture_of(path, frames=FRAMES, gap=0.001):
    packets = [Ether(frame) for frame in frames]
    for i, packet in enumerate(packets):
        packet.time = 1_600_000_000 + i * gap
    wrpcap(str(path), packets)
    return path


def test_replay_at_full_speed(tmp_path):
    wire = PcapWire(capture_of(tmp_path / "a.pcap"))
    assert wire.receive(70) == FRAMES[:70]
    assert not wire.done
    assert wire.receive(70) == FRAMES[70:]
    assert wire.done
    assert wire.receive() == []


def test_replay_again_and_again(tmp_path):
    capture_of(tmp_path / "a.pcap")
    wire = PcapWire(tmp_path / "a.pcap", loop=3)
    assert wire.receive(1000) == FRAMES * 3
    assert wire.done
    wire = PcapWire(tmp_path / "a.pcap", loop=0)
    assert wire.receive(1000) == FRAMES * 10
    assert not wire.done


def test_time_stamps_are_the_captures(tmp_path):
    wire = PcapWire(capture_of(tmp_path / "a.pcap", gap=0.25))
    assert [stamp for _, stamp in wire.receive_timed(3)] == [
        1_600_000_000_000_000_000, 1_600_000_000_250_000_000, 1_600_000_000_500_000_000
    ]  # fmt: skip


def test_recorded_timing_is_never_early():
    frames = [(FRAMES[i], i * 2_000_000) for i in range(10)]  # 2 ms apart
    wire = ReplayWire(frames, recorded=True, loop=2)
    before = time.monotonic_ns()
    number = 0
    while not wire.done:
        for frame in wire.receive():
            assert time.monotonic_ns() - before >= number * 2_000_000
            assert frame == FRAMES[number % 10]
            number += 1
    assert number == 20


def test_recorded_timing_waits_for_what_is_due_late():
    wire = ReplayWire([(FRAMES[0], 5), (FRAMES[1], 5), (FRAMES[2], 10**18)], recorded=True)
    assert wire.receive() == FRAMES[:2]
    assert wire.receive() == []
    assert not wire.done


def test_recorded_stamps_that_go_back_mean_at_once():
    wire = ReplayWire([(FRAMES[0], 10**9), (FRAMES[1], 0), (FRAMES[2], 10**9)], recorded=True)
    assert wire.receive() == FRAMES[:3]


def test_without_a_file_to_write_what_is_sent_is_counted_as_lost(tmp_path):
    wire = PcapWire(capture_of(tmp_path / "a.pcap"))
    assert wire.transmit(FRAMES * 30) == 3000
    assert wire.stats()["tx_lost"] == 3000


@pytest.mark.parametrize("suffix", ["pcap", "pcapng"])
def test_every_frame_is_written(tmp_path, suffix):
    frames = [i.to_bytes(4, "big") * 15 for i in range(5000)]
    before = time.time_ns() // 1000 * 1000
    with PcapWire(write=tmp_path / f"out.{suffix}") as wire:
        assert wire.receive() == []
        sent = 0
        while sent < len(frames):
            sent += wire.transmit(frames[sent:])
    captured = read_capture(tmp_path / f"out.{suffix}")
    assert [frame.data for frame in captured] == frames
    times = [frame.timestamp_ns for frame in captured]
    assert times == sorted(times)
    assert before <= times[0] <= times[-1] <= time.time_ns()


def test_read_and_write(tmp_path):
    capture_of(tmp_path / "in.pcap")
    with make_wire(f"pcap:{tmp_path}/in.pcap,{tmp_path}/out.pcapng") as wire:
        assert wire.transmit(wire.receive(100)) == 100
    assert [frame.data for frame in read_capture(tmp_path / "out.pcapng")] == FRAMES
    with make_wire(f"pcap:read={tmp_path}/in.pcap,write={tmp_path}/two.pcap,speed=recorded,loop=2") as wire:
        wire.transmit(FRAMES[:1])
    assert [frame.data for frame in read_capture(tmp_path / "two.pcap")] == FRAMES[:1]


def test_what_a_guest_leaves_to_do_is_done_before_it_is_written(tmp_path):
    """No wire that takes no offloads is given one: a capture has whole frames with their checksums."""
    segment, offload = large_segment(5000, 1400)
    header = VNET.pack(1, VNET_GSO[IPV4], 0, 1400, offload.csum_start, 16) + bytes(2)
    with cdna.Machine(memory=96 << 20, wire=PcapWire(write=tmp_path / "a.pcap")) as machine:
        assert not machine.wire.offloads
        guest = machine.attach("alice", vnet_header=True, buffer_size=16384, anti_spoof=False)
        assert guest.send([header + segment]) == 1
        until(lambda: machine.wire.stats()["tx_frames"] == 4)
    assert [frame.data for frame in read_capture(tmp_path / "a.pcap")] == finish_offload(segment, offload)


def test_an_idle_wires_file_is_a_capture_of_nothing(tmp_path):
    PcapWire(write=tmp_path / "none.pcap").close()
    with pytest.raises(ConfigError, match="no packet in this capture"):
        read_capture(tmp_path / "none.pcap")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full, which behaves as a full disk does")
@pytest.mark.parametrize("suffix", ["pcap", "pcapng"])
def test_a_full_disk_takes_the_link_down_and_is_told(tmp_path, suffix):
    (tmp_path / f"full.{suffix}").symlink_to("/dev/full")
    wire = PcapWire(write=tmp_path / f"full.{suffix}")
    sent = 0
    while wire.link:  # no frame is refused for ever: the wire goes down instead
        sent += wire.transmit(FRAMES)
    sent += wire.transmit(FRAMES)
    with pytest.raises(ResourceError, match=r"incomplete: No space left on device; \d+ frames"):
        wire.close()
    wire.close()
    stats = wire.stats()
    assert stats["tx_frames"] == sent
    assert 100 <= stats["tx_lost"] <= sent


def test_impossible_files(tmp_path):
    capture_of(tmp_path / "a.pcap")
    with pytest.raises(ConfigError, match="no file"):
        PcapWire()
    with pytest.raises(ConfigError, match="cannot be read and written at once"):
        PcapWire(tmp_path / "a.pcap", tmp_path / "." / "a.pcap")
    with pytest.raises(ConfigError, match="name it"):
        PcapWire(write=tmp_path / "out.txt")
    with pytest.raises(ResourceError, match="cannot write this capture"):
        PcapWire(write=tmp_path / "nowhere" / "out.pcap")
    with pytest.raises(ConfigError, match="-1 passes"):
        PcapWire(tmp_path / "a.pcap", loop=-1)
    with pytest.raises(ConfigError, match="receives nothing else"):
        PcapWire(tmp_path / "a.pcap").put(FRAMES)
    (tmp_path / "cut.pcap").write_bytes((tmp_path / "a.pcap").read_bytes()[:-1])
    with pytest.raises(ConfigError, match="packet 100 at offset"):
        PcapWire(tmp_path / "cut.pcap")
