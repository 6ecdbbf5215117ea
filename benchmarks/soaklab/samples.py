"""What a process holds, again and again, and whether it grows."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cdna import Machine

WARM_UP = 0.25  # of the samples: what grows then may be a cache
# By how much each may seem to grow over the whole time: what an allocator does by itself, and less than one.
TOLERANCE = {
    "rss": 6.0,
    "pss": 6.0,
    "descriptors": 0.9,
    "mappings": 48.0,  # a context's page and rings that a process has mapped are mapped apart ever after
    "threads": 0.9,
    "used pages": 0.9,
    "pins": 0.9,
    "contexts": 0.9,
    "guests": 0.9,
}
UNITS = {"rss": "MiB", "pss": "MiB"}
ERRORS = 3.0  # standard errors that a slope must be above 0 to be one


@dataclass(frozen=True)
class Trend:
    """A straight line through the samples of one thing. growth: over their whole time."""

    name: str
    first: float
    last: float
    most: float
    growth: float
    error: float
    tolerance: float

    @property
    def grows(self) -> bool:
        return self.growth > self.tolerance and self.growth > ERRORS * self.error


def held(machine: Machine | None, pid: int | None = None) -> dict[str, float]:
    """What a process holds: of its own (None), or of another; memory in MiB."""
    place = Path("/proc") / str(pid or os.getpid())
    gc.collect()
    memory = dict(
        line.split(":", 1) for line in (place / "smaps_rollup").read_text().splitlines()[1:] if ":" in line
    )
    now = {
        "rss": int(memory["Rss"].split()[0]) / 1024,
        "pss": int(memory["Pss"].split()[0]) / 1024,
        "descriptors": float(len(os.listdir(place / "fd"))),
        "mappings": float((place / "maps").read_text().count("\n")),
        "threads": float(threading.active_count() if pid is None else len(os.listdir(place / "task"))),
    }
    if machine is not None:
        for context in list(machine.vmm.contexts):
            machine.vmm.tables.reap(context)
        owners, pins = machine.memory.owners(), machine.memory.pins()
        known = [guest.domain for guest in machine.vmm.guests.values()]
        now["used pages"] = float(len(owners) - machine.memory.free_pages)
        now["pins"] = float(pins[~np.isin(owners, known)].sum())
        now["contexts"] = float(len(machine.vmm.contexts))
        now["guests"] = float(len(machine.vmm.guests))
    return now


def trend(name: str, times: Sequence[float], values: Sequence[float]) -> Trend:
    """By least squares, without the first quarter. Fewer than 3 samples have none."""
    skip = int(len(times) * WARM_UP)
    t, y = np.asarray(times[skip:]), np.asarray(values[skip:])
    growth, error = 0.0, 0.0
    if len(t) >= 3 and t[-1] > t[0]:
        centred = t - t.mean()
        spread = float((centred**2).sum())
        slope = float((centred * (y - y.mean())).sum()) / spread
        rest = y - y.mean() - slope * centred
        span = float(t[-1] - t[0])
        growth, error = slope * span, float(np.sqrt((rest**2).sum() / (len(t) - 2) / spread)) * span
    return Trend(name, float(y[0]), float(y[-1]), float(y.max()), growth, error, TOLERANCE[name])
