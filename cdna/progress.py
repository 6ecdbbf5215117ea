"""How far a measurement is: what a runner tells whoever watches it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

Row = TypeVar("Row")


@dataclass(frozen=True)
class Progress(Generic[Row]):
    """`done` of `total` slices are measured, and `now` says in a few words what comes next.

    `finished` holds the rows that the last slice completed. A runner reports between slices and never
    within one: whoever watches may take a core for a few milliseconds.
    """

    done: int
    total: int
    now: str
    finished: tuple[Row, ...] = ()


OnProgress = Callable[[Progress[Row]], None]


def ignore(progress: Progress[Row]) -> None:
    """For a runner that nobody watches."""
