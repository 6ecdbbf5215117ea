"""The campaign "race": attackers with a second thread that rewrites what the engine is reading.

An episode is one of the campaigns "native" and "virtio", in this thread, while a mutator
(ext/cdna/fuzz/mutator.pyx) rewrites rings, descriptors, lengths, indices, tables and headers of its
attackers; or it is a duel about one word (duels.py). Two threads race, so a seed decides what is tried and
not what comes of it: `replay` carries a case out again, many times if need be.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from cdna.errors import ResourceError
from cdna.fuzz.campaign import Breach, Case, Tally, no_journal
from cdna.fuzz.duels import DUELS
from cdna.fuzz.episodes import EPISODE_STRIDE, SEED_MASK, as_array, found, raise_found, silent, tally
from cdna.fuzz.mutator import Mutator, aim_native, aim_virtio
from cdna.fuzz.native import NativeEpisode
from cdna.fuzz.native_attacks import NativeOp
from cdna.fuzz.virtio import VirtioEpisode
from cdna.fuzz.virtio_attacks import VirtioOp

EPISODE = 2.0  # seconds
PART = 1 << 10  # steps between two looks at the clock
REPLAY = 10.0  # seconds after which a case is taken for mended

# What comes and goes with another memory table, or another device, takes the mutator's targets away.
# Nor is there a sure answer to an announcement that somebody else writes over.
_UNSTEADY = {
    "virtio": ((VirtioOp.VIRTIO_MEMORY, VirtioOp.VIRTIO_RECONNECT), VirtioOp.VIRTIO_POST),
    "native": (
        (NativeOp.NATIVE_MAILBOX, NativeOp.NATIVE_STRAY, NativeOp.NATIVE_REASSIGN),
        NativeOp.NATIVE_POST,
    ),
}
ATTACKS: dict[str, tuple[Callable[[int], Any], Callable[[Mutator, Any], None]]] = {
    "virtio": (VirtioEpisode, aim_virtio),
    "native": (NativeEpisode, aim_native),
}
KINDS = (*ATTACKS, *DUELS)


def _steps(kind: str, seed: int, n: int) -> Any:
    steps = ATTACKS[kind][0].generate(seed, n)  # type: ignore[attr-defined]
    unsteady, instead = _UNSTEADY[kind]
    for op in unsteady:
        steps["op"][steps["op"] == op] = instead
    return steps


class RaceCampaign:
    name = "race"

    def __init__(
        self, seed: int, *, journal: Callable[[Case], None] = no_journal, kinds: Sequence[str] = KINDS
    ) -> None:
        self.seed = seed & SEED_MASK
        self.kinds = tuple(kinds)
        self.journal = journal
        self.episodes = 0
        self.writes = 0  # of mutators

    def run(self, seconds: float) -> Tally:
        deadline = time.monotonic() + seconds
        total = Tally()
        with silent():
            while not self.episodes or time.monotonic() < deadline:
                kind = self.kinds[self.episodes % len(self.kinds)]
                seed = (self.seed + self.episodes * EPISODE_STRIDE) & SEED_MASK
                self.episodes += 1
                end = min(deadline, time.monotonic() + max(0.1, min(EPISODE, seconds / len(self.kinds))))
                self._episode(kind, seed, end, total)
        return total

    def _episode(self, kind: str, seed: int, deadline: float, total: Tally) -> None:
        case = {"campaign": self.name, "seed": seed, "kind": kind, "steps": []}
        self.journal(case)
        if kind in DUELS:
            try:
                text, tries = DUELS[kind](deadline)
            except ResourceError as error:  # something is still held at the end
                raise Breach("pin", f"{kind}: {error}", case) from None
            total.add(Tally(attempts=tries, descriptors=tries))
            if text is not None:
                raise Breach("outside", f"{kind}: {text}", case)
            return
        make, aim = ATTACKS[kind]
        episode = make(seed)
        mutator = Mutator(seed)
        try:
            aim(mutator, episode.attacks)
            with mutator:
                part = 0
                while not found(episode.attacks):
                    episode.attacks.execute(_steps(kind, seed + part, PART))
                    part += 1
                    if time.monotonic() >= deadline:
                        break
            if not found(episode.attacks):
                episode.attacks.finish()
            counts = tally(episode.attacks.counts())
            counts.attempts += mutator.writes
            total.add(counts)
            self.writes += mutator.writes
            try:
                raise_found(episode.attacks, self.name, seed, as_array([]))
            except Breach as breach:
                raise Breach(breach.kind, breach.text, case) from None
        finally:
            mutator.stop()
            episode.close()

    def close(self) -> None:
        """An episode gives everything back itself."""

    @classmethod
    def replay(cls, case: Case) -> None:
        """The same attackers, steps and targets, until it shows or `REPLAY` seconds are over."""
        campaign = cls(case["seed"])
        deadline = time.monotonic() + REPLAY
        with silent():
            while time.monotonic() < deadline:
                campaign._episode(
                    case["kind"], case["seed"], min(deadline, time.monotonic() + EPISODE), Tally()
                )

    @classmethod
    def expand(cls, case: Case) -> Case:
        return case


__all__ = ["KINDS", "RaceCampaign"]
