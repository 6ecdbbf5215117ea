"""Figures of virtual machines: a table of text, the cells of a page's table, and what they say."""

from rich.table import Table

from cdna.compare.result import Comparison
from cdna.compare.vm.plan import LATENCY, TCP, UDP
from cdna.compare.vm.result import VmRun
from cdna.report.style import Style
from cdna.report.summary import mark, middle_half, spread

LOADS = {TCP: "TCP", UDP: "UDP, 64 B frames", LATENCY: "round trip"}
QUANTITIES = {"throughput": "", "median": ", median", "p99": ", p99"}
COLUMNS = (
    ("load", ""),
    ("path", ""),
    ("figure", ""),
    ("unit", ""),
    ("times", "bridge"),
    ("middle", "half"),
    ("QEMU", "% of a core"),
    ("server", "% of a core"),
    ("kernel", "% of a core"),
    ("all", "% of a core"),
)


def vm_table(comparison: Comparison, style: Style) -> Table:
    table = style.table()
    for i, heading in enumerate(COLUMNS):
        text = "\n".join(part.replace(" of a core", "") for part in heading).rstrip()
        table.add_column(text, justify="left" if i in (0, 1, 3) else "right", no_wrap=True)
    for i, (load, run) in enumerate(zip(_loads(comparison), comparison.vm, strict=True)):
        if load and i:
            table.add_section()
        table.add_row(load, *cells(comparison, run, style.dash), style="bold" if run.path == "cdna" else "")
    return table


def cells(comparison: Comparison, run: VmRun, dash: str) -> list[str]:
    """A row but for its first cell, in the order of COLUMNS."""
    ratio = comparison.vm_ratio(run)
    bridge = run.path == "bridge"
    return [
        run.path + mark(run.disturbance),
        f"{run.value:.0f}" if run.less_is_better else f"{run.value:.3f}",
        run.unit,
        "" if ratio is None else "1" if bridge else f"{ratio.median:.2f}",
        "" if ratio is None or bridge else middle_half(ratio, dash),
        *(f"{100 * part:.0f}" for part in (run.cpu.guests, run.cpu.server, run.cpu.kernel, run.cpu.total)),
    ]


def load_name(run: VmRun) -> str:
    """What a figure is of: "TCP", "round trip, p99"."""
    return LOADS[run.load] + QUANTITIES[run.quantity]


def _loads(comparison: Comparison) -> list[str]:
    """The first cell of each row: the load, where it is another than in the row before."""
    names = [load_name(run) for run in comparison.vm]
    return [name if i == 0 or names[i - 1] != name else "" for i, name in enumerate(names)]


def vm_sentences(comparison: Comparison, dash: str = "-") -> list[str]:
    """A sentence for each load that both paths had."""
    said = []
    for run in comparison.vm:
        ratio = comparison.vm_ratio(run)
        if run.path != "cdna" or ratio is None:
            continue
        digits = 0 if run.less_is_better else 3
        better = ", less is better" if run.less_is_better else ""
        said.append(
            f"Virtual machines, {load_name(run)}: CDNA {run.value:.{digits}f} {run.unit}, "
            f"{spread(ratio, dash)} times the bridge{better}."
        )
    return said
