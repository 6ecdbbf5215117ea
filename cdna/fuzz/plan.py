"""What a run of `cdna fuzz` does: its settings, and the slices that each worker takes in turn."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from itertools import count
from typing import Any

from cdna.base.units import MAX_SECONDS
from cdna.errors import BadSetting
from cdna.fuzz.campaigns import ATTACK, CAMPAIGNS, DEFAULT

MAX_JOBS = 1024
SLICE = 1.0  # seconds, at most


@dataclass(frozen=True)
class FuzzPlan:
    """The settings of a run. Raises `BadSetting` for one that cannot be.

    descriptors: after how many to end before the time is over; 0: never. jobs: worker processes.
    attack: "file.py:Class" of the user's own; then the only campaign.
    """

    seconds: float = 60.0
    seed: int = 1
    descriptors: int = 0
    campaigns: tuple[str, ...] = DEFAULT
    jobs: int = 1
    attack: str | None = None

    def __post_init__(self) -> None:
        if not 0 < self.seconds <= MAX_SECONDS:
            raise BadSetting("seconds", self.seconds, f"give a time above 0, at most {MAX_SECONDS:g}")
        if not 0 <= self.seed < 1 << 63:
            raise BadSetting("seed", self.seed, "give a whole number from 0 to 2^63 - 1")
        if self.descriptors < 0:
            raise BadSetting("descriptors", self.descriptors, "give a number above 0, e.g. 1e9")
        if not 1 <= self.jobs <= MAX_JOBS:
            raise BadSetting("jobs", self.jobs, f"give a number of processes from 1 to {MAX_JOBS}")
        if not self.campaigns:
            raise BadSetting("campaign", "", f"give some of {', '.join(CAMPAIGNS)}")
        for name in self.campaigns:
            if name not in CAMPAIGNS and name != ATTACK:
                advice = f"there is no such campaign; give some of {', '.join(CAMPAIGNS)}"
                raise BadSetting("campaign", name, advice)
        if len(set(self.campaigns)) != len(self.campaigns):
            raise BadSetting("campaign", ",".join(self.campaigns), "give each of them once")

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> FuzzPlan:
        values: dict[str, Any] = json.loads(text)
        return cls(
            **{f.name: values[f.name] for f in fields(cls)} | {"campaigns": tuple(values["campaigns"])}
        )

    @property
    def slice_seconds(self) -> float:
        """So short that each worker comes to each campaign in the first half of the time."""
        return min(SLICE, max(0.05, self.seconds / (2 * len(self._turns()))))

    def slices(self, worker: int) -> Iterator[tuple[str, int]]:
        """(campaign, seed) of a worker's slices, without end. Workers begin at different campaigns."""
        turns = self._turns()
        for n in count():
            yield (
                turns[(worker * max(1, len(turns) // self.jobs) + n) % len(turns)],
                seed_of(self.seed, worker, n),
            )

    def _turns(self) -> list[str]:
        """One round: each campaign as often as its weight says, spread evenly."""
        weights = {name: CAMPAIGNS[name].weight if name in CAMPAIGNS else 1 for name in self.campaigns}
        unit = math.gcd(*weights.values())
        at = [
            ((i + 0.5) / (weight // unit), name)
            for name, weight in weights.items()
            for i in range(weight // unit)
        ]
        return [name for _, name in sorted(at)]


def seed_of(seed: int, *numbers: int) -> int:
    """A seed of its own for each row of numbers."""
    text = ",".join(map(str, (seed, *numbers))).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1
