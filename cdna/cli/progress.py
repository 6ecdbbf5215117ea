"""Shows how far a run is, on standard error: a bar on a terminal, otherwise a line a finished row."""

from collections.abc import Callable
from types import TracebackType
from typing import Generic

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bar

from cdna.cli.terminal import STDERR, Place, place
from cdna.progress import Progress, Row


class Display(Generic[Row]):
    """Called with each `Progress`; keeps the rows that were finished, in `finished`.

    The bar is drawn when it is called and at no other time: a thread that redraws it would take cycles
    from the cores that are being measured.
    """

    def __init__(self, program: str, describe: Callable[[Row], str], console: Console | None = None) -> None:
        self.finished: list[Row] = []
        self._program = program
        self._describe = describe
        self._console = console or Console(stderr=True)
        self._bar: Bar | None = None

    def __enter__(self) -> "Display[Row]":
        if self._console.is_terminal and place(STDERR) is not Place.BACKGROUND:
            self._bar = Bar(
                TextColumn("{task.description:<34}", markup=False),
                BarColumn(bar_width=None),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                console=self._console,
                auto_refresh=False,
                transient=True,
            )
            self._bar.start()
            self._task = self._bar.add_task("getting ready", total=None)
            self._bar.refresh()
        return self

    def __call__(self, progress: Progress[Row]) -> None:
        self.finished += progress.finished
        if self._bar is not None:
            self._bar.update(
                self._task,
                description=progress.now,
                completed=progress.done,
                total=progress.total,
                refresh=True,
            )
            self._bar.refresh()
            return
        percent = 100 * progress.done // max(progress.total, 1)
        for row in progress.finished:
            line = f"{self._program}: {percent:3d}%  {self._describe(row)}"
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
