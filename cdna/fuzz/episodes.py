"""Campaigns of steps that a seed makes, an episode at a time: what "native" and "virtio" share."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Protocol

import numpy as np

from cdna.abi import Fault, Refusal
from cdna.errors import CdnaError
from cdna.fuzz.arena import Finding
from cdna.fuzz.campaign import Breach, Case, Tally, no_journal
from cdna.fuzz.native_attacks import ACTION_DTYPE

STEPS = 1 << 17  # of an episode
PART = 1 << 13  # between two looks at the clock
SEED_MASK = (1 << 64) - 1
EPISODE_STRIDE = 0x9E3779B97F4A7C15

# kind of the breach, and what it says of where, wanted and found
TEXTS: dict[Finding, tuple[str, str]] = {
    Finding.FOUND_WRITTEN: (
        "outside",
        "page {0} of foreign memory was written to: {2} bytes, from offset {1}",
    ),
    Finding.FOUND_CARRIED: ("outside", "a frame of {2} bytes, source {0:#014x}, carries foreign bytes"),
    Finding.FOUND_LOST: (
        "lost",
        "a neighbour's flow {0}: frame {1} was wanted; frame error or last number {2}",
    ),
    Finding.FOUND_SPOOFED: ("model", "a frame to {0:#014x} names {2:#014x} as its source"),
    Finding.FOUND_PINS: ("pin", "page {0}: {1} is outstanding or its domain, {2} is in the frame table"),
    Finding.FOUND_OWNER: ("model", "page {0} is domain {1}'s, the frame table says {2}"),
    Finding.FOUND_SEQUENCE: ("model", "context {0} used a descriptor of number {2} where the VMM wrote {1}"),
    Finding.FOUND_GIVEN: ("pin", "page {0} was given away by context {2} with DMA outstanding"),
    Finding.FOUND_LEFT: ("pin", "page {0} still has {2} pins after its context was revoked"),
    Finding.FOUND_AREA: ("outside", "foreign area {0} was written to: {2} bytes, from offset {1}"),
    Finding.FOUND_STATE: ("model", "context or neighbour {0}: {2} where {1} was asked"),
}


class Attacks(Protocol):
    """What an episode runs."""

    def execute(self, steps: Any) -> int: ...
    def finish(self) -> bool: ...
    def finding(self) -> tuple[Finding, int, int, int]: ...
    def counts(self) -> dict[str, Any]: ...


class Episode(Protocol):
    """A machine of its own for one row of steps."""

    @property
    def attacks(self) -> Attacks: ...

    @staticmethod
    def generate(seed: int, n: int, /) -> np.ndarray: ...

    def close(self) -> None: ...


def tally(counts: dict[str, Any]) -> Tally:
    """An arena's counts, faults and refusals by name."""
    return Tally(
        attempts=counts["attempts"],
        descriptors=counts["descriptors"],
        frames=counts["frames"],
        outside=counts["outside"],
        lost=counts["lost"],
        faults={Fault(number).name: n for number, n in counts["faults"].items()},
        refusals={Refusal(number).name: n for number, n in counts["refusals"].items()},
    )


def as_array(steps: Any) -> np.ndarray:
    """Rows of numbers as steps."""
    return np.array([tuple(step) for step in steps], ACTION_DTYPE)


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Without the VMM's log: here a fault is no news."""
    log = logging.getLogger("cdna.vmm")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(level)


class EpisodeCampaign:
    """Episodes until the time is over. options: journal; steps, of an episode."""

    name: ClassVar[str]
    episode: ClassVar[type[Any]]  # an Episode, made from its seed

    def __init__(
        self, seed: int, *, journal: Callable[[Case], None] = no_journal, steps: int = STEPS
    ) -> None:
        self.seed = seed & SEED_MASK
        self.steps = steps
        self.journal = journal
        self.episodes = 0

    def run(self, seconds: float) -> Tally:
        deadline = time.monotonic() + seconds
        total = Tally()
        with silent():
            while not self.episodes or time.monotonic() < deadline:
                self._episode((self.seed + self.episodes * EPISODE_STRIDE) & SEED_MASK, deadline, total)
                self.episodes += 1
                if time.monotonic() >= deadline:
                    break
        return total

    def _episode(self, seed: int, deadline: float, total: Tally) -> None:
        self.journal({"campaign": self.name, "seed": seed, "count": self.steps})
        episode: Episode = self.episode(seed)
        try:
            steps = episode.generate(seed, self.steps)
            done = 0
            while done < len(steps) and not found(episode.attacks):
                done += episode.attacks.execute(steps[done : done + PART])
                if time.monotonic() >= deadline:
                    break
            if not found(episode.attacks):
                episode.attacks.finish()
            total.add(tally(episode.attacks.counts()))
            raise_found(episode.attacks, self.name, seed, steps[:done])
        finally:
            close_after(episode)

    def close(self) -> None:
        """An episode gives everything back itself."""

    @classmethod
    def replay(cls, case: Case) -> None:
        case = cls.expand(case)
        steps = as_array(case["steps"])
        with silent():
            episode = cls.episode(case["seed"])
            try:
                done = episode.attacks.execute(steps)
                if not found(episode.attacks):
                    episode.attacks.finish()
                raise_found(episode.attacks, cls.name, case["seed"], steps[:done])
            finally:
                close_after(episode)

    @classmethod
    def expand(cls, case: Case) -> Case:
        if "steps" in case:
            return case
        return {**case, "steps": cls.episode.generate(case["seed"], case["count"]).tolist()}


def found(attacks: Attacks) -> bool:
    return attacks.finding()[0] != Finding.FOUND_NOTHING


def close_after(episode: Episode) -> None:
    """Closes it; one in which something was found may have a frame table with which that is not possible."""
    if not found(episode.attacks):
        episode.close()
        return
    with contextlib.suppress(CdnaError):
        episode.close()


def raise_found(attacks: Attacks, name: str, seed: int, steps: np.ndarray) -> None:
    """The first finding as a Breach."""
    finding, *where = attacks.finding()
    if finding == Finding.FOUND_NOTHING:
        return
    kind, text = TEXTS[finding]
    case = {"campaign": name, "seed": seed, "steps": [list(map(int, step)) for step in steps]}
    raise Breach(kind, text.format(*where), case)


__all__ = ["ACTION_DTYPE", "EpisodeCampaign", "Episode", "as_array", "silent", "tally"]
