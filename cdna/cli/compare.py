"""`cdna compare`: CDNA against software bridging, on this machine, in one run."""

import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Any

import typer

from cdna.cli import arguments, output
from cdna.cli.exits import DONE, LOST, stop, until_stopped
from cdna.cli.progress import Display
from cdna.cli.runners import Runners
from cdna.compare.paths import paths
from cdna.compare.plan import DOMAINS, MAX_GUESTS, Plan, receives
from cdna.compare.result import Comparison, Run
from cdna.compare.vm.plan import LOADS, VmPlan
from cdna.compare.vm.result import VmRun
from cdna.errors import BadSetting, ConfigError
from cdna.report.table import comparison_text

PROGRAM = "cdna compare"
SYNTHETIC, VM = "synthetic", "vm"
GUESTS = (SYNTHETIC, VM)
SYNTHETIC_ONLY = ("guests", "direction", "size", "protection", "domains", "receive", "line_rate", "verify")
_PATHS, _RECEIVES = ",".join(paths()), ",".join(receives())
_VM_PATHS = " and ".join(path.vm.title for path in paths().values() if path.vm)


def _help(option: str) -> str:
    """What the paths say about an option of theirs."""
    return " ".join(path.help[option] for path in paths().values() if option in path.help)


def compare(
    context: typer.Context,
    guest: Annotated[
        str,
        typer.Option(
            metavar="|".join(GUESTS),
            help=f"Who the guests are: drivers alone, or virtual machines on {_VM_PATHS}.",
        ),
    ] = SYNTHETIC,
    load: Annotated[
        str, typer.Option(metavar=",".join(LOADS), help="Virtual machines: what one does to the other.")
    ] = ",".join(LOADS),
    guests: Annotated[
        str, typer.Option(metavar="N,...", help=f"Numbers of guests, from 1 to {MAX_GUESTS}.")
    ] = "1,2,4,8,16,24",
    direction: Annotated[
        str, typer.Option(metavar="tx,rx", help="Transmit (guest to wire), receive (wire to guest).")
    ] = "tx,rx",
    size: Annotated[
        str, typer.Option(metavar="BYTES|imix|FILE", help="Frames: all of one size, or as in a capture file.")
    ] = "1514",
    path: Annotated[
        str, typer.Option(metavar=_PATHS, help="Architectures; a ratio needs two, one of them a baseline.")
    ] = _PATHS,
    protection: Annotated[str, typer.Option(metavar="MODE,...", help=_help("protection"))] = "validated,none",
    domains: Annotated[
        str,
        typer.Option(
            metavar=",".join(DOMAINS),
            help="Domains as processes that are switched, or all in one process: no switches to pay.",
        ),
    ] = "process",
    receive: Annotated[str, typer.Option(metavar=_RECEIVES, help=_help("receive"))] = _RECEIVES,
    seconds: Annotated[str, typer.Option(metavar="S", help="How long each case is measured.")] = str(
        Plan.seconds
    ),
    line_rate: Annotated[
        str, typer.Option(metavar="RATE", help="Bits a second on the wire, e.g. 10G; 0 for no limit.")
    ] = "0",
    verify: Annotated[
        bool, typer.Option("--verify", help="Check every byte of every frame; a wrong one fails the run.")
    ] = False,
    json: Annotated[str | None, typer.Option(metavar="FILE", help="Write the result as JSON.")] = None,
    report: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Write the result as HTML, with plots: DIR/index.html."),
    ] = None,
) -> int:
    """Measure CDNA against software bridging: same guests, NIC, wire and load, in one run."""
    runners: Runners = context.obj
    if guest == VM:
        _check_unused(context, SYNTHETIC_ONLY, VM)
        settings: dict[str, Any] = {"load": arguments.words(load)}
        if _given(context, "path"):
            settings["path"] = arguments.words(path)
        if _given(context, "seconds"):
            settings["seconds"] = arguments.seconds(seconds)
        vm_plan = VmPlan(**settings)
        return _measure(lambda display: runners.compare_vm(vm_plan, display), _vm_line, report, json)
    if guest != SYNTHETIC:
        raise BadSetting("guest", guest, f"there is no such kind of guest; give {' or '.join(GUESTS)}")
    _check_unused(context, ("load",), SYNTHETIC)
    advice = f"give numbers from 1 to {MAX_GUESTS}, e.g. 1,2,4"
    plan = Plan(
        guests=arguments.integers("guests", guests, advice),
        direction=arguments.words(direction),
        size=arguments.size(size),
        path=arguments.words(path),
        protection=arguments.protections(protection),
        domains=arguments.words(domains),
        receive=arguments.words(receive),
        seconds=arguments.seconds(seconds),
        line_rate=arguments.line_rate(line_rate),
        verify=verify,
    )
    return _measure(lambda display: runners.compare(plan, display), _line, report, json)


def _measure(
    measure: Callable[[Display[Any]], Comparison],
    line: Callable[[Any], str],
    report: str | None,
    json: str | None,
) -> int:
    report_to = None if report is None else output.directory_to_write("--report", report)
    json_to = None if json is None else output.file_to_write("--json", json, coming=report_to)
    with Display[Any](PROGRAM, line) as display:
        comparison, reason = until_stopped(lambda: measure(display), lambda: _so_far(display.finished))
    text = comparison_text(comparison, output.style())
    if reason is not None:
        output.show(text)
        stop(reason, len(comparison.runs) + len(comparison.vm))

    writes: list[output.Write] = [partial(output.show, text)]
    if report_to is not None:
        writes.append(partial(output.write_directory, "--report", report_to, lambda: _report(comparison)))
    if json_to is not None:
        writes.append(partial(output.write_file, "--json", json_to, comparison.to_json()))
    output.write_all(writes)
    if report_to is not None:
        output.show(f"\nreport: {report_to / 'index.html'}\n")
    return _verdict(comparison)


def _so_far(finished: list[Any]) -> Comparison:
    return Comparison(
        {},
        [run for run in finished if isinstance(run, Run)],
        [run for run in finished if isinstance(run, VmRun)],
    )


def _given(context: typer.Context, option: str) -> bool:
    source = context.get_parameter_source(option)
    return source is not None and source.name != "DEFAULT"


def _check_unused(context: typer.Context, options: Sequence[str], guest: str) -> None:
    for option in options:
        if _given(context, option):
            value = context.params[option]
            given = "" if isinstance(value, bool) else f" {value}"
            advice = f"says nothing about {guest} guests; leave it out"
            raise ConfigError(f"--{option.replace('_', '-')}{given}: {advice}")


def _vm_line(run: VmRun) -> str:
    digits = 0 if run.less_is_better else 3
    return f"{run.case}: {run.quantity} {run.value:.{digits}f} {run.unit}"


def _line(run: Run) -> str:
    return f"{run.case}: {run.mpps:.3f} Mpps, {run.gbps:.2f} Gb/s"


def _report(comparison: Comparison) -> dict[str, str]:
    from cdna.report.html import report  # matplotlib takes a while to import

    return {"index.html": report(comparison), "comparison.json": comparison.to_json()}


def _verdict(comparison: Comparison) -> int:
    lossy = [run for run in comparison.runs if run.lost]
    for run in lossy:
        print(f"{PROGRAM}: {run.case}: {run.lost} frames lost; its figures do not count", file=sys.stderr)
    return LOST if lossy else DONE
