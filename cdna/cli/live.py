"""A table that is drawn again and again in its place, on a terminal."""

from types import TracebackType

from rich.console import Console
from rich.live import Live as RichLive
from rich.table import Table

from cdna.report.style import Style


class Live:
    """Shows tables in one place of a terminal; elsewhere nothing. `shows`: whether there is one.

    transient: whether the last table goes, too.
    """

    def __init__(self, style: Style, *, transient: bool = True) -> None:
        self.shows = style.width is not None
        self._live: RichLive | None = None
        if self.shows:
            console = Console(emoji=False, markup=False)
            self._live = RichLive(console=console, auto_refresh=False, transient=transient)

    def show(self, table: Table) -> None:
        if self._live is not None:
            self._live.update(table, refresh=True)

    def __enter__(self) -> "Live":
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
