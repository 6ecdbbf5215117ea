"""`cdna bench`: the native path alone, beside memcpy of the same frames."""

from functools import partial
from typing import Annotated

import typer

from cdna.bench.result import BenchPlan, BenchResult, BenchRow
from cdna.cli import arguments, output
from cdna.cli.exits import DONE, stop, until_stopped
from cdna.cli.progress import Display
from cdna.cli.runners import Runners
from cdna.compare.plan import SIZES
from cdna.report.table import bench_text

PROGRAM = "cdna bench"


def bench(
    context: typer.Context,
    sizes: Annotated[
        str, typer.Option(metavar="BYTES,...", help="Sizes of frames, without the FCS.")
    ] = "64,1514",
    seconds: Annotated[str, typer.Option(metavar="S", help="How long each row is measured.")] = str(
        BenchPlan.seconds
    ),
    json: Annotated[str | None, typer.Option(metavar="FILE", help="Write the result as JSON.")] = None,
) -> int:
    """Measure the native path: guest to wire, wire to guest and guest to guest, in each protection mode."""
    plan = BenchPlan(
        sizes=arguments.integers("sizes", sizes, f"{SIZES}, e.g. 64,1514"),
        seconds=arguments.seconds(seconds),
    )
    json_to = None if json is None else output.file_to_write("--json", json)

    runners: Runners = context.obj
    with Display[BenchRow](PROGRAM, _line) as display:
        result, reason = until_stopped(
            lambda: runners.bench(plan, display), lambda: BenchResult({}, display.finished)
        )
    text = bench_text(result, output.style())
    if reason is not None:
        output.show(text)
        stop(reason, len(result.rows))

    writes: list[output.Write] = [partial(output.show, text)]
    if json_to is not None:
        writes.append(partial(output.write_file, "--json", json_to, result.to_json()))
    output.write_all(writes)
    return DONE


def _line(row: BenchRow) -> str:
    mode = f", {row.protection}" if row.protection else ""
    return f"{row.path}, {row.size} B{mode}: {row.mpps:.3f} Mpps, {row.gbps:.2f} Gb/s"
