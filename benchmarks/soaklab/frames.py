"""Honest frames: made, sent, received and compared, each of them counted."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Protocol

from cdna.base.units import parse_mac

ETHERTYPE = b"\x88\xb5"  # IEEE 802, for local experiments
HEADER = 14
SIZES = (60, 61, 64, 128, 590, 1514)
PATIENCE = 30.0  # seconds for a frame to arrive
DROPS = ("rx_drop_no_buffer", "rx_drop_stopped")  # of the receiver: a frame less that is missing


class Wrong(Exception):
    """An honest guest was harmed: one line."""


class Party(Protocol):
    """Who sends and receives: a native driver, or one like it."""

    def send(self, frames: list[bytes]) -> int: ...

    def recv(self) -> list[bytes]: ...


@dataclass
class Counts:
    """Of honest frames. What was sent is received or dropped. comings: guests that came and went."""

    sent: int = 0
    received: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    comings: int = 0

    @property
    def lost(self) -> int:
        """Frames that are missing without a reason."""
        return self.sent - self.received - self.dropped.total()


class Frames:
    """Makes frames of random contents, a number in each, so that no two are the same."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)
        self._made = 0

    def make(self, count: int, to: bytes, source: bytes) -> list[bytes]:
        frames = []
        for _ in range(count):
            self._made += 1
            body = self._made.to_bytes(8, "big") + self._random.randbytes(
                self._random.choice(SIZES) - HEADER - 8
            )
            frames.append(to + source + ETHERTYPE + body)
        return frames


def exchange(
    frames: Sequence[bytes],
    sender: Party,
    receiver: Party,
    counts: Counts,
    *,
    expect: Sequence[bytes] | None = None,
    drops: Callable[[], dict[str, int]] = dict,
) -> None:
    """Sends frames and waits until each has arrived, or was dropped for a reason. Wrong: one is missing.

    expect: what arrives, where that is not `frames`. drops: the receiver's counters now.
    """
    expect, before = list(frames if expect is None else expect), drops()
    waiting, received = list(frames), list[bytes]()
    counts.sent += len(waiting)
    deadline = time.monotonic() + PATIENCE
    dropped: Counter[str] = Counter()
    while len(received) + dropped.total() < len(expect):
        if waiting:
            del waiting[: sender.send(waiting)]
        took = receiver.recv()
        received += took
        if not took:
            dropped = Counter({name: count - before[name] for name, count in drops().items()})
            if time.monotonic() > deadline:
                break
            time.sleep(0.0002)
    counts.received += len(received)
    counts.dropped += dropped
    missing = len(expect) - len(received) - dropped.total()
    if missing:
        raise Wrong(f"{missing} of {len(expect)} frames are missing")
    if not dropped and received != expect:
        changed = sum(a != b for a, b in zip(received, expect, strict=True))
        raise Wrong(f"{changed} of {len(expect)} frames are not what was sent")
    if dropped and not set(received) <= set(expect):
        raise Wrong("a frame is not what was sent")


def drops_of(context: Any) -> Callable[[], dict[str, int]]:
    """The counters of a context of frames that did not get in."""
    return lambda: {name: count for name, count in context.stats().items() if name in DROPS}


def mac(driver: Any) -> bytes:
    return parse_mac(driver.context.mac)
