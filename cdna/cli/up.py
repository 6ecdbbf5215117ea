"""`cdna up`: a NIC, a wire and guests in which real programs run, until it is interrupted."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cdna.base import readers
from cdna.cli import output
from cdna.cli.exits import DONE
from cdna.cli.running import (
    Config,
    Cpu,
    For,
    Identity,
    JsonFile,
    Metrics,
    Net,
    Socket,
    Wire,
    check_alone,
    print_notes,
    run,
    with_options,
)
from cdna.cli.settings import NONE, with_settings
from cdna.errors import ConfigError
from cdna.lab import values
from cdna.lab.guest_plans import guest_plan
from cdna.lab.plan import MAX_GUESTS, NETS, WIRE, LabPlan, host_addresses, plain_guests, with_addresses
from cdna.lab.plan_file import read_plan

if TYPE_CHECKING:
    from cdna.lab.lab import Lab

PROGRAM = "cdna up"

_Text = str | None


@with_settings(shared=True)
def up(
    guests: Annotated[
        _Text, typer.Option(metavar="N|NAME,...", help="How many guests (g1, g2 and so on), or their names.")
    ] = None,
    config: Config = None,
    wire: Wire = None,
    net: Net = None,
    host: Annotated[
        _Text,
        typer.Option(metavar="ADDRESS,...", help="The host's on the tap. Default: 10.77.0.254,fd77::fe."),
    ] = None,
    settings: Mapping[str, str] = NONE,
    seconds: For = None,
    cpu: Cpu = None,
    socket: Socket = None,
    metrics: Metrics = None,
    identity: Identity = None,
    json: JsonFile = None,
) -> int:
    """Bring up a lab: guests that are network namespaces, each on a context of its own, and a wire."""
    defaults = {name: (f"--{name}", value) for name, value in settings.items()}
    if config is not None:
        check_alone({"guests": guests, "wire": wire, "net": net, "host": host, **settings})
        plan = read_plan(config)
    else:
        plan = _plan(guests, wire, net, host, defaults)
    plan = with_options(plan, metrics, identity, cpu)
    run(plan, _say, socket=socket, seconds=seconds, json=json)
    return DONE


def _plan(guests: _Text, wire: _Text, net: _Text, host: _Text, defaults: dict[str, Any]) -> LabPlan:
    if guests is None:
        raise ConfigError("no guests: give --guests N, or --config FILE")
    nets = NETS if net is None else values.nets("--net", net)
    hosts = host_addresses(nets) if host is None else values.addresses("--host", host, nets)
    if guests.removeprefix("-").isdigit():
        named = plain_guests(readers.whole("--guests", guests, 0, MAX_GUESTS))
    else:
        named = [{"name": name} for name in readers.words("--guests", guests) or [""]]
    plans = [guest_plan("--guests: ", settings, defaults, nets) for settings in named]
    return LabPlan(
        tuple(with_addresses(plans, nets, hosts)),
        wire=WIRE if wire is None else wire,
        net=nets,
        host=hosts,
        defaults=defaults,
    )


def _say(lab: "Lab", path: str) -> None:
    print_notes(PROGRAM, lab)
    number = len(lab.members)
    output.show(f"lab is up: {number} guest{'' if number == 1 else 's'}, socket {path}\n")
