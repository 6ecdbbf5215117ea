"""How a text table looks: on a terminal, or where it is kept."""

import io
from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

PAGE = 100  # columns of running text where there is no terminal

# A line under the heading and nothing else, which can be read anywhere and cut with awk.
_ASCII = box.Box(
    "    \n    \n -- \n    \n    \n    \n    \n    \n",
    ascii=True,
)


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
        return Table(box=self.box, padding=0, pad_edge=False, show_edge=False, header_style="")

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
