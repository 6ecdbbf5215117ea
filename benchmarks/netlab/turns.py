"""Contenders in turns, and ratios of what they reached."""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from statistics import median
from typing import TypeVar

from cdna.compare.disturbance import undisturbed, watched
from cdna.compare.result import Ratio, ratio_over

Contender = TypeVar("Contender")
Result = TypeVar("Result")


@dataclass
class Figure:
    """What one contender reached, round by round."""

    contender: str
    values: list[float]

    @property
    def median(self) -> float:
        return median(self.values)


@dataclass
class Load:
    """The result of one load: a figure of each contender, ratios to some of them, a sentence.

    load: what --only calls it. ratios: of the first contender, by the other one.
    """

    load: str
    name: str
    unit: str
    figures: list[Figure]
    ratios: dict[str, Ratio] = field(default_factory=dict)
    said: str = ""


Loads = Generator[Load, None, None]


def figures(found: Mapping[str, list[float]]) -> list[Figure]:
    """A figure of each contender from what `take_turns` returns."""
    return [Figure(contender, values) for contender, values in found.items()]


def take_turns(
    contenders: Mapping[str, Contender],
    rounds: int,
    measure: Callable[[Contender], Result],
    tell: Callable[[str, Result], object] = lambda turn, result: None,
) -> dict[str, list[Result]]:
    """A figure of each contender in each round. The first one changes from round to round.

    A figure is taken again while other programs have the cores, and what is left of that is told.
    tell: called with each figure, and whose turn in which round it was.
    """
    found: dict[str, list[Result]] = {name: [] for name in contenders}
    names = list(contenders)
    again: Counter[str] = Counter()
    for turn in range(rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            take = partial(watched, partial(measure, contenders[name]))
            result, taken, repeated = undisturbed(take, again[name])
            again[name] += repeated
            found[name].append(result)
            tell(f"round {turn + 1} of {rounds}: {name}", result)
            if taken.disturbed:
                print(
                    f"disturbed machine: others had {taken.share:.0%} of a core beside {name}",
                    file=sys.stderr,
                )
    return found


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
    """Ours over theirs, round by round: median and quartiles."""
    pairs = [one / other for one, other in zip(ours, theirs, strict=True) if other > 0]
    if not pairs:
        return Ratio(float("inf"), float("inf"), float("inf"), 0)
    return ratio_over(pairs)


def percentile(values: Iterable[float], percent: float) -> float:
    """The smallest value that so many per cent of all do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]
