"""A failing case made as short as it goes: ddmin (Zeller and Hildebrandt, TSE 2002) over its steps."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from cdna.fuzz.campaign import Case
from cdna.fuzz.trial import Finding

BUDGET = 60.0  # seconds
TRIES = 3  # of a case that races, until it counts as gone

Try = Callable[[Case], Finding | None]


def ddmin(steps: list[Any], fails: Callable[[list[Any]], bool]) -> list[Any]:
    """A part of the steps that still fails, of which none can be left out if `fails` keeps its mind."""
    parts = 2
    while len(steps) >= 2:
        size = -(-len(steps) // parts)
        chunks = [steps[at : at + size] for at in range(0, len(steps), size)]
        for i in range(len(chunks)):
            without = [step for j, chunk in enumerate(chunks) if j != i for step in chunk]
            if fails(without):
                steps, parts = without, max(parts - 1, 2)
                break
        else:
            if size == 1:
                break
            parts = min(len(steps), 2 * parts)
    return steps


def shrink(
    case: Case, kind: str, attempt: Try, budget: float = BUDGET, watch: Callable[[int], None] = lambda _: None
) -> tuple[Case, Finding | None]:
    """The smallest case found within `budget` seconds, and what it shows; None: it did not fail again.

    watch: called with the number of steps that are left.
    """
    until = time.monotonic() + budget
    found: dict[int, Finding] = {}

    def fails(steps: list[Any]) -> bool:
        if time.monotonic() > until:
            return False
        finding = attempt({**case, "steps": steps})
        if finding is None or finding[0] != kind:
            return False
        found[len(steps)] = finding
        watch(len(steps))
        return True

    steps = case["steps"]
    if not any(fails(steps) for _ in range(TRIES)):
        return case, None
    # Often the last one does it alone; of attempts that hang there is time for a few.
    smallest = steps[-1:] if len(steps) > 1 and fails(steps[-1:]) else ddmin(steps, fails)
    return {**case, "steps": smallest}, found.get(len(smallest), found[len(steps)])
