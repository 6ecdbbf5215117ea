"""What was counted: kills, steps, how long it took until frames passed again."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any


class Leak(AssertionError):
    """Something is held that nobody has any more, or a neighbour has lost something."""


@contextlib.contextmanager
def killed_at(step: int, scenario: str) -> Iterator[None]:
    """A leak says where the party was killed."""
    try:
        yield
    except Leak as error:
        raise Leak(f"{error} (killed at step {step} of {scenario!r})") from None


@dataclass
class Tally:
    """Of one party in one scenario. Times in milliseconds, from SIGKILL to the first frame."""

    party: str
    scenario: str
    steps: int = 0  # that one life has
    kills: int = 0
    frames: int = 0  # that neighbours sent, and received
    lost: int = 0  # of those that were on their way through what died
    doubled: int = 0
    reconnects: list[float] = field(default_factory=list)

    def quantile(self, q: float) -> float:
        """Of the times; 0 if there are none."""
        times = sorted(self.reconnects)
        return times[min(len(times) - 1, int(q * len(times)))] if times else 0.0

    def report(self) -> dict[str, Any]:
        told = asdict(self)
        del told["reconnects"]
        return told | {"reconnect_median_ms": self.quantile(0.5), "reconnect_p99_ms": self.quantile(0.99)}
