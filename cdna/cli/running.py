"""A lab or a server in this process, from its plan to its end: what `cdna up` and `cdna serve` share."""

import json as json_format
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cdna.base.sockets import is_left_over
from cdna.base.units import MAX_SECONDS
from cdna.cli import output
from cdna.cli.live import Live
from cdna.cli.notify import notify
from cdna.cli.stopping import Stop, stop_signals
from cdna.errors import ConfigError
from cdna.interrupts import held
from cdna.lab import privilege
from cdna.lab.control import ControlServer, check_free, default_path, make_directory
from cdna.lab.host_end import tap_of, wait_until_gone
from cdna.lab.plan import LabPlan

if TYPE_CHECKING:
    from cdna.lab.lab import Lab
    from cdna.sandbox import Needs

INTERVAL = 1.0  # seconds between two looks at the counters
GRACE = 10.0  # seconds that the devices of a lab that was killed have to go

_Text = str | None
Socket = Annotated[_Text, typer.Option(metavar="PATH", help="The lab's control socket.")]
Wire = Annotated[
    _Text, typer.Option(metavar="WIRE", help="Where the NIC is plugged in, e.g. tap:cdna0. Default: nowhere.")
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
# What a sandbox leaves to a lab, from its plan, where its control socket is and where its totals go.
Confine = Callable[[LabPlan, str, Path | None], "Needs"]


def run(
    plan: LabPlan,
    say: Say,
    *,
    namespaces: bool,
    socket: _Text = None,
    seconds: float = math.inf,
    json_to: Path | None = None,
    confine: Confine | None = None,
) -> None:
    """Runs a lab until it is told to end, then shows its totals. say: called when it is in service.

    namespaces: whether it may have to make network namespaces, for which a user other than root enters a user
    namespace. confine: with it, this process enters a sandbox when everything is open, and stays there.
    """
    with ExitStack() as undo:
        stop = undo.enter_context(stop_signals())
        path = socket or plan.socket or undo.enter_context(_default_socket())
        sandbox = None if confine is None else partial(confine, plan, path, json_to)
        result = _run(plan, say, namespaces, path, seconds, stop, sandbox)
        with stop.soon():
            _write(result, json_to)


def _run(
    plan: LabPlan,
    say: Say,
    namespaces: bool,
    path: str,
    seconds: float,
    stop: Stop,
    sandbox: "Callable[[], Needs] | None",
) -> dict[str, Any]:
    """Runs the lab until it is told to end. Returns the final totals."""
    with ExitStack() as undo:
        with stop.at_once():
            lab = _start(plan, namespaces, path, sandbox, undo)
        started = time.monotonic()
        with stop.soon():
            say(lab, path)
            notify("READY=1")
            _watch(lab, stop, started + seconds)
        notify("STOPPING=1")
        return {
            "seconds": round(time.monotonic() - started, 3),
            "guests": [t.as_dict() for t in lab.totals()],
            "wire": lab.wire(),
        }


def _start(
    plan: LabPlan, namespaces: bool, path: str, sandbox: "Callable[[], Needs] | None", undo: ExitStack
) -> "Lab":
    """A lab in service, which `undo` ends."""
    check_free(path)
    tap = tap_of(plan.wire)
    if tap is not None and is_left_over(path):
        wait_until_gone(tap, GRACE)
    user_fd = privilege.gain_fd() if namespaces else None
    from cdna.lab.capture import capture_handlers
    from cdna.lab.commands import handlers
    from cdna.lab.lab import Lab  # numpy among what it needs: not before the user namespace

    needs = None if sandbox is None else sandbox()
    lab = undo.enter_context(Lab(replace(plan, socket=path)))
    with held():
        if plan.metrics is not None:
            from cdna.lab.metrics_server import MetricsServer

            undo.enter_context(MetricsServer(plan.metrics, lab))
        undo.enter_context(ControlServer(path, {**handlers(lab, user_fd), **capture_handlers(lab)}))
        if needs is not None:
            lab.confine(needs)
    return lab


def _watch(lab: "Lab", stop: Stop, until: float) -> None:
    """Looks at the counters, and shows them on a terminal, until it is told to end or the time is over."""
    from cdna.report.lab_table import rates_table

    with Live() as live:
        while not stop.is_set() and time.monotonic() < until:
            traffic = lab.sample()
            if live.shows:
                style = output.style()
                live.show(rates_table(traffic, style), style)
            stop.wait(min(INTERVAL, max(0.0, until - time.monotonic())))
        lab.sample()


def _write(result: dict[str, Any], json_to: Path | None) -> None:
    from cdna.lab.rates import Traffic
    from cdna.report.lab_table import drops_text, totals_table

    style = output.style()
    traffic = [Traffic(**row) for row in result["guests"]]
    table = style.render(totals_table(traffic, style)) + drops_text(traffic, result["wire"])
    writes: list[output.Write] = [partial(output.show, table)]
    if json_to is not None:
        text = json_format.dumps(result, indent=1) + "\n"
        writes.append(partial(output.write_file, "--json", json_to, text))
    output.write_all(writes)


def seconds_of(text: _Text) -> float:
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


def check_alone(given: dict[str, object]) -> None:
    """Raises ConfigError when one of these options is given beside --config."""
    for name, value in given.items():
        if value is not None and value != []:
            raise ConfigError(f"--{name} and --config: the file says it all; give one of the two")


@contextmanager
def _default_socket() -> Iterator[str]:
    """The default path, in a directory that goes again when it is empty."""
    path = default_path()
    make_directory(path)
    try:
        yield path
    finally:
        with suppress(OSError):
            os.rmdir(os.path.dirname(path))
