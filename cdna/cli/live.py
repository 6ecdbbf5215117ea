"""A table that is drawn again and again in its place, on a terminal."""

import io
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from rich.console import Console
from rich.table import Table

from cdna.cli import output, terminal
from cdna.cli.terminal import STDOUT, Place
from cdna.report.style import Style

ERASE = "\x1b[{}A\x1b[J"  # so many lines up, and all from there on


class Live:
    """Shows tables in one place of a terminal, while this process is in its foreground; elsewhere nothing.

    transient: whether the last table goes, too. The cursor stays visible, and no thread draws: whenever this
    process is stopped or moved to the background, the terminal is in order.
    """

    def __init__(self, *, transient: bool = True) -> None:
        self._transient = transient
        self._lines = 0  # drawn, and right above the cursor
        self._handler: Any = None

    @property
    def shows(self) -> bool:
        """Whether a table would be drawn now."""
        return output.is_terminal() and terminal.place(STDOUT) is Place.FRONT

    def show(self, table: Table, style: Style) -> None:
        if not self.shows:
            self._lines = 0  # the shell has written below the table
            return
        lines = _drawn(table, style, terminal.size(STDOUT).lines - 1)
        output.show(self._erase() + "".join(f"{line}\n" for line in lines))
        self._lines = len(lines)

    def _erase(self) -> str:
        lines, self._lines = self._lines, 0
        return f"\r{ERASE.format(lines)}" if lines else ""

    def _continued(self, number: int, frame: FrameType | None) -> None:
        self._lines = 0  # a shell has written below

    def __enter__(self) -> "Live":
        if threading.current_thread() is threading.main_thread():
            self._handler = signal.signal(signal.SIGCONT, self._continued)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._transient and self._lines and self.shows:
            output.show(self._erase())
        if self._handler is not None:
            signal.signal(signal.SIGCONT, self._handler)
            self._handler = None


def _drawn(table: Table, style: Style, most: int) -> list[str]:
    """The lines of a table, none wider than the terminal, and the rest as a number."""
    out = io.StringIO()
    console = Console(
        file=out,
        width=style.width,
        force_terminal=style.colour,
        color_system="standard" if style.colour else None,
        legacy_windows=False,
        emoji=False,
        markup=False,
        highlight=False,
    )
    console.print(table)
    lines = out.getvalue().splitlines()
    if len(lines) <= most:
        return lines
    kept = max(0, most - 1)
    return [*lines[:kept], f"and {len(lines) - kept} more"]
