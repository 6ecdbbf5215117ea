"""How a text table looks: on a terminal, or where it is kept."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from rich import box
from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.measure import Measurement
from rich.table import Table

from cdna.base.shown import printable

PAGE = 100  # columns of running text where there is no terminal

# A line under the heading and nothing else, which can be read anywhere and cut with awk.
_ASCII = box.Box(
    "    \n    \n -- \n    \n    \n    \n    \n    \n",
    ascii=True,
)


class _Table(Table):
    """A table whose cells say what a guest or a client has put into them, and do nothing."""

    def add_row(self, *cells: RenderableType | None, **options: Any) -> None:
        super().add_row(*(printable(cell) if isinstance(cell, str) else cell for cell in cells), **options)


class Column(NamedTuple):
    """A column of a table. On a narrow terminal, those of the highest `rank` are left out; never rank 0."""

    heading: str
    cells: Sequence[str]
    rank: int = 0
    text: bool = False  # and no numbers

    @property
    def width(self) -> int:
        return max(map(cell_len, (self.heading, *map(printable, self.cells))))


@dataclass(frozen=True)
class Style:
    """`width` of the terminal in columns, if it is one; without `colour` and `unicode` plain ASCII."""

    width: int | None = None
    colour: bool = False
    unicode: bool = False

    @property
    def box(self) -> box.Box:
        return box.SIMPLE_HEAD if self.unicode else _ASCII

    @property
    def dash(self) -> str:
        return "\N{EN DASH}" if self.unicode else "-"

    def table(self) -> Table:
        """An empty table in this style."""
        return _Table(box=self.box, padding=0, pad_edge=False, show_edge=False, header_style="")

    def columns(self, columns: Sequence[Column]) -> Table:
        """A table of those of the columns that the terminal has room for, the important ones first."""
        kept = list(columns)
        while self.width is not None and sum(column.width + 1 for column in kept) - 1 > self.width:
            rank = max(column.rank for column in kept)
            if rank == 0:
                break
            kept = [column for column in kept if column.rank != rank]
        table = self.table()
        for column in kept:
            table.add_column(column.heading, justify="left" if column.text else "right", no_wrap=True)
        for row in zip(*(column.cells for column in kept), strict=True):
            table.add_row(*row)
        return table

    def fits(self, table: Table) -> bool:
        """Whether a table is no wider than the terminal."""
        return self.width is None or _width(table) <= self.width

    def render(self, *parts: Table | str) -> str:
        """The parts as text, a line end after each. A table is never cut: it may be too wide."""
        return "".join(self._render(part) for part in parts)

    def _render(self, part: Table | str) -> str:
        out = io.StringIO()
        width = self.width or PAGE
        console = Console(
            file=out,
            width=max(width, _width(part)) if isinstance(part, Table) else width,
            force_terminal=self.colour,
            color_system="standard" if self.colour else None,
            legacy_windows=False,
            emoji=False,  # 02:cd:0a is no compact disc
            markup=False,
            highlight=False,
        )
        console.print(part)
        return "".join(line.rstrip() + "\n" for line in out.getvalue().splitlines())


def _width(table: Table) -> int:
    wide = Console(file=io.StringIO(), width=1000, emoji=False, markup=False)
    return Measurement.get(wide, wide.options, table).maximum
