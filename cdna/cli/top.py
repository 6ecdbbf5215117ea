"""`cdna top`: what the contexts of a running lab or server do, second by second."""

import json as json_format
from contextlib import suppress
from typing import Annotated, Any

import typer
from rich.table import Table

from cdna.cli import output
from cdna.cli.exits import DONE
from cdna.cli.live import Live
from cdna.cli.running import Socket
from cdna.cli.terminal import STDOUT, Keys, Place, place
from cdna.errors import ConfigError
from cdna.lab.control import ControlClient
from cdna.report.style import Style

MIN_INTERVAL, MAX_INTERVAL = 0.1, 3600.0  # seconds


def top(
    interval: Annotated[
        str, typer.Option(metavar="SECONDS", help="Between two looks.", show_default=True)
    ] = "1",
    once: Annotated[bool, typer.Option("--once", help="Look once, and end.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON, an object a line for each look.")] = False,
    socket: Socket = None,
) -> int:
    """Show what the contexts of a running lab or server do: state, link, peer, rates, drops. q ends it."""
    seconds = _interval(interval)
    with (
        ControlClient(socket) as lab,
        suppress(KeyboardInterrupt),
        Live(transient=False) as live,
        Keys() as keys,
    ):
        while _show(_look(lab), json, None if once else live) and not once and keys.wait(seconds):
            pass
    return DONE


def _show(look: dict[str, Any], json: bool, live: Live | None) -> bool:
    """Shows a look: in its place on a terminal, if there is a `live`. False: nobody reads any more."""
    if json:
        return output.show(json_format.dumps(look) + "\n")
    style = output.style()
    if live is None or not output.is_terminal() or place(STDOUT) is Place.ELSEWHERE:
        return output.show(style.render(_table(look, style)))
    live.show(_table(look, style), style)
    return True


def _look(lab: ControlClient) -> dict[str, Any]:
    """What the guests are and do, and the wire: one object."""
    described, _ = lab.call("list")
    told, _ = lab.call("stats")
    traffic = {row["guest"]: row for row in told["traffic"]}
    guests = [{**guest, **traffic.get(guest["guest"], {})} for guest in described["guests"]]
    return {"guests": guests, "wire": told["wire"]}


def _table(look: dict[str, Any], style: Style) -> Table:
    from cdna.lab.rates import Traffic
    from cdna.report.lab_table import live_table

    known = Traffic.__dataclass_fields__
    traffic = [Traffic(**{key: row[key] for key in known if key in row}) for row in look["guests"]]
    return live_table(look["guests"], traffic, style)


def _interval(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0
    if not MIN_INTERVAL <= seconds <= MAX_INTERVAL:
        raise ConfigError(f"--interval {text!r:.40}: give seconds from {MIN_INTERVAL} to {MAX_INTERVAL:g}")
    return seconds
