"""`cdna fuzz`: hostile guests against the engine and the VMM, for a time."""

import os
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cdna.base.stopping import stop_signals
from cdna.cli import arguments, output
from cdna.cli.exits import DONE, Interrupted
from cdna.cli.live import Live
from cdna.errors import BadSetting, CdnaError
from cdna.fuzz.campaigns import ATTACK, CAMPAIGNS, DEFAULT
from cdna.fuzz.plan import FuzzPlan
from cdna.interrupts import Ends

if TYPE_CHECKING:
    from cdna.fuzz.runner import Found, FuzzResult

PROGRAM = "cdna fuzz"
BROKEN = 1  # protection has failed
LINES = 10.0  # seconds between two lines where there is no terminal

_Text = str | None


def fuzz(
    seconds: Annotated[str, typer.Option(metavar="S", help="How long.")] = "60",
    seed: Annotated[
        _Text, typer.Option(metavar="N", help="What is done. Default: another each time.")
    ] = None,
    descriptors: Annotated[
        _Text, typer.Option(metavar="N", help="End after so many descriptors, e.g. 1e9, if that is earlier.")
    ] = None,
    campaign: Annotated[
        _Text,
        typer.Option(
            metavar="NAME,...", help=f"Some of {', '.join(CAMPAIGNS)}. Default: {', '.join(DEFAULT)}."
        ),
    ] = None,
    jobs: Annotated[
        _Text, typer.Option(metavar="N", help="Worker processes. Default: one for each core.")
    ] = None,
    attack: Annotated[
        _Text,
        typer.Option(metavar="FILE[:CLASS]", help="A hostile guest of your own: a class with attack()."),
    ] = None,
    replay: Annotated[
        _Text, typer.Option(metavar="FILE", help="Carry out the case that a run has written.")
    ] = None,
    json: Annotated[_Text, typer.Option(metavar="FILE", help="Write the result as JSON.")] = None,
    out: Annotated[
        str, typer.Option(metavar="DIR", help="Where a failing case is written.", show_default=True)
    ] = ".",
    dask: Annotated[
        _Text,
        typer.Option(
            metavar="ADDRESS", help="Run on the workers of this dask scheduler, e.g. tcp://host:8786."
        ),
    ] = None,
) -> int:
    """Attack DMA protection: hostile guests against engine and VMM, canaries around everything else.

    Exit status: 0, or 1 if a byte out of bounds was read or written, a neighbour lost a frame, or anything
    else went wrong; the case is then made small and written to a file, and the command that replays it shown.
    """
    if replay is not None:
        return _replay(replay)
    plan = FuzzPlan(
        seconds=_seconds(seconds),
        seed=_seed(seed),
        descriptors=_descriptors(descriptors),
        campaigns=_campaigns(campaign, attack),
        jobs=_jobs(jobs, dask),
        attack=None if attack is None else _attack(attack),
    )
    json_to = None if json is None else output.file_to_write("--json", json)
    cases_to = output.directory_to_write("--out", out)
    return _run(plan, dask, json_to, cases_to)


def _run(plan: FuzzPlan, dask: str | None, json_to: Path | None, cases_to: Path) -> int:
    from cdna.fuzz.runner import FuzzResult, fuzz
    from cdna.report.fuzz_table import fuzz_text

    result = FuzzResult(plan)
    with stop_signals() as ends:
        with _Watch(ends) as watch:
            fuzz(plan, result, watch, ends, dask)
        writes: list[output.Write] = [partial(output.show, fuzz_text(result, output.style()))]
        if json_to is not None:
            writes.append(partial(output.write_file, "--json", json_to, result.to_json()))
        if result.found is not None:
            writes.append(partial(_keep, result.found, cases_to))
        try:
            output.write_all(writes)
        except CdnaError as error:
            if not result.broken:
                raise
            _say(str(error))  # a full disk, for one; the status is the breach's
        if result.broken:
            return BROKEN
        if ends.is_set():
            raise Interrupted(f"interrupted after {result.seconds:.0f} s")
        return DONE


def _keep(found: "Found", place: Path) -> None:
    """Tell of the breach in a line, write its case, and tell what replays it. ResourceError."""
    steps = len(found.case.get("steps", ()))
    left = f"{steps} of {found.steps} steps are left" if found.steps else "it fails again"
    again = left if found.again else found.note or "it did not fail again: it races"
    _say(f"{found.kind}: {found.text} ({again})")
    path = place / found.name
    output.write_file("--out", path, found.to_json())
    shown = os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)
    _say(f"replay it with: cdna fuzz --replay {shown}")


def _say(text: str) -> None:
    """A line on standard error, where there is room for it."""
    with suppress(OSError):
        print(f"{PROGRAM}: {text}", file=sys.stderr, flush=True)


def _replay(name: str) -> int:
    from cdna.fuzz.runner import read_case, replay

    finding = replay(read_case(Path(name)))
    if finding is None:
        output.show(f"{name}: nothing is wrong any more\n")
        return DONE
    _say(f"{finding[0]}: {finding[1]}")
    return BROKEN


class _Watch:
    """Shows how far a run is: a table in its place on a terminal, a line now and then elsewhere."""

    def __init__(self, ends: Ends) -> None:
        self._ends = ends
        self._live = Live()
        self._next = time.monotonic() + LINES / 10
        self._note = ""

    def __enter__(self) -> "_Watch":
        self._live.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.__exit__(None, None, None)

    def __call__(self, result: "FuzzResult", note: str) -> None:
        from cdna.report.fuzz_table import line, live_table

        if self._live.shows:
            style = output.style()
            self._live.show(live_table(result, note, style), style)
        elif time.monotonic() >= self._next or (note and not self._note):
            self._next = time.monotonic() + LINES
            _say(note or line(result))
        self._note = note


# --- from the text of an option -----------------------------------------------------------------------------


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise BadSetting("seconds", text, "not a number; give a time in seconds, e.g. 60") from None


def _seed(text: str | None) -> int:
    if text is None:
        return int.from_bytes(os.urandom(4), "big")
    return arguments.integer("seed", text, "give one from 0 to 2^63 - 1")


def _descriptors(text: str | None) -> int:
    if text is None:
        return 0
    try:
        number = float(text)
        whole = int(number)
    except (ValueError, OverflowError):
        whole, number = -1, 0.0
    if whole != number or whole < 1:
        raise BadSetting("descriptors", text, "not a whole number above 0; give one, e.g. 1e9")
    return whole


def _campaigns(text: str | None, attack: str | None) -> tuple[str, ...]:
    if attack is None:
        return DEFAULT if text is None else arguments.words(text)
    if text is not None:
        raise BadSetting("campaign", text, "an attack of your own is the only campaign; leave it out")
    return (ATTACK,)


def _jobs(text: str | None, dask: str | None) -> int:
    if text is None:
        return len(os.sched_getaffinity(0))
    if dask is not None:
        raise BadSetting("jobs", text, "the threads of dask's workers are the jobs; leave it out")
    return arguments.integer("jobs", text, "give a number of processes from 1 to 1024")


def _attack(text: str) -> str:
    """FILE:CLASS, loaded once to see that it is there."""
    from cdna.fuzz.attack import resolve

    return resolve(text)
