"""`cdna up`: a NIC, a wire and guests in which real programs run, until it is interrupted."""

import json as json_format
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cdna.cli import output
from cdna.cli.exits import DONE
from cdna.errors import ConfigError
from cdna.lab import privilege, values
from cdna.lab.control import ControlServer, check_free, default_path, make_directory
from cdna.lab.host_end import tap_of, wait_until_gone
from cdna.lab.plan import (
    MAX_GUESTS,
    NETS,
    WIRE,
    LabPlan,
    guest_plan,
    host_addresses,
    plain_guests,
    with_addresses,
)
from cdna.lab.plan_file import read_plan
from cdna.sockets import is_left_over

if TYPE_CHECKING:
    from cdna.lab.lab import Lab

PROGRAM = "cdna up"
INTERVAL = 1.0  # seconds between two looks at the counters
MAX_SECONDS = 1e9
GRACE = 10.0  # seconds that the devices of a lab that was killed have to go

_Text = str | None
Socket = Annotated[_Text, typer.Option(metavar="PATH", help="The lab's control socket.")]


def up(
    guests: Annotated[
        _Text, typer.Option(metavar="N|NAME,...", help="How many guests (g1, g2 and so on), or their names.")
    ] = None,
    config: Annotated[
        _Text, typer.Option(metavar="FILE", help="A TOML file that says all that the other options do.")
    ] = None,
    wire: Annotated[
        _Text,
        typer.Option(metavar="WIRE", help="Where the NIC is plugged in, e.g. tap:cdna0. Default: nowhere."),
    ] = None,
    net: Annotated[
        _Text, typer.Option(metavar="NET,...", help=f"Where addresses are from: {NETS[0]},{NETS[1]}.")
    ] = None,
    host: Annotated[
        _Text,
        typer.Option(metavar="ADDRESS,...", help="The host's on the tap. Default: 10.77.0.254,fd77::fe."),
    ] = None,
    vlan: Annotated[_Text, typer.Option(metavar="ID|trunk", help="Every guest's VLAN.")] = None,
    rate: Annotated[
        _Text, typer.Option(metavar="RATE", help="Bits a second that a guest may send, e.g. 100M.")
    ] = None,
    weight: Annotated[_Text, typer.Option(metavar="N", help="A guest's share when guests compete.")] = None,
    protection: Annotated[_Text, typer.Option(metavar="MODE", help="DMA protection: validated.")] = None,
    mtu: Annotated[_Text, typer.Option(metavar="BYTES", help="Largest packet: 1500.")] = None,
    gateway: Annotated[
        _Text, typer.Option(metavar="ADDRESS,...", help="Default routes of the guests.")
    ] = None,
    seconds: Annotated[
        _Text, typer.Option("--for", metavar="SECONDS", help="End by itself. Default: when interrupted.")
    ] = None,
    cpu: Annotated[_Text, typer.Option(metavar="N", help="The core that the NIC stays on.")] = None,
    socket: Socket = None,
    json: Annotated[_Text, typer.Option(metavar="FILE", help="Write the final totals as JSON.")] = None,
) -> int:
    """Bring up a lab: guests that are network namespaces, each on a context of its own, and a wire."""
    options = {
        "vlan": vlan,
        "rate": rate,
        "weight": weight,
        "protection": protection,
        "mtu": mtu,
        "gateway": gateway,
    }
    defaults = {name: (f"--{name}", value) for name, value in options.items() if value is not None}
    if config is not None:
        given = {"guests": guests, "wire": wire, "net": net, "host": host, **options}
        _check_alone(name for name, value in given.items() if value is not None)
        plan = read_plan(config)
    else:
        plan = _plan(guests, wire, net, host, defaults)
    lasts = math.inf if seconds is None else _seconds(seconds)
    core = None if cpu is None else values.whole("--cpu", cpu, 0, 1 << 16)
    json_to = None if json is None else output.file_to_write("--json", json)

    with ExitStack() as undo:
        ends = undo.enter_context(_stop_signals())
        result = _run(plan, socket or plan.socket, core, lasts, ends)
        _write(result, json_to)
    return DONE


