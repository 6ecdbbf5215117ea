"""Campaigns of schedules: a seed makes the steps of one, which is carried out as a whole."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from random import Random
from typing import Any, ClassVar

from cdna.fuzz.campaign import Case, Journal, Tally, no_journal


class ScheduleCampaign(ABC):
    """Schedules until the time is over. options: of a campaign, those that go into its cases."""

    name: ClassVar[str]
    options: ClassVar[tuple[str, ...]] = ()

    def __init__(self, seed: int, *, journal: Journal = no_journal, **options: Any) -> None:
        self._random = Random(seed)
        self._journal = journal
        self._options = {name: options[name] for name in self.options}

    @classmethod
    @abstractmethod
    def expand(cls, case: Case) -> Case: ...

    @abstractmethod
    def play(self, case: Case, tally: Tally) -> None:
        """Carries out the steps of a case. Raises Breach."""

    def run(self, seconds: float) -> Tally:
        tally, until = Tally(), time.monotonic() + seconds
        while time.monotonic() < until:
            case = {"campaign": self.name, **self._options, "seed": self._random.getrandbits(63)}
            self._journal(case)
            self.play(self.expand(case), tally)
        return tally

    def close(self) -> None:
        return  # a schedule gives back its own; a subclass may hold what outlasts it

    @classmethod
    def replay(cls, case: Case) -> None:
        campaign = cls(case["seed"], **{name: case[name] for name in cls.options})
        try:
            campaign.play(case, Tally())
        finally:
            campaign.close()
