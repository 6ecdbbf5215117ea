"""`cdna-extcap`: the contexts of the running lab as interfaces of Wireshark and tshark (extcap(4)).

Wireshark runs the programs in its extcap folder: with --extcap-interfaces for what they can capture, with
--extcap-dlts and --extcap-config for what an interface is and takes, and with --capture --fifo PATH to
have pcapng written there until it closes the pipe or sends a signal.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from cdna.base.shown import printable
from cdna.base.units import MIB
from cdna.cli import extcap, output, streams
from cdna.errors import CdnaError, ConfigError, ResourceError

PROGRAM = "cdna-extcap"
PREFIX = "cdna-"
PERSONAL = Path("~/.local/lib/wireshark/extcap")  # of Wireshark 4.2 and later
_PLAIN = re.compile(r"[\w.-]+", re.ASCII)


def main(argv: Sequence[str] | None = None, ready: Callable[[], None] = lambda: None) -> int:
    """Does what Wireshark asks for; returns the exit status. `cdna.cli.extcap` calls it.

    ready: called when an interrupt may be a KeyboardInterrupt.
    """
    if argv is None:
        streams.prepare()
    ready()
    arguments, _ = _parser().parse_known_args(argv)  # later versions of Wireshark may say more
    try:
        if arguments.extcap_interfaces:
            _print(_interfaces(arguments.socket))
        elif arguments.extcap_dlts:
            _print(["dlt {number=1}{name=EN10MB}{display=Ethernet}"])
        elif arguments.extcap_config:
            _print(_config())
        elif arguments.capture:
            _capture(arguments)
        elif arguments.extcap_capture_filter:  # Wireshark takes what is printed for the error in the filter
            _print(["no capture filters here: use a display filter"])
        else:
            raise ConfigError(
                "this program is Wireshark's: cdna capture --install-extcap has it list the contexts"
            )
    except CdnaError as error:
        print(f"{PROGRAM}: {printable(' '.join(str(error).split()))}", file=sys.stderr)
        return 2
    return 0


def _print(lines: list[str]) -> None:
    output.show("".join(f"{line}\n" for line in lines))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(PROGRAM, description="Wireshark's way to the contexts of a lab.")
    parser.allow_abbrev = False
    for flag in ("--extcap-interfaces", "--extcap-dlts", "--extcap-config", "--capture"):
        parser.add_argument(flag, action="store_true")
    for option in ("--extcap-interface", "--extcap-version", "--extcap-capture-filter", "--fifo", "--socket"):
        parser.add_argument(option)
    parser.add_argument("--snaplen", type=int, default=0)
    parser.add_argument("--buffer", type=int, default=64)
    return parser


def _interfaces(socket: str | None) -> list[str]:
    """What can be captured: nothing where no lab runs, which is no error to Wireshark."""
    from cdna.lab.capture import list_interfaces
    from cdna.version import __version__

    lines = [f"extcap {{version={__version__}}}{{display=CDNA}}"]
    try:
        listed = list_interfaces(socket)
    except CdnaError:
        return lines
    if listed:
        lines.append(f"interface {{value={PREFIX}all}}{{display=CDNA, all contexts}}")
    for interface in listed:
        name = str(interface["name"])
        value = name if _PLAIN.fullmatch(name) else str(interface["context"])
        display = re.sub(r"[{}]|[^\x20-\x7e]", "_", name)
        lines.append(
            f"interface {{value={PREFIX}{value}}}{{display=CDNA context {display}, {interface['mac']}}}"
        )
    return lines


def _config() -> list[str]:
    return [
        "arg {number=0}{call=--snaplen}{display=Bytes kept of a frame}{type=unsigned}{default=0}"
        "{tooltip=0 keeps whole frames}",
        "arg {number=1}{call=--buffer}{display=Buffer (MiB)}{type=unsigned}{range=1,1024}{default=64}"
        "{tooltip=Frames that wait to be written}",
        "arg {number=2}{call=--socket}{display=Control socket}{type=string}"
        "{tooltip=Of a lab that was started with --socket}",
    ]


def _capture(arguments: argparse.Namespace) -> None:
    from cdna.base.stopping import stop_signals
    from cdna.lab.capture import LabCapture
    from cdna.nic.capture_file import Recording

    interface, fifo = arguments.extcap_interface, arguments.fifo
    if not interface or not interface.startswith(PREFIX) or not fifo:
        raise ConfigError(f"--capture: give --extcap-interface {PREFIX}NAME and --fifo PATH")
    if arguments.extcap_capture_filter:
        raise ConfigError("no capture filters here: use a display filter")
    with stop_signals() as stop, contextlib.ExitStack() as undo:
        try:
            with stop.at_once():  # Wireshark may end before it opens the pipe
                lab = undo.enter_context(
                    LabCapture(
                        arguments.socket or None,
                        [interface.removeprefix(PREFIX)],
                        snaplen=arguments.snaplen,
                        buffer=arguments.buffer * MIB,
                    )
                )
                fd = os.open(fifo, os.O_WRONLY | os.O_CLOEXEC)
            undo.callback(os.close, fd)
            recording = Recording(lab.reader, fd, stopped=stop.is_set)
            recording.run(lambda: stop.is_set() or lab.over(), lab.nap)
        except BrokenPipeError:  # Wireshark has stopped the capture
            return
        except OSError as error:
            raise ResourceError(f"{fifo}: {(error.strerror or str(error)).lower()}") from None


def install() -> str:
    """Links this program into Wireshark's extcap folder; says where. Raises ResourceError."""
    program = _program()
    folder = _folder()
    link = folder / PROGRAM
    by_hand = f"ln -s {program} {link}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if link.is_symlink():
            link.unlink()
        link.symlink_to(program)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ResourceError(f"{link}: {reason}; as its owner: {by_hand}") from None
    return f"{link} is {program} now: Wireshark and tshark -D list the contexts of a running lab"


def _program() -> Path:
    beside = Path(sys.executable).parent / PROGRAM
    found = beside if beside.exists() else shutil.which(PROGRAM)
    if not found:
        raise ResourceError(f"no program {PROGRAM} is installed: pip install cdna puts it beside cdna")
    return Path(found).absolute()


def _folder() -> Path:
    """The user's own extcap folder; before Wireshark 4.2 there was but one for all."""
    chosen = os.environ.get("WIRESHARK_EXTCAP_DIR")
    if chosen:
        return Path(chosen)
    tshark = shutil.which("tshark")
    if tshark:
        listed = subprocess.run([tshark, "-G", "folders"], capture_output=True, text=True, check=False)
        folders = dict(line.split(":", 1) for line in listed.stdout.splitlines() if ":" in line)
        for name in ("Personal Extcap path", "Extcap path"):
            if name in folders:
                return Path(folders[name].strip())
    return PERSONAL.expanduser()


if __name__ == "__main__":
    sys.exit(extcap())
