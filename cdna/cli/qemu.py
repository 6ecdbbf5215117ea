"""`cdna qemu`: how a virtual machine is attached to a context of a running server."""

import json as json_format
import shlex
from typing import Annotated

import typer

from cdna.cli import output
from cdna.cli.exits import DONE
from cdna.cli.running import Socket
from cdna.errors import ConfigError
from cdna.lab.control import ControlClient
from cdna.lab.kinds.vhost_user.qemu import (
    installed_version,
    libvirt_xml,
    parse_size,
    parse_version,
    qemu_arguments,
)


def qemu(
    contexts: Annotated[
        list[str],
        typer.Argument(metavar="CONTEXT...", help="vhost-user contexts of the server, for one machine."),
    ],
    size: Annotated[
        str, typer.Option(metavar="SIZE", help="The machine's memory.", show_default=True)
    ] = "1G",
    libvirt: Annotated[
        bool, typer.Option("--libvirt", help="Print what belongs into libvirt's domain XML instead.")
    ] = False,
    version: Annotated[
        str | None, typer.Option(metavar="VERSION", help="Of QEMU, such as 7.2. Default: the one installed.")
    ] = None,
    tcg: Annotated[
        bool, typer.Option("--tcg", help="For a machine that is emulated (-accel tcg), without KVM.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the arguments as a JSON list.")] = False,
    socket: Socket = None,
) -> int:
    """Print the QEMU arguments, or the libvirt XML, that attach a machine to contexts."""
    if libvirt and json:
        raise ConfigError("--libvirt and --json: give one of the two")
    if libvirt and (tcg or version is not None):
        option = "--tcg" if tcg else "--version"
        raise ConfigError(f"--libvirt and {option}: libvirt knows its QEMU; give one of the two")
    memory = parse_size("--size", size)
    target = installed_version() if version is None else parse_version("--version", version)
    with ControlClient(socket) as lab:
        guests = [lab.call("show", guest=context)[0]["guest"] for context in contexts]
    if libvirt:
        output.show(libvirt_xml(guests))
        return DONE
    arguments = qemu_arguments(guests, memory, target, tcg=tcg)
    if json:
        output.show(json_format.dumps(arguments) + "\n")
    else:  # an option a line, to be pasted into a shell
        pairs = zip(arguments[::2], arguments[1::2], strict=True)
        output.show(" \\\n".join(f"{option} {shlex.quote(value)}" for option, value in pairs) + "\n")
    return DONE
