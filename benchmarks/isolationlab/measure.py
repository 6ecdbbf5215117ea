"""What an attack is measured by, in turns with a stage on which nobody attacks; and the table of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any, TypeVar

from netlab.turns import percentile, ratio, take_turns

from cdna.compare.result import Ratio
from cdna.report.style import Style
from cdna.report.summary import spread

from .attacks import Attack
from .served import ServedStage
from .stage import Stage

ALONE, BESIDE = "alone", "beside"
RATE = 1e6  # bits a second

WANTED = 0.9  # of the fair share
WANTED_RATE = 0.95  # of what it has alone, beside attackers with a rate
WANTED_ROUND = {64: 50, 1024: 100}  # microseconds, by contexts

AnyStage = TypeVar("AnyStage", Stage, ServedStage)


@dataclass(frozen=True)
class Turn:
    """What one turn came to. rate: frames of the honest guest a microsecond; the rest in microseconds."""

    rate: float
    p99: float
    worst: float | None = None


@dataclass
class Row:
    """One attack. share: of the honest guest's part. limited: of what it has alone, beside RATE.

    server: whose, in real time.
    """

    attack: str
    what: str
    attackers: int
    server: str = ""
    alone: list[Turn] = field(default_factory=list)
    beside: list[Turn] = field(default_factory=list)
    share: Ratio | None = None
    limited: Ratio | None = None
    worst_standstill: float | None = None  # microseconds

    @property
    def p99(self) -> tuple[float, float]:
        """(beside the attack, alone)"""
        return median(turn.p99 for turn in self.beside), median(turn.p99 for turn in self.alone)

    @property
    def worst(self) -> float | None:
        """The longest round of the least disturbed turn."""
        return min((turn.worst for turn in self.beside if turn.worst is not None), default=None)


def stepped(stage: Stage, seconds: float, trips: int, rate: float = 0) -> Turn:
    """seconds: of the engine's time. trips: of the pair. rate: of attackers, in that time; 0: none."""
    if rate:
        stage.limit(rate)
    sent = stage.rate(stage.honest, seconds * 1e9)
    times, rounds = stage.round_trips(trips)
    return Turn(sent, percentile(times, 99) / 1e3, max(rounds) / 1e3)


def in_real_time(stage: ServedStage, seconds: float, trips: int) -> Turn:
    return Turn(stage.rate(seconds), percentile(stage.round_trips(trips), 99) / 1e3)


def turns(
    alone: AnyStage, beside: AnyStage, rounds: int, measure: Callable[[AnyStage], Turn]
) -> tuple[list[Turn], list[Turn]]:
    figures = take_turns({ALONE: alone, BESIDE: beside}, rounds, measure)
    return figures[ALONE], figures[BESIDE]


def share(alone: Sequence[Turn], beside: Sequence[Turn], guests: int) -> Ratio:
    """What the honest guest has of its part, one of so many guests'."""
    return ratio([turn.rate * guests for turn in beside], [turn.rate for turn in alone])


def row_of(name: str, attack: Attack, attackers: int, server: str = "") -> Row:
    what = (attack.__doc__ or name).splitlines()[0]
    return Row(name, f"{server}: {what}" if server else what, attackers, server)


def table(rows: Sequence[Row], style: Style, title: str, contexts: int | None = None) -> str:
    found = style.table()
    found.add_column("attack", no_wrap=True)
    stepped = contexts is not None
    limited = any(row.limited is not None for row in rows)
    headings = ["share of\nits part"] + ["with\nrate=1M"] * limited + ["round trip\np99, us", "alone"]
    for heading in headings + ["worst\nround, us"] * stepped:
        found.add_column(heading, justify="right", no_wrap=True)
    wanted = [str(WANTED)] + [str(WANTED_RATE)] * limited + ["", ""]
    if stepped:
        wanted.append(f"{WANTED_ROUND.get(contexts, '')}")
    for row in rows:
        cells = [shown(row.share, style)] + [shown(row.limited, style)] * limited
        cells += [f"{p99:.0f}" for p99 in row.p99]
        found.add_row(row.what, *cells, *([f"{row.worst:.0f}"] if row.worst is not None else []))
    found.add_row("(wanted)", *wanted)
    return style.render("", title, found)


def shown(value: Ratio | None, style: Style) -> str:
    return "" if value is None else spread(value, style.dash)


def as_json(row: Row) -> dict[str, Any]:
    return {**asdict(row), "p99": row.p99, "worst": row.worst}
