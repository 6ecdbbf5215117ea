"""Figures of virtual machines: a table of text, the cells of a page's table, and what they say."""

from rich.table import Table

from cdna.compare.paths import path_named
from cdna.compare.result import Comparison
from cdna.compare.vm.plan import LATENCY, TCP, UDP
from cdna.compare.vm.result import VmRun
from cdna.report.style import Style
from cdna.report.summary import mark, middle_half, spread

LOADS = {TCP: "TCP", UDP: "UDP, 64 B frames", LATENCY: "round trip"}
QUANTITIES = {"throughput": "", "median": ", median", "p99": ", p99"}


def columns(comparison: Comparison) -> tuple[tuple[str, str], ...]:
    """The headings of a table, in two lines each."""
    return (
        ("load", ""),
        ("path", ""),
        ("figure", ""),
        ("unit", ""),
        ("times", comparison.reference.label),
        ("middle", "half"),
        *((name, "% of a core") for name in ("QEMU", "server", "kernel", "all")),
    )


def vm_table(comparison: Comparison, style: Style) -> Table:
    table = style.table()
    for i, heading in enumerate(columns(comparison)):
        text = "\n".join(part.replace(" of a core", "") for part in heading).rstrip()
        table.add_column(text, justify="left" if i in (0, 1, 3) else "right", no_wrap=True)
    for i, (load, run) in enumerate(zip(_loads(comparison), comparison.vm, strict=True)):
        if load and i:
            table.add_section()
        table.add_row(load, *cells(comparison, run, style.dash), style="" if is_baseline(run) else "bold")
    return table


def cells(comparison: Comparison, run: VmRun, dash: str) -> list[str]:
    """A row but for its first cell, in the order of `columns`."""
    ratio = comparison.vm_ratio(run)
    reference = run.path == comparison.reference.name
    return [
        run.path + mark(run.disturbance),
        f"{run.value:.0f}" if run.less_is_better else f"{run.value:.3f}",
        run.unit,
        "" if ratio is None else "1" if reference else f"{ratio.median:.2f}",
        "" if ratio is None or reference else middle_half(ratio, dash),
        *(f"{100 * part:.0f}" for part in (run.cpu.guests, run.cpu.server, run.cpu.kernel, run.cpu.total)),
    ]


def is_baseline(run: VmRun) -> bool:
    return path_named(run.path).baseline


def load_name(run: VmRun) -> str:
    """What a figure is of: "TCP", "round trip, p99"."""
    return LOADS[run.load] + QUANTITIES[run.quantity]


def _loads(comparison: Comparison) -> list[str]:
    """The first cell of each row: the load, where it is another than in the row before."""
    names = [load_name(run) for run in comparison.vm]
    return [name if i == 0 or names[i - 1] != name else "" for i, name in enumerate(names)]


def vm_sentences(comparison: Comparison, dash: str = "-") -> list[str]:
    """A sentence for each load and path that has a baseline to compare with."""
    said = []
    for run in comparison.vm:
        ratio = comparison.vm_ratio(run)
        if is_baseline(run) or ratio is None:
            continue
        digits = 0 if run.less_is_better else 3
        better = ", less is better" if run.less_is_better else ""
        said.append(
            f"Virtual machines, {load_name(run)}: {path_named(run.path).label} {run.value:.{digits}f} "
            f"{run.unit}, {spread(ratio, dash)} times the {comparison.reference.label}{better}."
        )
    return said
