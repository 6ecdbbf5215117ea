"""How much of the VMM's time one guest's requests may take: a bucket of seconds that fills as time passes.

Most requests make the NIC stand still for a moment, so a guest that sends nothing else would have the others
pay for it. What counts is the processor time of the thread that serves, in which it also waits for the NIC.
Who has overdrawn is not read until the debt is gone; it belongs to the guest, not to a connection.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from cdna.base.loop import Clock
from cdna.errors import ConfigError

SHARE = 0.1  # of the time
BURST = 0.5  # seconds at once, after a pause: a virtual machine that starts has many requests
REST = 2.0  # seconds, at most: one request may take long, such as to give back much memory


class ControlTime:
    """The bucket of one guest. clock: the time of day, cost: of this thread; both in seconds."""

    def __init__(
        self,
        share: float = SHARE,
        burst: float = BURST,
        *,
        clock: Clock = time.monotonic,
        cost: Clock = time.thread_time,
    ) -> None:
        if not 0 < share <= 1:
            raise ConfigError(f"control_share {share!r}: give a share of the time, above 0 and up to 1")
        self._share = share
        self._burst = burst
        self._clock = clock
        self._cost = cost
        self._left = burst
        self._counted = clock()

    @contextlib.contextmanager
    def spent(self) -> Iterator[None]:
        """What this thread does within is at the guest's cost."""
        begun = self._cost()
        try:
            yield
        finally:
            self._fill()
            self._left = max(self._left - (self._cost() - begun), -REST * self._share)

    def due(self) -> float | None:
        """When the guest may go on, as `clock` counts; None: now."""
        self._fill()
        if self._left >= 0:
            return None
        return self._counted - self._left / self._share

    def _fill(self) -> None:
        now = self._clock()
        self._left = min(self._burst, self._left + (now - self._counted) * self._share)
        self._counted = now
