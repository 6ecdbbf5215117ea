"""Results as tables of text, for a terminal and for a file."""

from rich.table import Table

from cdna.bench.result import BARE_RING, BenchResult, BenchRow
from cdna.compare.result import Comparison, Run
from cdna.report.style import Style
from cdna.report.summary import (
    DIRECTIONS,
    DOMAINS,
    bench_sentences,
    disturbance_sentences,
    frames,
    mark,
    middle_half,
    sentences,
)
from cdna.report.vm_table import vm_sentences, vm_table


def comparison_text(comparison: Comparison, style: Style) -> str:
    """A table for each direction, then what they say. Nothing when nothing was measured."""
    if not comparison.runs and not comparison.vm:
        return ""
    parts: list[Table | str] = []
    for (domains, direction, size), runs in comparison.sections().items():
        title = f"{DIRECTIONS[direction]}, {frames(size)}, {DOMAINS[domains]}"
        parts += ["", title, _comparison_table(comparison, runs, style)]
    if comparison.vm:
        parts += ["", f"Virtual machines, {comparison.host.get('vm', '')}".rstrip(", ")]
        parts += [vm_table(comparison, style)]
    parts += ["", *sentences(comparison, style.dash), *vm_sentences(comparison, style.dash)]
    parts += disturbance_sentences(comparison)
    return style.render(*parts)


def _comparison_table(comparison: Comparison, runs: list[Run], style: Style) -> Table:
    table = _runs_table(comparison, runs, style, interrupts=True)
    return table if style.fits(table) else _runs_table(comparison, runs, style, interrupts=False)


def _runs_table(comparison: Comparison, runs: list[Run], style: Style, interrupts: bool) -> Table:
    table = style.table()
    table.add_column("guests", justify="right", no_wrap=True)
    table.add_column("path", no_wrap=True)
    headings = [
        "Mpps",
        "Gb/s",
        f"times\n{comparison.reference.label}",
        "middle\nhalf",
        "VMM\n%",
        "drv.\n%",
        "guest\n%",
        "idle\n%",
    ]
    headings += [
        "cycles\n/frame",
        *(("NIC\nirq/s", "drv.\nirq/s", "guest\nirq/s") if interrupts else ()),
        "lost",
    ]
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for i, run in enumerate(runs):
        first = i == 0 or runs[i - 1].guests != run.guests
        if first and i:
            table.add_section()
        irq, contender = run.interrupts, run.case.contender
        table.add_row(
            str(run.guests) if first else "",
            (contender.look.short or contender.name) + mark(run.disturbance),
            figure(run.mpps),
            figure(run.gbps),
            *_to_baseline(comparison, run, style),
            *(f"{100 * part:.0f}" for part in profile(run)),
            f"{run.host_cycles_per_frame:.0f}",
            *map(short, (irq.physical_per_s, irq.driver_domain_per_s, irq.guest_per_s) if interrupts else ()),
            str(run.lost),
            style="bold" if contender.is_main else "",
        )
    return table


def _to_baseline(comparison: Comparison, run: Run, style: Style) -> tuple[str, str]:
    """The ratio, and its quartiles over pairs of slices."""
    ratio = comparison.ratio(run)
    if ratio is None or comparison.baseline(run) is run:
        return "" if ratio is None else "1", ""
    return f"{ratio.median:.2f}", middle_half(ratio, style.dash)


def bench_text(result: BenchResult, style: Style) -> str:
    """One table, then what it says. Nothing when nothing was measured."""
    if not result.rows:
        return ""
    table = style.table()
    table.add_column("path", no_wrap=True)
    table.add_column("size", justify="right", no_wrap=True)
    table.add_column("protection", no_wrap=True)
    headings = (
        "contexts",
        "Mpps",
        "Gb/s",
        "memcpy\nMpps",
        "of\nmemcpy",
        "middle\nhalf",
        "of bare\nring",
        "of none",
    )
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for i, row in enumerate(result.rows):
        if i and (row.path, row.size) != (result.rows[i - 1].path, result.rows[i - 1].size):
            table.add_section()
        table.add_row(*_bench_cells(result, row, style))
    said = bench_sentences(result, style.dash)
    return style.render("", "The native path, one guest to one other end", table, "", *said)


def _bench_cells(result: BenchResult, row: BenchRow, style: Style) -> list[str]:
    ratios = (result.to_bare_ring(row), result.to_none(row))
    return [
        row.path,
        str(row.size),
        row.protection or "",
        "" if row.path == BARE_RING else str(row.contexts),
        figure(row.mpps),
        figure(row.gbps),
        "" if row.memcpy_mpps is None else figure(row.memcpy_mpps),
        "" if row.ratio_to_memcpy is None else f"{row.ratio_to_memcpy:.2f}",
        "" if row.spread is None else f"{row.spread[0]:.2f}{style.dash}{row.spread[1]:.2f}",
        *("" if ratio is None else f"{ratio.median:.2f}" for ratio in ratios),
    ]


def profile(run: Run) -> tuple[float, float, float, float]:
    """The fractions in the order of every table and plot: VMM, driver domain, guests, idle."""
    return run.profile.vmm, run.profile.driver_domain, run.profile.guests, run.profile.idle


def figure(value: float) -> str:
    """Three or four digits: 0.123, 12.34, 123.4."""
    return f"{value:.3f}" if value < 10 else f"{value:.2f}" if value < 100 else f"{value:.1f}"


def short(value: float) -> str:
    """A rate in five characters: 950, 12.3k, 1.25M."""
    if value < 999.5:
        return f"{value:.0f}"
    if value < 999_950:
        return f"{value / 1e3:.1f}k" if value < 99_950 else f"{value / 1e3:.0f}k"
    return f"{value / 1e6:.2f}M"
