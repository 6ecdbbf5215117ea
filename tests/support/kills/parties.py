"""All parties and scenarios, in one call."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from cdna import checks
from tests.support.kills import guests, servers, vmms
from tests.support.kills.steps import spread
from tests.support.kills.tally import Tally

Kills = Callable[[int], list[int]]  # at which steps, of so many
Progress = Callable[[Tally], None]


class Scenario(NamedTuple):
    """A life to be ended at its steps. Two that differ in nothing but the rings take every other one."""

    run: Callable[[Kills, Progress], Tally]
    first: int = 0
    every: int = 1

    def steps(self, steps: int, kills: int | None) -> list[int]:
        """At which of so many steps to kill. kills: how many times; None: once at each step of its share."""
        if kills is None:
            return list(range(1, steps + 1))[self.first :: self.every]
        return spread(steps, kills)


def scenarios(party: str, points: bool = checks.is_test_build) -> Iterator[Scenario]:
    """What is to be run of a party, one after the other: at lines, or at the points of compiled code."""
    if party == "frontend" and points:
        return  # it is all Python
    with tempfile.TemporaryDirectory(prefix="cdna-kills-") as made:
        folder = Path(made)
        if party in guests.SCENARIOS:
            with guests.Host(folder) as host:
                for scenario, args in guests.SCENARIOS[party]:
                    yield Scenario(partial(guests.run, host, party, scenario, args, points))
        elif party == "server":
            if not points:
                yield Scenario(partial(servers.run, folder, "starting", True, False))
            for number, rings in enumerate(("split", "packed")):
                run = partial(servers.run, folder, rings, False, points)
                yield Scenario(run) if points else Scenario(run, number, 2)
        else:
            yield Scenario(partial(vmms.run, folder, points))


PARTIES = ("guest", "frontend", "server", "vmm")
