"""`cdna exec`: a program inside a guest of a running lab."""

from typing import Annotated

import typer

from cdna.cli.running import Socket
from cdna.errors import ConfigError
from cdna.lab.enter import run_inside


def execute(
    guest: Annotated[str, typer.Argument(metavar="GUEST", help="A guest of the lab.")],
    command: Annotated[
        list[str] | None, typer.Argument(metavar="-- COMMAND...", help="What to run, and its arguments.")
    ] = None,
    socket: Socket = None,
) -> int:
    """Run a program inside a guest. Its exit status is the command's; 2 if there is no such program."""
    words = list(command or [])
    if words[:1] == ["--socket"] and len(words) > 1:  # an option of ours, given behind the guest
        socket, words = words[1], words[2:]
    elif words and words[0].startswith("--socket="):
        socket, words = words[0].partition("=")[2], words[1:]
    if words[:1] == ["--"]:
        del words[0]
    if not words:
        raise ConfigError(f"no command; give one, e.g. cdna exec {guest} -- ping -c 1 g2")
    run_inside(socket, guest, words)
