"""`cdna top`: what the contexts of a running lab or server do, second by second."""

import json as json_format
import time
from contextlib import suppress
from typing import Annotated, Any

import typer
from rich.table import Table

from cdna.cli import output
from cdna.cli.exits import DONE
from cdna.cli.live import Live
from cdna.cli.running import Socket
from cdna.errors import ConfigError
from cdna.lab.control import ControlClient

MIN_INTERVAL, MAX_INTERVAL = 0.1, 3600.0  # seconds


def top(
    interval: Annotated[
        str, typer.Option(metavar="SECONDS", help="Between two looks.", show_default=True)
    ] = "1",
    once: Annotated[bool, typer.Option("--once", help="Look once, and end.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON, an object a line for each look.")] = False,
    socket: Socket = None,
) -> int:
    """Show what the contexts of a running lab or server do: state, link, peer, rates, drops."""
    seconds = _interval(interval)
    style = output.style()
    with ControlClient(socket) as lab, suppress(KeyboardInterrupt), Live(style, transient=False) as live:
        while True:
            look = _look(lab)
            if json:
                output.show(json_format.dumps(look) + "\n")
            elif live.shows and not once:
                live.show(_table(look))
            else:
                output.show(style.render(_table(look)))
            if once:
                break
            time.sleep(seconds)
    return DONE


def _look(lab: ControlClient) -> dict[str, Any]:
    """What the guests are and do, and the wire: one object."""
    described, _ = lab.call("list")
    told, _ = lab.call("stats")
    traffic = {row["guest"]: row for row in told["traffic"]}
    guests = [{**guest, **traffic.get(guest["guest"], {})} for guest in described["guests"]]
    return {"guests": guests, "wire": told["wire"]}


def _table(look: dict[str, Any]) -> Table:
    from cdna.lab.rates import Traffic
    from cdna.report.lab_table import live_table

    known = Traffic.__dataclass_fields__
    traffic = [Traffic(**{key: row[key] for key in known if key in row}) for row in look["guests"]]
    return live_table(look["guests"], traffic, output.style())


def _interval(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0
    if not MIN_INTERVAL <= seconds <= MAX_INTERVAL:
        raise ConfigError(f"--interval {text!r:.40}: give seconds from {MIN_INTERVAL} to {MAX_INTERVAL:g}")
    return seconds
