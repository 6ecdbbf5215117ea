"""What `cdna up` and `cdna serve` share: options, the table of rates of a lab that runs, its totals."""

import json as json_format
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.cells import cell_len

from cdna.base import readers
from cdna.base.shown import printable
from cdna.base.stopping import stop_signals
from cdna.base.units import MAX_SECONDS
from cdna.cli import output
from cdna.cli.live import Live
from cdna.errors import ConfigError
from cdna.lab import life, values
from cdna.lab.plan import NETS, LabPlan
from cdna.lab.rates import Traffic
from cdna.report.lab_table import drops_text, rates_table, totals_table

if TYPE_CHECKING:
    from cdna.lab.lab import Lab
    from cdna.sandbox import Needs

_Text = str | None
Socket = Annotated[_Text, typer.Option(metavar="PATH", help="The lab's control socket.")]
Wire = Annotated[
    _Text, typer.Option(metavar="WIRE", help="Where the NIC is plugged in, e.g. tap:cdna0. Default: nowhere.")
]
Config = Annotated[
    _Text, typer.Option(metavar="FILE", help="A TOML file that says all that the other options do.")
]
Net = Annotated[
    _Text, typer.Option(metavar="NET,...", help=f"Where addresses are from: {NETS[0]},{NETS[1]}.")
]
For = Annotated[
    _Text, typer.Option("--for", metavar="SECONDS", help="End by itself. Default: when interrupted.")
]
Cpu = Annotated[_Text, typer.Option(metavar="N", help="The core that the NIC stays on.")]
Metrics = Annotated[_Text, typer.Option(metavar="HOST:PORT|PATH", help="Serve metrics for Prometheus there.")]
Identity = Annotated[
    _Text,
    typer.Option(metavar="TEXT", help="Tells this lab's MAC addresses from others'. Default: the socket."),
]
JsonFile = Annotated[_Text, typer.Option(metavar="FILE", help="Write the final totals as JSON.")]

Say = Callable[["Lab", str], None]
# What a sandbox leaves to a lab, from where its totals go, its plan, and where its control socket is.
Confine = Callable[[Path | None, LabPlan, str], "Needs"]


def run(
    plan: LabPlan,
    say: Say,
    *,
    socket: _Text,
    seconds: _Text,
    json: _Text,
    confine: Confine | None = None,
) -> None:
    """Runs a lab until it is told to end, then shows its totals (`cdna.lab.life`). The options are texts."""
    lasts = _seconds(seconds)
    json_to = None if json is None else output.file_to_write("--json", json)
    cell_len(output.style().dash)  # rich imports its table of widths with the first text that is not ASCII
    needs = None if confine is None else partial(confine, json_to)
    with stop_signals() as stop:
        result = life.run(plan, stop, say, _watching, socket=socket, seconds=lasts, confine=needs)
        with stop.soon():
            _write(result, json_to)


@contextmanager
def _watching() -> Iterator[life.Look]:
    """Shows rates on a terminal."""
    with Live() as live:

        def look(traffic: Sequence[Traffic]) -> None:
            if live.shows:
                style = output.style()
                live.show(rates_table(traffic, style), style)

        yield look


def _write(result: dict[str, Any], json_to: Path | None) -> None:
    style = output.style()
    traffic = [Traffic(**row) for row in result["guests"]]
    table = style.render(totals_table(traffic, style)) + drops_text(traffic, result["wire"])
    writes: list[output.Write] = [partial(output.show, table)]
    if json_to is not None:
        text = json_format.dumps(result, indent=1) + "\n"
        writes.append(partial(output.write_file, "--json", json_to, text))
    output.write_all(writes)


def _seconds(text: _Text) -> float:
    """How long --for says; for ever unless it is given."""
    if text is None:
        return math.inf
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value <= MAX_SECONDS:
        raise ConfigError(f"--for {text!r:.40}: give a time in seconds, above 0, e.g. 10")
    return value


def with_options(plan: LabPlan, metrics: _Text, identity: _Text, cpu: _Text) -> LabPlan:
    """The plan with what these options say, which may be given beside --config. ConfigError."""
    changes: dict[str, Any] = {"metrics": metrics} if metrics is not None else {}
    if identity is not None:
        changes["identity"] = readers.text("--identity", identity)
    if cpu is not None:
        changes["cpu"] = values.cpu("--cpu", cpu)
    return replace(plan, **changes)


def print_notes(program: str, lab: "Lab") -> None:
    for note in lab.notes:
        print(f"{program}: {printable(note)}", file=sys.stderr)


def check_alone(given: dict[str, object]) -> None:
    """Raises ConfigError when one of these options is given beside --config."""
    for name, value in given.items():
        if value is not None and value != []:
            raise ConfigError(f"--{name} and --config: the file says it all; give one of the two")
