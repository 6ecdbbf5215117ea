"""`cdna ctl`: looks at a running lab, and changes it."""

import json as json_format
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Annotated, Any

import typer

from cdna.base.shown import printable
from cdna.cli import output
from cdna.cli.exits import DONE
from cdna.cli.running import Socket
from cdna.cli.settings import NONE, live_settings, with_settings
from cdna.errors import ConfigError
from cdna.lab.control import ControlClient
from cdna.lab.guest_plans import context_settings
from cdna.lab.kinds import KINDS, remark_of

app = typer.Typer(help="Look at a running lab, and change it.", add_completion=False)

Guest = Annotated[str, typer.Argument(metavar="GUEST", help="A guest of the lab.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_Text = str | None
_before: ContextVar[_Text] = ContextVar("_before", default=None)  # the socket given before the subcommand


@app.callback()
def ctl(socket: Socket = None) -> None:
    _before.set(socket)


def _ask(socket: _Text, command: str, **fields: Any) -> dict[str, Any]:
    with ControlClient(socket or _before.get()) as lab:
        reply, _ = lab.call(command, **fields)
    return reply


def _show_json(value: object) -> int:
    output.show(json_format.dumps(value, indent=1) + "\n")
    return DONE


@app.command("list")
def list_guests(json: Json = False, socket: Socket = None) -> int:
    """The guests and the wire: addresses, link, settings."""
    from cdna.report.lab_table import guests_table

    reply = _ask(socket, "list")
    if json:
        return _show_json({key: reply.get(key) for key in ("guests", "wire", "sandbox")})
    style, wire = output.style(), reply["wire"]
    lines = [f"{guest['guest']} is stopped: {guest['fault']}" for guest in reply["guests"] if guest["fault"]]
    lines += [remark for guest in reply["guests"] if (remark := remark_of(guest))]
    host = f", the host has {' '.join(wire['host'])}" if wire["host"] else ""
    lines.append(f"wire {wire['wire']}: link {wire['link']}{host}")
    told = "".join(f"{printable(line)}\n" for line in lines)
    output.show(style.render(guests_table(reply["guests"], style)) + told)
    return DONE


@app.command("show")
def show(guest: Guest, json: Json = False, socket: Socket = None) -> int:
    """All that is known of one guest: of a vhost-user guest also its frontend, features and rings."""
    from cdna.report.lab_table import detail_table

    detail = _ask(socket, "show", guest=guest)["guest"]
    if json:
        return _show_json(detail)
    style = output.style()
    output.show(style.render(detail_table(detail, style)))
    return DONE


@app.command("stats")
def stats(
    guest: Annotated[_Text, typer.Argument(metavar="[GUEST]", help="All counters of this one.")] = None,
    json: Json = False,
    socket: Socket = None,
) -> int:
    """What the guests send and receive now, or all counters of one."""
    from cdna.lab.rates import Traffic
    from cdna.report.lab_table import counters_table, drops_text, rates_table

    reply = _ask(socket, "stats", guest=guest)
    style = output.style()
    if guest is not None:
        if json:
            return _show_json(reply["counters"])
        output.show(style.render(counters_table(reply["counters"], style)))
    else:
        if json:
            return _show_json({"guests": reply["traffic"], "wire": reply["wire"]})
        traffic = [Traffic(**row) for row in reply["traffic"]]
        output.show(style.render(rates_table(traffic, style)) + drops_text(traffic, reply["wire"]))
    return DONE


@app.command("add")
@with_settings(shared=False)
def add(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME|KIND:TARGET,...", help="The new guest's name; or a context as for cdna serve."
        ),
    ],
    settings: Mapping[str, str] = NONE,
    socket: Socket = None,
) -> int:
    """Add a guest."""
    given: dict[str, Any] = {"name": name, **settings}
    if ":" in name:
        if len(given) > 1:
            raise ConfigError(f"{name:.60}: give its settings behind it, such as {name:.60},rate=1G")
        given = context_settings("context", name)
        for setting in KINDS[given["kind"]].settings:
            if setting.local is not None and setting.name in given:
                where = f"{name:.60}: {setting.name}"
                given[setting.name] = setting.local(where, given[setting.name])
    guest = _ask(socket, "add", settings=given)["guest"]
    where = " ".join(guest["addresses"]) or guest.get("socket") or guest["kind"]
    output.show(printable(f"{guest['guest']}: {where}, {guest['mac']}") + "\n")
    return DONE


@app.command("remove")
def remove(guest: Guest, socket: Socket = None) -> int:
    """Remove a guest. Programs that run inside go on, without a device."""
    _ask(socket, "remove", guest=guest)
    return DONE


@app.command("link")
def link(
    guest: Annotated[str, typer.Argument(metavar="GUEST|wire", help="A guest of the lab, or the wire.")],
    state: Annotated[str, typer.Argument(metavar="up|down", help="Plugged in or out.")],
    socket: Socket = None,
) -> int:
    """Plug a guest's cable in or out, or the wire's."""
    if state not in ("up", "down"):
        raise ConfigError(f"link {state!r:.40}: give up or down")
    _ask(socket, "link", guest=guest, up=state == "up")
    return DONE


@app.command("set")
def change(
    guest: Guest,
    settings: Annotated[
        list[str],
        typer.Argument(metavar="NAME=VALUE...", help=f"{live_settings()}."),
    ],
    socket: Socket = None,
) -> int:
    """Change settings of a guest that runs."""
    changes: dict[str, str] = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals or name in changes:
            wrong = "given twice" if equals else "no value"
            raise ConfigError(
                f"{setting!r:.60}: {wrong}; give settings such as rate=100M vlan=5 (cdna ctl set --help)"
            )
        changes[name] = value
    _ask(socket, "set", guest=guest, settings=changes)
    return DONE


@app.command("reset")
def reset(guest: Guest, socket: Socket = None) -> int:
    """Start a guest's context anew, also one that the NIC has stopped. What was under way is lost."""
    _ask(socket, "reset", guest=guest)
    return DONE


@app.command("metrics")
def metrics(socket: Socket = None) -> int:
    """Print all counters in the text format of Prometheus."""
    with ControlClient(socket or _before.get()) as lab:
        _, fds = lab.call("metrics")
    with open(fds[0], encoding="utf-8") as file:
        file.seek(0)
        output.show(file.read())
    return DONE