def _run(
    plan: LabPlan, socket: _Text, cpu: int | None, seconds: float, ends: threading.Event
) -> dict[str, Any]:
    """Runs the lab until it is told to end. Returns the final totals."""
    with ExitStack() as undo:
        path = socket or undo.enter_context(_default_socket())
        check_free(path)
        tap = tap_of(plan.wire)
        if tap is not None and is_left_over(path):
            wait_until_gone(tap, GRACE)
        user_fd = privilege.gain_fd()
        from cdna.lab.capture import capture_handlers
        from cdna.lab.commands import handlers
        from cdna.lab.lab import Lab  # numpy among what it needs: not before the user namespace

        lab = undo.enter_context(Lab(plan, cpu=cpu))
        undo.enter_context(ControlServer(path, {**handlers(lab, user_fd), **capture_handlers(lab)}))
        started = time.monotonic()
        _say(lab, path)
        _watch(lab, ends, started + seconds)
        return {
            "seconds": round(time.monotonic() - started, 3),
            "guests": [t.as_dict() for t in lab.totals()],
            "wire": lab.wire(),
        }


def _write(result: dict[str, Any], json_to: Path | None) -> None:
    from cdna.lab.rates import Traffic
    from cdna.report.lab_table import totals_table

    style = output.style()
    table = totals_table([Traffic(**row) for row in result["guests"]], style)
    writes: list[output.Write] = [partial(output.show, style.render(table))]
    if json_to is not None:
        text = json_format.dumps(result, indent=1) + "\n"
        writes.append(partial(output.write_file, "--json", json_to, text))
    output.write_all(writes)


def _check_alone(names: Iterator[str]) -> None:
    for name in names:
        raise ConfigError(f"--{name} and --config: the file says it all; give one of the two")


def _plan(guests: _Text, wire: _Text, net: _Text, host: _Text, defaults: dict[str, Any]) -> LabPlan:
    if guests is None:
        raise ConfigError("no guests: give --guests N, or --config FILE")
    nets = NETS if net is None else values.nets("--net", net)
    hosts = host_addresses(nets) if host is None else values.addresses("--host", host, nets)
    if guests.removeprefix("-").isdigit():
        named = plain_guests(values.whole("--guests", guests, 0, MAX_GUESTS))
    else:
        named = [{"name": name} for name in values.words("--guests", guests) or [""]]
    plans = [guest_plan("--guests: ", settings, defaults, nets) for settings in named]
    return LabPlan(
        tuple(with_addresses(plans, nets, hosts)),
        wire=WIRE if wire is None else wire,
        net=nets,
        host=hosts,
        defaults=defaults,
    )


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value <= MAX_SECONDS:
        raise ConfigError(f"--for {text!r:.40}: give a time in seconds, above 0, e.g. 10")
    return value


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


@contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    """An event that is set by what ends a program politely, however often: `timeout` sends SIGTERM twice."""
    ends = threading.Event()
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}

    def stop(number: int, frame: object) -> None:
        ends.set()

    for number in numbers:
        if before[number] is not signal.SIG_IGN:  # nohup
            signal.signal(number, stop)
    try:
        yield ends
    finally:
        for number in numbers:
            signal.signal(number, before[number])


def _say(lab: "Lab", path: str) -> None:
    for note in lab.notes:
        print(f"{PROGRAM}: {note}", file=sys.stderr)
    number = len(lab.members)
    output.show(f"lab is up: {number} guest{'' if number == 1 else 's'}, socket {path}\n")


def _watch(lab: "Lab", ends: threading.Event, until: float) -> None:
    """Looks at the counters, and shows them on a terminal, until it is told to end or the time is over."""
    from rich.console import Console
    from rich.live import Live

    from cdna.report.lab_table import rates_table

    style = output.style()
    with ExitStack() as undo:
        live = None
        if style.width is not None:
            live = undo.enter_context(
                Live(console=Console(emoji=False, markup=False), auto_refresh=False, transient=True)
            )
        while not ends.is_set() and time.monotonic() < until:
            traffic = lab.sample()
            if live is not None:
                live.update(rates_table(traffic, style), refresh=True)
            ends.wait(min(INTERVAL, max(0.0, until - time.monotonic())))
        lab.sample()
