"""The relay of the baseline. Datagram sockets stand for taps: a read is a frame, a write is a frame."""

import socket
import threading
import time
from collections.abc import Iterator

import pytest
from benchmarks.netlab.tap_relay import Relay

from cdna.errors import ConfigError

DEADLINE = 30.0


class Pair:
    """Two taps that a relay joins; `guest` and `bridge` are what is on their other sides."""

    def __init__(self, relay: Relay) -> None:
        self.guest, one = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.bridge, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.relayed = (one, other)
        for sock in self.relayed:
            sock.setblocking(False)
        for sock in (self.guest, self.bridge):
            sock.settimeout(DEADLINE)
        relay.add(one.fileno(), other.fileno())

    def close(self) -> None:
        for sock in (*self.relayed, self.guest, self.bridge):
            sock.close()


@pytest.fixture(params=[0.0, 50.0, -1.0])
def relay(request: pytest.FixtureRequest) -> Iterator[Relay]:
    """Not running yet; spins for so many microseconds."""
    relay = Relay(spin_us=request.param)
    yield relay
    relay.close()
    relay.close()


@pytest.fixture
def pairs(relay: Relay) -> Iterator[list[Pair]]:
    pairs = [Pair(relay), Pair(relay)]
    thread = threading.Thread(target=relay.run)
    thread.start()
    yield pairs
    relay.stop()
    thread.join(DEADLINE)
    assert not thread.is_alive()
    for pair in pairs:
        pair.close()


def test_frames_pass_both_ways_and_stay_in_their_pair(relay: Relay, pairs: list[Pair]) -> None:
    for i, pair in enumerate(pairs):
        pair.guest.send(b"out %d" % i)
        pair.bridge.send(b"back %d" % i)
    for i, pair in enumerate(pairs):
        assert pair.bridge.recv(100) == b"out %d" % i
        assert pair.guest.recv(100) == b"back %d" % i


def test_order_and_bytes(relay: Relay, pairs: list[Pair]) -> None:
    """More frames than in one turn, and the largest; each waits for the one before, so no queue runs over."""
    for length in (1, 12, 60, 1526, 65550, *range(200)):
        frame = bytes(length & 0xFF for _ in range(length))
        pairs[0].guest.send(frame)
        assert pairs[0].bridge.recv(70000) == frame


def test_a_burst(relay: Relay, pairs: list[Pair]) -> None:
    def send() -> None:
        for number in range(500):
            pairs[1].bridge.send(number.to_bytes(4, "big"))

    sender = threading.Thread(target=send)
    sender.start()
    received = []
    guest = pairs[1].guest
    guest.settimeout(0.01)
    until = time.monotonic() + DEADLINE
    while relay.stats()["frames"] < 500 and time.monotonic() < until:
        received += receive(guest)
    received += receive(guest)
    sender.join()
    numbers = [int.from_bytes(frame, "big") for frame in received]
    assert numbers == sorted(numbers)
    assert len(numbers) + relay.stats()["lost"] == relay.stats()["frames"] == 500


def receive(sock: socket.socket) -> list[bytes]:
    """What there is, and what comes within the socket's time."""
    frames = []
    try:
        while True:
            frames.append(sock.recv(100))
    except TimeoutError:
        return frames


def test_a_peer_that_is_gone_loses_frames(relay: Relay) -> None:
    pair = Pair(relay)
    pair.bridge.close()
    pair.guest.send(b"x")
    thread = threading.Thread(target=relay.run)
    thread.start()
    until = time.monotonic() + DEADLINE
    while relay.stats()["frames"] == 0 and time.monotonic() < until:
        pass
    relay.stop()
    thread.join(DEADLINE)
    assert relay.stats()["frames"] == relay.stats()["lost"] == 1
    pair.close()


def test_as_many_as_it_can_join() -> None:
    relay = Relay()
    pairs = [Pair(relay) for _ in range(128)]
    with pytest.raises(ConfigError, match="give 128 at most"):
        relay.add(0, 1)
    relay.close()
    for pair in pairs:
        pair.close()
