"""Null, loopback and queue wires, and wires by name."""

import os
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdna.errors import ConfigError, ResourceError
from cdna.nic.loopback_wire import LoopbackWire
from cdna.nic.null_wire import NullWire
from cdna.nic.queue_wire import QueueWire
from cdna.nic.traffic import Load
from cdna.nic.wires import make_wire


def numbered(first, n, size=60):
    return [i.to_bytes(4, "big") * (size // 4) for i in range(first, first + n)]


# --- all wires ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [NullWire, LoopbackWire, QueueWire])
def test_a_closed_wire_is_down_and_counts_what_it_loses(make):
    wire = make()
    assert wire.link
    wire.close()
    wire.close()
    assert not wire.link
    assert wire.transmit(numbered(0, 3)) == 3
    assert wire.receive() == []
    assert wire.stats()["tx_lost"] == 3
    with pytest.raises(ResourceError, match="closed"):
        wire.link = True


@pytest.mark.parametrize("make", [NullWire, LoopbackWire, QueueWire])
def test_only_frames_are_sent(make):
    with make() as wire:
        with pytest.raises(ConfigError, match="frame 1 has 13 bytes; give 14 to 9018"):
            wire.transmit([bytes(14), bytes(13)])
        with pytest.raises(ConfigError, match="frame 0 has 9019 bytes"):
            wire.transmit([bytes(9019)])
        with pytest.raises(ConfigError, match="frame 0 is str; give bytes"):
            wire.transmit(["x" * 60])
        assert wire.stats()["tx_frames"] == 0


@pytest.mark.parametrize("make", [NullWire, LoopbackWire, QueueWire])
def test_nothing_passes_while_the_cable_is_pulled(make):
    with make() as wire:
        wire.transmit(numbered(0, 3))
        wire.link = False
        assert wire.transmit(numbered(3, 100)) == 100
        assert wire.receive() == []
        assert wire.stats()["tx_lost"] == 100
        wire.link = True
        assert wire.transmit(numbered(103, 1)) == 1
        assert wire.stats()["tx_lost"] == 100


# --- null --------------------------------------------------------------------------------------------------


def test_null_counts():
    wire = NullWire()
    assert wire.transmit(numbered(0, 100)) == 100
    assert wire.stats()["tx_frames"] == 100
    assert wire.stats()["tx_bytes"] == 6000
    assert wire.receive() == []


@pytest.mark.parametrize("verify", [False, True])
def test_null_checks_each_flow(verify):
    load = Load.imix(verify=verify)
    wire = NullWire(load, flows=3)
    order = [0, 1, 0, 2, 2, 0, 1, 1, 1, 0] * 10
    sent = [0, 0, 0]
    frames = []
    for flow in order:
        frames.append(load.write(flow, sent[flow]))
        sent[flow] += 1
    assert wire.transmit(frames) == 100
    assert wire.bad == 0
    assert wire.first_bad is None


def test_null_tells_the_first_bad_frame():
    load = Load.fixed(100)
    wire = NullWire(load, flows=2)
    wire.transmit([load.write(0, 0), load.write(0, 1), load.write(0, 4), load.write(0, 5), load.write(0, 5)])
    assert wire.stats()["tx_bad"] == 2  # a gap counts once, and so does a repetition
    assert wire.first_bad == ("frame 2: FRAME_SEQUENCE in flow 0, 100 bytes, sequence number 4, expected 2")


def test_null_tells_what_is_no_frame_of_the_benchmark():
    wire = NullWire(Load.fixed(100), flows=2)
    wire.transmit([bytes(100)])
    assert wire.first_bad == "frame 0: 100 bytes without a stamp of the benchmark"
    wire = NullWire(Load.fixed(100), flows=2)
    wire.transmit([Load.fixed(100).write(2, 0)])
    assert wire.first_bad == "frame 0: stamped as of flow 2, of 2 flows"


def test_null_verifies_bytes():
    load = Load.fixed(100, verify=True)
    wire = NullWire(load, flows=1)
    good, bad = load.write(0, 0), bytearray(load.write(0, 1))
    bad[60] ^= 1
    wire.transmit([good, bytes(bad), load.write(0, 2)])
    assert wire.bad == 1
    assert "FRAME_PAYLOAD in flow 0" in wire.first_bad


def test_a_slow_line_takes_one_frame_and_then_waits():
    wire = NullWire(line_rate=0.001)  # a frame takes days
    assert wire.transmit(numbered(0, 50)) == 1
    assert wire.transmit(numbered(1, 49)) == 0
    assert wire.stats()["tx_frames"] == 1


def test_a_line_with_time_takes_everything():
    wire = NullWire(line_rate=1e18)
    frames, taken = numbered(0, 1000), 0
    while taken < 1000:
        taken += wire.transmit(frames[taken:])
    assert wire.stats()["tx_frames"] == 1000


@pytest.mark.parametrize("rate", [0, -1, float("nan"), float("inf")])
def test_an_impossible_line(rate):
    with pytest.raises(ConfigError, match="line rate"):
        NullWire(line_rate=rate)


def test_flows_that_cannot_be():
    with pytest.raises(ConfigError, match="-1 flows"):
        NullWire(Load.fixed(60), flows=-1)


def test_a_forked_process_runs_a_wire():
    load = Load.fixed(80, verify=True)
    wire = NullWire(load, flows=1)
    child = os.fork()
    if child == 0:
        os._exit(0 if wire.transmit([load.write(0, seq) for seq in range(10)]) == 10 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert (wire.stats()["tx_frames"], wire.bad) == (10, 0)


# --- loopback ----------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 700)), max_size=30))
@settings(deadline=None)
def test_loopback_is_a_bounded_queue(steps):
    wire, sent, received = LoopbackWire(), 0, 0
    for send, n in steps:
        if send:
            taken = wire.transmit([b"%018d" % i + bytes(i % 300) for i in range(sent, sent + n)])
            # A slot is free again when the NIC has asked for the frames behind it.
            assert min(n, 1024 - 32 - (sent - received)) <= taken <= min(n, 1024 - (sent - received))
            sent += taken
        else:
            for frame in wire.receive(n):
                assert frame == b"%018d" % received + bytes(received % 300)
                received += 1
    while frames := wire.receive(1000):
        received += len(frames)
    assert received == sent


def test_a_full_loopback_loses_nothing():
    wire = LoopbackWire()
    frames = numbered(0, 2000)
    assert wire.transmit(frames) == 1024
    assert wire.transmit(frames[1024:]) == 0
    assert wire.receive(2000) == frames[:1024]
    assert wire.receive(1) == []
    assert wire.transmit(frames[1024:]) == 976
    assert wire.receive(2000) == frames[1024:]


def test_jumbo_frames_loop():
    wire, frames = LoopbackWire(), numbered(0, 40, 9016)
    wire.transmit(frames)
    assert wire.receive(40) == frames


# --- queue -------------------------------------------------------------------------------------------------


def test_queues_both_ways():
    wire = QueueWire(depth=64)
    assert wire.transmit(numbered(0, 70)) == 64
    assert wire.waiting == 64
    assert wire.get(10) == numbered(0, 10)
    assert wire.transmit(numbered(64, 6)) == 6
    assert wire.get() == numbered(10, 60)
    assert wire.put(numbered(500, 70)) == 64
    assert wire.receive(5) == numbered(500, 5)
    assert wire.receive(100) == numbered(505, 59)
    assert wire.receive() == []
    assert wire.put(numbered(564, 6)) == 6
    assert wire.receive() == numbered(564, 6)


def test_times_do_not_go_back():
    wire = QueueWire()
    for first in range(0, 100, 10):
        wire.transmit(numbered(first, 10))
    times = [time for _, time in wire.get_timed()]
    assert times == sorted(times)
    assert times[0] > 1_500_000_000 * 10**9


def test_a_queue_between_threads():
    wire, n = QueueWire(depth=256), 4000
    frames = numbered(0, n)
    got = []

    def take():
        while len(got) < n:
            got.extend(wire.get())

    thread = threading.Thread(target=take)
    thread.start()
    sent = 0
    while sent < n:
        sent += wire.transmit(frames[sent : sent + 50])
    thread.join()
    assert got == frames


def test_a_queue_between_processes():
    wire, frames = QueueWire(depth=16), numbered(0, 5000)
    child = os.fork()
    if child == 0:
        sent = 0
        while sent < len(frames):
            sent += wire.transmit(frames[sent:])
        os._exit(0)
    got = []
    while len(got) < len(frames):
        got.extend(wire.get())
    assert got == frames
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_what_was_sent_can_be_got_after_close():
    wire = QueueWire()
    wire.transmit(numbered(0, 3))
    wire.close()
    assert wire.get() == numbered(0, 3)
    with pytest.raises(ResourceError, match="closed"):
        wire.put(numbered(0, 1))


@pytest.mark.parametrize("depth", [0, -1, 65537])
def test_an_impossible_queue(depth):
    with pytest.raises(ConfigError, match="give 1 to 65536"):
        QueueWire(depth)


def test_a_bad_frame_stops_put_before_any_is_taken():
    wire = QueueWire()
    with pytest.raises(ConfigError, match="frame 1 has 3 bytes"):
        wire.put([bytes(60), b"abc"])
    assert wire.receive() == []


# --- by name -----------------------------------------------------------------------------------------------


def test_wires_by_name():
    assert isinstance(make_wire("null"), NullWire)
    assert isinstance(make_wire("null:rate=1.5G"), NullWire)
    assert isinstance(make_wire("loopback"), LoopbackWire)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nul", r"unknown wire 'nul'; the known ones are null\[:rate=RATE\], loopback, pcap:"),
        ("", "unknown wire ''"),
        ("null:1", "give null, or null:rate=RATE, such as null:rate=1G"),
        ("null:rate=", "rate=: give bits a second"),
        ("null:rate=fast", "rate=fast: give bits a second"),
        ("null:rate=0", "rate=0: give bits a second"),
        ("pcap", r"give pcap:READ\[,WRITE\]"),
        ("pcap:", r"give pcap:READ\[,WRITE\]"),
        ("pcap:,", "a pcap wire of no file"),
        ("pcap:/nowhere/a.pcap", "/nowhere/a.pcap: cannot read this capture: No such file"),
        ("pcap:a,b,c", "unknown setting 'c'; give read, write, speed, loop"),
        ("pcap:a,read=b", "read is given twice"),
        ("pcap:read=a,speed=fast", "speed 'fast' of a pcap wire: give full or recorded"),
        ("pcap:read=a,loop=x", "loop=x is no number"),
        ("tap", "give tap:NAME"),
        ("tap:", "give tap:NAME"),
        ("tap:abcdefghijklmnop", "give 1 to 15 bytes"),
        ("tap:a/b", "no white space"),
        ("tap:a,b", "unknown setting 'b'; give queues or vnet, with ="),
        ("tap:a,queues=two", "queues=two is no number; give 1 or more"),
        ("tap:a,queues=0", "queues of a tap 0: give 1 to 256"),
        ("tap:a,vnet=yes", "vnet=yes; give on or off"),
        ("packet", "give packet:INTERFACE"),
        ("packet:a/b", "no white space"),
        ("packet:a,queues=2", "unknown setting 'queues=2'; give vnet, with ="),
    ],
)
def test_an_impossible_wire(text, message):
    with pytest.raises(ConfigError, match=message):
        make_wire(text)
