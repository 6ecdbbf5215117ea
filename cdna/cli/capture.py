"""`cdna capture`: frames of a running lab's contexts into a pcapng file or a pipe."""

import os
import stat
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated

import typer

from cdna.base.stopping import stop_signals
from cdna.base.units import MAX_SECONDS, MIB
from cdna.cli import output
from cdna.cli.exits import DONE
from cdna.cli.terminal import STDERR, Place, place
from cdna.errors import ConfigError, ResourceError

if TYPE_CHECKING:
    from cdna.nic.capture_file import Recording

PROGRAM = "cdna capture"
SHOW_EVERY = 0.2  # seconds, on a terminal
MAX_SNAPLEN = 262144  # what tcpdump and dumpcap take; no frame here is as long
MAX_BUFFER_MIB = 1024


def capture(
    contexts: Annotated[
        list[str] | None,
        typer.Argument(metavar="GUEST|CONTEXT|all", help="Whose frames: g1, its context g1.0, or all."),
    ] = None,
    write: Annotated[
        str | None, typer.Option("--write", "-w", metavar="FILE|-", help="Where to; - is a pipe.")
    ] = None,
    snaplen: Annotated[
        int, typer.Option("--snapshot-length", "-s", metavar="BYTES", help="Kept of a frame; 0: all.")
    ] = 0,
    count: Annotated[int, typer.Option("-c", metavar="COUNT", help="End after so many frames.")] = 0,
    seconds: Annotated[
        float | None, typer.Option("--for", metavar="SECONDS", help="End after this time.")
    ] = None,
    buffer: Annotated[
        int, typer.Option("--buffer-size", "-B", metavar="MIB", help="Frames waiting to be written.")
    ] = 64,
    socket: Annotated[
        str | None, typer.Option("--socket", metavar="PATH", help="The lab's control socket.")
    ] = None,
    install_extcap: Annotated[
        bool, typer.Option("--install-extcap", help="Have Wireshark list the lab's contexts, and end.")
    ] = False,
) -> int:
    """Capture frames of a running lab to pcapng, an interface a context.

    cdna capture g1 -w g1.pcapng; cdna capture all -w - | tshark -r -
    """
    if install_extcap:
        from cdna.cli.wireshark import install

        output.show(f"{PROGRAM}: {install()}\n")
        return DONE
    _check(contexts, write, snaplen, count, seconds, buffer)
    assert contexts is not None
    assert write is not None
    return _capture(contexts, write, snaplen, count, seconds, buffer * MIB, socket)


def _check(
    contexts: list[str] | None,
    write: str | None,
    snaplen: int,
    count: int,
    seconds: float | None,
    buffer: int,
) -> None:
    if not contexts:
        raise ConfigError("whose frames: give guests or contexts of the lab, or all")
    if not write:
        raise ConfigError("where to: give -w FILE, or -w - and a pipe, such as | tshark -r -")
    if not 0 <= snaplen <= MAX_SNAPLEN:
        raise ConfigError(f"-s {snaplen}: give 1 to {MAX_SNAPLEN} bytes, or 0 for whole frames")
    if not 0 <= count < 1 << 63:
        raise ConfigError(f"-c {count}: give a number of frames, or 0 for no end")
    if seconds is not None and not 0 < seconds <= MAX_SECONDS:
        raise ConfigError(f"--for {seconds:g}: give a time above 0 seconds")
    if not 1 <= buffer <= MAX_BUFFER_MIB:
        raise ConfigError(f"-B {buffer}: give 1 to {MAX_BUFFER_MIB} MiB")
    if write == "-" and output.is_closed():
        raise ConfigError("-w -: standard output is closed; give a pipe, such as | tshark -r -, or a file")
    if write == "-" and sys.stdout.isatty():
        raise ConfigError(
            "-w -: standard output is a terminal; give a pipe, such as | tshark -r -, or a file"
        )


def _capture(
    contexts: list[str],
    write: str,
    snaplen: int,
    count: int,
    seconds: float | None,
    buffer: int,
    socket: str | None,
) -> int:
    from cdna.lab.capture import LabCapture
    from cdna.nic.capture_file import Recording, create

    wanted: str | list[str] = "all" if "all" in contexts else contexts
    with stop_signals() as stop, ExitStack() as undo:
        with stop.at_once():  # a FIFO is opened when it has a reader
            lab = undo.enter_context(LabCapture(socket, wanted, snaplen=snaplen, buffer=buffer))
            fd = os.dup(1) if write == "-" else create(write)
        name = "standard output" if write == "-" else write
        recording = Recording(lab.reader, fd, limit=count, stopped=stop.is_set)
        watch = _Watch(recording, stop.is_set, lab.over, seconds)
        try:
            recording.run(watch, lab.nap)
        except BrokenPipeError:  # the reader has seen enough
            return DONE
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise ResourceError(f"{name}: {reason}; it ends with frame {recording.frames}") from None
        finally:
            watch.clear()
            os.close(fd)
    print(f"{PROGRAM}: {recording.frames} frames written to {name}, {recording.lost} lost", file=sys.stderr)
    return DONE


class _Watch:
    """Says when a recording is over, and shows meanwhile how far it is, if standard error is a terminal."""

    def __init__(
        self,
        recording: "Recording",
        stopped: Callable[[], bool],
        ended: Callable[[], bool],
        seconds: float | None,
    ) -> None:
        now = time.monotonic()
        self._recording = recording
        self._stopped = stopped
        self._ended = ended
        self._end = None if seconds is None else now + seconds
        # A program at the other end of a pipe shows something of its own, perhaps on this terminal.
        to_terminal = sys.stderr is not None and sys.stderr.isatty()
        self._shows = to_terminal and not stat.S_ISFIFO(os.fstat(1).st_mode)
        self._show_at = now

    def __call__(self) -> bool:
        now = time.monotonic()
        if self._shows and now >= self._show_at and place(STDERR) is not Place.BACKGROUND:
            self._show_at = now + SHOW_EVERY
            text = f"{PROGRAM}: {self._recording.frames} frames, {self._recording.lost} lost"
            print(f"\r{text}", end="\x1b[K", file=sys.stderr, flush=True)
        return self._stopped() or self._ended() or (self._end is not None and now >= self._end)

    def clear(self) -> None:
        if self._shows and place(STDERR) is not Place.BACKGROUND:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
