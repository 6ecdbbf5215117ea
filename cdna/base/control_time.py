"""How much of a server's time one guest's requests may take: a bucket of seconds that fills as time passes.

Most requests make the NIC stand still for a moment, so a guest that sends nothing else would have the others
pay for it. What counts is the processor time of the thread that serves, in which it also waits for the NIC.
Who has overdrawn is not read until the debt is gone; it belongs to the guest, not to a connection.

The guests of one server divide one share of the time: a bucket that has been drawn from fills at an equal
part of it. So ten guests that ask without end take no more than one. A guest that asks seldom has a full
bucket, and spends of it at once.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from cdna.errors import ConfigError

if TYPE_CHECKING:
    from cdna.base.loop import Clock

SHARE = 0.1  # of the time
BURST = 0.5  # seconds at once, after a pause: a virtual machine that starts has many requests
NO_DEBT = 1e-9  # seconds, of rounding
REST = 2.0  # seconds, at most: one request may take long, such as to give back much memory


class SharedTime:
    """A share of the time, divided by those that are in need of it: the buckets that are not full.

    clock: the time of day, cost: of this thread; both in seconds.
    """

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
        self.burst = burst
        self.clock = clock
        self.cost = cost
        self.given = 0.0  # seconds that each bucket in need has got since the beginning
        self._share = share
        self._needy: set[ControlTime] = set()
        self._next_full = math.inf  # when the next one will be, as `given` counts
        self._counted = clock()

    @property
    def part(self) -> float:
        """The part of the time that each bucket in need gets now."""
        return self._share / max(1, len(self._needy))

    def bucket(self) -> ControlTime:
        """A full bucket for another guest."""
        return ControlTime(self)

    def pass_on(self) -> float:
        """Gives the buckets in need what the time since then has brought. Returns the time of day."""
        now = self.clock()
        self.given += (now - self._counted) * self.part
        self._counted = now
        if self.given >= self._next_full:
            self._needy = {bucket for bucket in self._needy if bucket.full_at > self.given}
            self._next_full = min((bucket.full_at for bucket in self._needy), default=math.inf)
        return now

    def need(self, bucket: ControlTime) -> None:
        """Counts a bucket that was drawn from."""
        self._needy.add(bucket)
        self._next_full = min(self._next_full, bucket.full_at)


class ControlTime:
    """The bucket of one guest. `SharedTime.bucket` makes it."""

    def __init__(self, shared: SharedTime) -> None:
        self._shared = shared
        self.full_at = shared.given  # as `SharedTime.given` counts

    @contextlib.contextmanager
    def spent(self) -> Iterator[None]:
        """Charges the guest with the processor time that this thread takes in the block."""
        begun = self._shared.cost()
        try:
            yield
        finally:
            self.charge(self._shared.cost() - begun)

    def charge(self, seconds: float) -> None:
        """Takes out what was spent for the guest."""
        self._shared.pass_on()
        self.full_at = max(self.full_at, self._shared.given) + seconds
        self._shared.need(self)

    def due(self) -> float | None:
        """When the guest may go on, as `clock` counts; None: now. Others in need may delay it, up to REST."""
        now, part = self._shared.pass_on(), self._shared.part
        debt = self.full_at - self._shared.given - self._shared.burst
        if debt <= NO_DEBT:
            return None
        if debt > REST * part:
            self.full_at -= debt - REST * part
            self._shared.need(self)
        return now + min(REST, debt / part)


class Rest:
    """A time in which somebody's requests are not read, as they have overdrawn a `ControlTime`.

    until: when it may be over, as `clock` counts; None: there is none, the requests are read.
    """

    def __init__(self) -> None:
        self.until: float | None = None
        self._since = 0.0
        self._time: ControlTime | None = None

    def begin(self, spending: ControlTime, now: float) -> float | None:
        """Begins if `spending` is overdrawn. Returns `until`; None: it is not, or this rest has begun."""
        if self.until is not None:
            return None
        self.until, self._since, self._time = spending.due(), now, spending
        return self.until

    def end(self, now: float) -> float | None:
        """Ends when the debt is gone. Returns how long it took, by which deadlines move; None: it goes on."""
        if self._time is None or self.until is None or now < self.until:
            return None
        self.until = self._time.due()  # others in need may have come meanwhile
        return now - self._since if self.until is None else None
