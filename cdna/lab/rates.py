"""What the contexts did: totals since each guest came, and rates since the last look."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

DROPS = "_drop_"  # in the name of each counter of frames that were dropped


@dataclass(frozen=True)
class Traffic:
    """Totals of one context, and rates. `tx` is what the guest sends. Bits are of frames without the FCS.

    dropped: `drops` by reason, the counters that are not 0.
    """

    guest: str
    tx_frames: int = 0
    tx_bytes: int = 0
    rx_frames: int = 0
    rx_bytes: int = 0
    drops: int = 0
    faults: int = 0
    interrupts: int = 0
    tx_frames_s: float = 0.0
    rx_frames_s: float = 0.0
    tx_bits_s: float = 0.0
    rx_bits_s: float = 0.0
    drops_s: float = 0.0
    interrupts_s: float = 0.0
    dropped: Mapping[str, int] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


TOTALS = ("tx_frames", "tx_bytes", "rx_frames", "rx_bytes", "drops", "faults", "interrupts")


def dropped(counters: Mapping[str, int]) -> dict[str, int]:
    """Frames dropped, by reason; none where there are none."""
    return {name: value for name, value in counters.items() if DROPS in name and value}


class Rates:
    """Turns counters into rates. `sample` is called with the counters of each guest and the time."""

    def __init__(self) -> None:
        self._before: dict[str, tuple[float, Traffic]] = {}

    def sample(self, counters: Mapping[str, Mapping[str, int]], now: float) -> dict[str, Traffic]:
        """Traffic by guest. now: seconds of a clock that goes forwards."""
        traffic = {guest: self._of(guest, counts, now) for guest, counts in counters.items()}
        self._before = {guest: (now, t) for guest, t in traffic.items()}
        return traffic

    def _of(self, guest: str, counts: Mapping[str, int], now: float) -> Traffic:
        reasons = dropped(counts)
        total = {name: sum(reasons.values()) if name == "drops" else counts[name] for name in TOTALS}
        if guest not in self._before:
            return Traffic(guest, **total, dropped=reasons)
        then, before = self._before[guest]
        seconds = max(now - then, 1e-6)

        def rate(name: str) -> float:
            earlier: int = getattr(before, name)
            return max(0, total[name] - earlier) / seconds

        return Traffic(
            guest,
            **total,
            tx_frames_s=rate("tx_frames"),
            rx_frames_s=rate("rx_frames"),
            tx_bits_s=8 * rate("tx_bytes"),
            rx_bits_s=8 * rate("rx_bytes"),
            drops_s=rate("drops"),
            interrupts_s=rate("interrupts"),
            dropped=reasons,
        )
