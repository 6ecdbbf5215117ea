"""`cdna serve`: one NIC for virtual machines, DPDK programs and other guests, a socket a context."""

import logging
import os
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
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
from cdna.errors import ConfigError
from cdna.lab import values
from cdna.lab.guest_plans import context_settings, form_of, guest_plan
from cdna.lab.kinds import KINDS
from cdna.lab.plan import (
    NETS,
    POLLS,
    SANDBOXES,
    WIRE,
    LabPlan,
    has_addressed,
    host_addresses,
    with_addresses,
)
from cdna.lab.plan_file import read_plan

if TYPE_CHECKING:
    from cdna.lab.lab import Lab
    from cdna.sandbox import Needs

PROGRAM = "cdna serve"
FORMS = tuple(map(form_of, KINDS.own))

_Text = str | None
_Texts = list[str] | None


def serve(
    context: Annotated[
        _Texts,
        typer.Option(
            metavar="KIND:TARGET,KEY=VALUE,...",
            help=f"A guest's context: {', '.join(FORMS)}. Any number of times.",
        ),
    ] = None,
    config: Config = None,
    wire: Wire = None,
    net: Net = None,
    host: Annotated[
        _Text,
        typer.Option(metavar="ADDRESS,...", help="The host's on the tap. Default: with namespaces only."),
    ] = None,
    poll: Annotated[
        _Text, typer.Option(metavar="|".join(POLLS), help="Whether the NIC sleeps when it is idle: adaptive.")
    ] = None,
    seconds: For = None,
    cpu: Cpu = None,
    socket: Socket = None,
    metrics: Metrics = None,
    identity: Identity = None,
    sandbox: Annotated[
        _Text,
        typer.Option(metavar="on|log|off", help="Keep to what serving needs: on, where the kernel can."),
    ] = None,
    sandbox_path: Annotated[
        _Texts,
        typer.Option(metavar="DIR", help="Contexts that are added later may have their sockets there, too."),
    ] = None,
    user: Annotated[
        _Text, typer.Option(metavar="USER[:GROUP]", help="Become this user when everything is open.")
    ] = None,
    json: JsonFile = None,
) -> int:
    """Serve contexts of one NIC to virtual machines, DPDK programs and other guests."""
    if config is not None:
        check_alone({"context": context, "wire": wire, "net": net, "host": host})
        plan = read_plan(config)
    else:
        plan = _plan(context or [], wire, net, host)
    changes: dict[str, Any] = {}
    if poll is not None:
        changes["poll"] = readers.one_of("--poll", poll, POLLS)
    if sandbox is not None:
        changes["sandbox"] = readers.one_of("--sandbox", sandbox, SANDBOXES)
    logging.basicConfig(format=f"{PROGRAM}: %(message)s", level=logging.INFO)
    run(
        replace(with_options(plan, metrics, identity, cpu), **changes),
        _say,
        socket=socket,
        seconds=seconds,
        json=json,
        confine=partial(_confine, user, sandbox_path or [], socket is None and plan.socket is None),
    )
    return DONE


def _confine(
    user: _Text, paths: list[str], default: bool, json_to: Path | None, plan: LabPlan, socket: str
) -> "Needs":
    """What the sandbox leaves this server."""
    from cdna.lab.needs import needs_of
    from cdna.sandbox.privileges import user_of

    for path in paths:
        if not os.path.isdir(path):
            raise ConfigError(f"--sandbox-path {path!r:.80}: no such directory; make it first")
    if user is not None and plan.sandbox == "off":
        raise ConfigError("--user and --sandbox off: a user is part of the sandbox; give one of the two")
    become = None if user is None else user_of("--user", user)
    return needs_of(plan, socket, user=become, json_to=json_to, paths=paths, own_directory=default)


def _plan(contexts: list[str], wire: _Text, net: _Text, host: _Text) -> LabPlan:
    if not contexts:
        raise ConfigError(f"no contexts: give --context {FORMS[1]}, or --config FILE")
    nets = NETS if net is None else values.nets("--net", net)
    plans = []
    for text in contexts:
        settings = context_settings("--context", text)
        plans.append(guest_plan(f"--context {text.partition(',')[0]:.80}: ", settings, {}, nets))
    if host is not None:
        hosts = values.addresses("--host", host, nets)
    elif net is not None or has_addressed(plans):
        hosts = host_addresses(nets)
    else:
        hosts = ()  # the machines behind the sockets choose theirs; the host's are for its user to choose
    return LabPlan(
        tuple(with_addresses(plans, nets, hosts)), wire=WIRE if wire is None else wire, net=nets, host=hosts
    )


def _say(lab: "Lab", path: str) -> None:
    print_notes(PROGRAM, lab)
    if lab.sandbox is not None:
        print(f"{PROGRAM}: {lab.sandbox}", file=sys.stderr)
    number = len(lab.members)
    output.show(f"serving: {number} context{'' if number == 1 else 's'}, socket {path}\n")
