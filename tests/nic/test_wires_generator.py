"""The generator: whose turn it is, and when it waits."""

import os

import pytest
from tests.support.nic_parts import acknowledge

from cdna.errors import ConfigError
from cdna.nic.generator import GeneratorWire
from cdna.nic.traffic import FrameError, Load

GUESTS = [bytes([2, 0, 0, 0, 0, i]) for i in range(8)]
PEER = bytes.fromhex("0200000000fe")


def generator(load, flows, *, window=1 << 30, **settings):
    wire = GeneratorWire(load, **settings)
    for flow in range(flows):
        assert wire.add_flow(GUESTS[flow], PEER, window=window) == flow
    return wire


def stamps(frames):
    """(flow, seq) of each frame."""
    return [(int.from_bytes(f[16:20], "little"), int.from_bytes(f[24:32], "little")) for f in frames]


@pytest.mark.parametrize("verify", [False, True])
@pytest.mark.parametrize("load", [Load.fixed(60), Load.fixed(9018), Load.imix()], ids=lambda load: load.name)
def test_frames_are_those_of_their_flows(load, verify):
    load.verify = verify
    wire = generator(load, 3)
    expected = [0, 0, 0]
    for frame in wire.receive(300):
        flow = int.from_bytes(frame[16:20], "little")
        assert frame[:12] == GUESTS[flow] + PEER
        assert load.check(frame, flow, expected[flow]) == FrameError.FRAME_OK
        expected[flow] += 1
    assert expected == [100, 100, 100] == [wire.sent(flow) for flow in range(3)]


def test_a_captures_bytes_are_sent_though_nobody_checks_them():
    load = Load([100, 200], [bytes(range(100)), bytes(range(200))])
    for i, frame in enumerate(generator(load, 1).receive(50)):
        assert frame[32:-8] == bytes(range(32, (100, 200)[i % 2] - 8))


def test_flows_take_turns():
    wire = generator(Load.fixed(60), 3)
    assert stamps(wire.receive(5)) == [(0, 0), (1, 0), (2, 0), (0, 1), (1, 1)]
    assert stamps(wire.receive(2)) == [(2, 1), (0, 2)]


def test_a_window_closes_and_opens():
    wire = generator(Load.fixed(60), 2, window=4)
    assert stamps(wire.receive(100)) == [(flow, seq) for seq in range(4) for flow in range(2)]
    assert wire.receive(100) == []
    acknowledge(wire, 1, 2)
    assert stamps(wire.receive(100)) == [(1, 4), (1, 5)]
    acknowledge(wire, 0, 1)
    acknowledge(wire, 1, 3)
    assert sorted(stamps(wire.receive(100))) == [(0, 4), (1, 6)]


def test_flows_end_at_the_limit():
    wire = generator(Load.fixed(60), 2, limit=40)
    assert not wire.done
    assert len(wire.receive(1000)) == 80
    assert wire.done
    wire.limit = 41
    assert not wire.done
    assert stamps(wire.receive(1000)) == [(0, 40), (1, 40)]


def test_stop_and_start():
    wire = generator(Load.fixed(60), 1)
    wire.stop()
    assert wire.receive() == []
    wire.start()
    assert len(wire.receive()) == 32
    wire.link = False
    assert wire.receive() == []


def test_flows_may_be_added_while_it_runs():
    wire = generator(Load.fixed(60), 1)
    wire.receive(1)
    wire.add_flow(GUESTS[1], PEER, window=10, flow=77)
    assert (77, 0) in stamps(wire.receive(2))


def test_the_line_rate_holds_the_generator_back():
    assert len(generator(Load.fixed(60), 1, line_rate=0.001).receive(100)) == 1
    wire, got = generator(Load.fixed(60), 1, line_rate=1e18), 0
    while got < 100:
        got += len(wire.receive(100))


def test_its_sink_is_a_null_wires():
    load = Load.fixed(100)
    wire = generator(load, 1, check=load, check_flows=1)
    wire.transmit([load.write(0, 0), load.write(0, 2)])
    assert wire.bad == 1


def test_acknowledgements_cross_processes():
    wire = generator(Load.fixed(60), 1, window=8)
    assert len(wire.receive(100)) == 8
    child = os.fork()
    if child == 0:
        acknowledge(wire, 0, 3)
        os._exit(0 if wire.sent(0) == 8 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert len(wire.receive(100)) == 3


def test_impossible_settings():
    wire = GeneratorWire(Load.fixed(60), max_flows=1)
    with pytest.raises(ConfigError, match="window of 0 frames"):
        wire.add_flow(GUESTS[0], PEER, window=0)
    with pytest.raises(ConfigError, match="six bytes"):
        wire.add_flow(b"guest", PEER, window=1)
    wire.add_flow(GUESTS[0], PEER, window=1)
    with pytest.raises(ConfigError, match="max_flows=1"):
        wire.add_flow(GUESTS[1], PEER, window=1)
    with pytest.raises(ConfigError, match="no flow 1: this generator has 1"):
        wire.sent(1)
    with pytest.raises(ConfigError, match="limit of -1"):
        wire.limit = -1
    with pytest.raises(ConfigError, match="0 flows in a generator"):
        GeneratorWire(Load.fixed(60), max_flows=0)
