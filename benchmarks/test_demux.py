"""Demultiplexing: an operation is a frame."""

import pytest
from benchmarks.units import Frames, deliver_locally, look_up

pytestmark = pytest.mark.benchmark(group="demux", max_time=0.2)

N = 1024
OUTSIDE = bytes.fromhex("02ffffffff01")
GROUP = bytes.fromhex("01005e000001")

sizes = pytest.mark.parametrize("contexts", [32, 1024])


def frames(*destinations: bytes) -> Frames:
    return Frames([(to + OUTSIDE + b"\x88\xb5").ljust(64, b"\0") for to in destinations])


def buffered(make_rig, contexts):
    rig = make_rig(contexts)
    for i in range(contexts):
        rig.fill_receive_ring(i, 64, 64)
    return rig


@sizes
def test_hit(unit, make_rig, contexts):
    rig = make_rig(contexts)
    assert unit(N, look_up, rig.nic, frames(*map(rig.mac, range(contexts))), N) == N


@sizes
def test_miss(unit, make_rig, contexts):
    unknown = [bytes([0x02, 0xEE, 0, 0, i >> 8, i & 0xFF]) for i in range(contexts)]
    assert unit(N, look_up, make_rig(contexts).nic, frames(*unknown), N) == 0


@sizes
def test_deliver_unicast(unit, make_rig, contexts):
    """With the copy of 64 bytes, to each context in turn."""
    rig = buffered(make_rig, contexts)
    assert unit(N, deliver_locally, rig.nic, frames(*map(rig.mac, range(contexts))), N) == N


@sizes
def test_flood(unit, make_rig, contexts):
    """A multicast frame of 64 bytes that every context has a filter for: as many copies."""
    rig = buffered(make_rig, contexts)
    for i in range(contexts):
        rig.nic.set_option(i, "multicast", [GROUP])
    assert unit(16, deliver_locally, rig.nic, frames(GROUP), 16) == 16 * contexts


@sizes
def test_flood_unwanted(unit, make_rig, contexts):
    """A multicast frame for nobody, with all sixteen filters of every context in use."""
    rig = buffered(make_rig, contexts)
    others = [GROUP[:5] + bytes([i]) for i in range(0x10, 0x20)]
    for i in range(contexts):
        rig.nic.set_option(i, "multicast", others)
    assert unit(16, deliver_locally, rig.nic, frames(GROUP), 16) == 0
