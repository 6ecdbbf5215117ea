"""A comparison as one HTML page that needs nothing else: plots, tables, and how to read them."""

from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

from cdna.compare.path import ComparisonPath
from cdna.compare.paths import paths
from cdna.compare.result import Comparison, Ratio, Run
from cdna.compare.vm.result import VmRun
from cdna.report import plots
from cdna.report.published import published
from cdna.report.summary import (
    DIRECTIONS,
    DOMAINS,
    Finding,
    disturbance_sentences,
    findings,
    frames,
    mark,
    middle_half,
    number_of,
    sentences,
    spread,
)
from cdna.report.table import figure, profile
from cdna.report.vm_table import cells, columns, is_baseline, load_name, vm_sentences

DASH = "\N{EN DASH}"
TIMES = "\N{MULTIPLICATION SIGN}"

_FACTS = {
    "cpu": "processor",
    "cores": "cores to use",
    "host_core": "core of the domains",
    "nic_core": "core of the NIC",
    "tsc_mhz": "cycle counter, MHz",
    "governor": "frequency governor",
    "virtualized": "virtual machine",
    "cdna": "cdna version",
    "vm": "virtual machines",
}


def report(comparison: Comparison) -> str:
    """The page, as text. Raises `ValueError` when there are no runs to show."""
    if comparison.vm:
        return vm_report(comparison)
    if not comparison.runs:
        raise ValueError("a comparison without runs has nothing to report; measure at least one case")
    sections = list(comparison.sections().items())
    sizes = ", ".join(dict.fromkeys(frames(run.size) for run in comparison.runs))
    present = [path for path in paths().values() if any(run.path == path.name for run in comparison.runs)]
    template = files("cdna.report").joinpath("report.html").read_text(encoding="utf-8")
    return Template(template).substitute(
        **plots.palette(),
        title=_title({path.title: path.baseline for path in present}),
        lead=escape(f"{sizes}. {_host_in_a_line(comparison)}"),
        tiles="\n".join(_tiles(finding, comparison.reference) for finding in findings(comparison)),
        sentences=_paragraphs([*sentences(comparison, DASH), *disturbance_sentences(comparison)]),
        throughput="\n".join(_throughput(i, *key, runs) for i, (key, runs) in enumerate(sections)),
        profiles="\n".join(_profiles(i, *key, runs) for i, (key, runs) in enumerate(sections)),
        tables="\n".join(_table(comparison, *key, runs) for key, runs in sections),
        published=published(comparison),
        host=_host(comparison),
        readings=_readings({path.label: path.reading for path in present}),
    )


def _title(titles: Mapping[str, bool]) -> str:
    """Who is measured against whom. titles: of the paths, and whether each is a baseline."""
    ours, baselines = (
        " and ".join(title for title in titles if titles[title] is wanted) for wanted in (False, True)
    )
    return escape(f"{ours} against {baselines}" if ours and baselines else f"{ours or baselines}, measured")


def _readings(texts: Mapping[str, str]) -> str:
    return "\n".join(
        f"<dt>{escape(name[:1].upper() + name[1:])}</dt>\n<dd>{escape(text)}</dd>"
        for name, text in texts.items()
    )


def _paragraphs(texts: Sequence[str]) -> str:
    return "\n".join(f"<p>{escape(text)}</p>" for text in texts)


def vm_report(comparison: Comparison) -> str:
    """The page of virtual machines: the same head, other contents."""
    measured = {run.path for run in comparison.vm}
    sides = [(path, path.vm) for path in paths().values() if path.vm and path.name in measured]
    package = files("cdna.report")
    head, _, _ = package.joinpath("report.html").read_text(encoding="utf-8").partition("<main>")
    contents = package.joinpath("vm_report.html").read_text(encoding="utf-8")
    return Template(head + contents).substitute(
        **plots.palette(),
        title=_title({side.title: path.baseline for path, side in sides}) + ": virtual machines",
        lead=escape(f"{comparison.host.get('vm', '')}. {_host_in_a_line(comparison)}".lstrip(". ")),
        tiles="".join(_vm_tile(comparison, run) for run in comparison.vm if not is_baseline(run)),
        sentences=_paragraphs([*vm_sentences(comparison, DASH), *disturbance_sentences(comparison)]),
        table=_vm_table(comparison),
        host=_host(comparison),
        readings=_readings({path.label: side.reading for path, side in sides}),
    )


def _vm_tile(comparison: Comparison, run: VmRun) -> str:
    ratio = comparison.vm_ratio(run)
    digits = 0 if run.less_is_better else 3
    small = f"{spread(ratio, DASH)} times the {comparison.reference.label}" if ratio is not None else ""
    small += ", less is better" if run.less_is_better else ""
    return _tile(f"{run.value:.{digits}f}", f"{run.unit}, {load_name(run)}", small)


def _vm_table(comparison: Comparison) -> str:
    head = "".join(
        f'<th scope="col"{" class=left" * (i == 0)}>{name}<small>{unit or "&nbsp;"}</small></th>'
        for i, (name, unit) in enumerate(columns(comparison))
    )
    rows = []
    for i, run in enumerate(comparison.vm):
        first = i == 0 or comparison.vm[i - 1].group != run.group
        classes = " ".join(["first"] * first + ["main"] * (not is_baseline(run)))
        name = escape(load_name(run)) if first else ""
        path, *others = cells(comparison, run, DASH)
        row = "".join(f"<td>{escape(cell)}</td>" for cell in others)
        rows.append(
            f'<tr class="{classes}"><td class="left">{name}</td><td class="left">{path}</td>{row}</tr>'
        )
    return f'<table class="runs"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'


def _host(comparison: Comparison) -> str:
    return "\n".join(
        f'<tr><th scope="row">{escape(_FACTS.get(name, name))}</th><td>{escape(_fact(value))}</td></tr>'
        for name, value in comparison.host.items()
    )


def _host_in_a_line(comparison: Comparison) -> str:
    host = comparison.host
    parts = [str(host[name]) for name in ("cpu", "kernel", "date") if host.get(name)]
    return f"Measured on {', '.join(parts)}." if parts else ""


def _fact(value: Any) -> str:
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)


def _heading(domains: str, direction: str, size: int | str) -> str:
    return f"{DIRECTIONS[direction]}, {frames(size)}" + ("" if domains == "process" else f", {domains}")


def _tiles(finding: Finding, reference: ComparisonPath) -> str:
    """A row: what one direction says at its largest number of guests, as large figures."""
    run, ratio, contender = finding.run, finding.to_baseline, finding.run.case.contender
    where = "" if run.domains == "process" else f", {run.domains}"
    heading = f"{DIRECTIONS[run.direction]}, {number_of(run.guests, 'guest')}{where}"
    tiles = []
    if ratio is not None:
        tiles.append(_tile(f"{ratio.median:.2f}{TIMES}", f"the {reference.label}", _pairs(ratio)))
    tiles.append(_tile(figure(run.gbps), "Gb/s", f"{contender.label}; {figure(run.mpps)} Mpps"))
    if finding.to_fewest is not None:
        text = f"of {contender.path.label} with {number_of(finding.fewest, 'guest')}"
        tiles.append(_tile(f"{finding.to_fewest:.2f}", text, "how throughput holds as guests are added"))
    if finding.to_none is not None:
        none = finding.to_none
        tiles.append(
            _tile(f"{none.median:.3f}", f"of {contender.path.label} without protection", _pairs(none, 3))
        )
    return f'<h3>{escape(heading)}</h3><div class="tiles">{"".join(tiles)}</div>'


def _pairs(ratio: Ratio, digits: int = 2) -> str:
    return (
        f"half of {ratio.pairs} pairs of slices: {middle_half(ratio, DASH, digits)}"
        if ratio.pairs > 1
        else ""
    )


def _tile(value: str, text: str, small: str) -> str:
    return f'<div class="tile"><b>{value}</b><span>{escape(text)}</span><small>{escape(small)}</small></div>'


def _throughput(index: int, domains: str, direction: str, size: int | str, runs: Sequence[Run]) -> str:
    heading = _heading(domains, direction, size)
    svg = plots.throughput(runs, f"t{index}", f"{heading}: throughput and idle over the number of guests")
    return f"<figure><h3>{escape(heading)}</h3>{svg}</figure>"


def _profiles(index: int, domains: str, direction: str, size: int | str, runs: Sequence[Run]) -> str:
    heading = _heading(domains, direction, size)
    description = f"{heading}: share of host time by domain, path and number of guests"
    svg = plots.profiles(runs, f"p{index}", description)
    return f'<figure class="wide"><h3>{escape(heading)}</h3><div class="scroll">{svg}</div></figure>'


_COLUMNS = (
    ("guests", ""),
    ("path", ""),
    ("Mpps", ""),
    ("Gb/s", ""),
    ("times $reference", "middle half"),
    ("VMM", "% of time"),
    ("driver", "% of time"),
    ("guests", "% of time"),
    ("idle", "% of time"),
    ("cycles", "a frame"),
    ("NIC", "irq/s"),
    ("driver", "irq/s"),
    ("guests", "irq/s"),
    ("lost", "frames"),
)


def _table(comparison: Comparison, domains: str, direction: str, size: int | str, runs: Sequence[Run]) -> str:
    head = "".join(f'<th scope="col">{name}<small>{unit or "&nbsp;"}</small></th>' for name, unit in _COLUMNS)
    head = head.replace("$reference", escape(comparison.reference.label))
    rows = []
    for i, run in enumerate(runs):
        first = i == 0 or runs[i - 1].guests != run.guests
        classes = " ".join(["first"] * first + ["main"] * run.case.contender.is_main)
        count = f'<th scope="row">{run.guests}</th>' if first else "<td></td>"
        rows.append(f'<tr class="{classes}">{count}{_path(run)}{_cells(comparison, run)}</tr>')
    return f"""<h3>{escape(f"{DIRECTIONS[direction]}, {frames(size)}, {DOMAINS[domains]}")}</h3>
<div class="panel scroll"><table class="runs"><thead><tr>{head}</tr></thead>
<tbody>{"".join(rows)}</tbody></table></div>"""


def _path(run: Run) -> str:
    contender = run.case.contender
    dot = f'<span class="dot" style="background: var(--{plots.variable(contender.name)})"></span>'
    return f'<td class="left">{dot}{escape(contender.label)}{mark(run.disturbance)}</td>'


def _cells(comparison: Comparison, run: Run) -> str:
    ratio = comparison.ratio(run)
    irq = run.interrupts
    if ratio is None:
        to_baseline = ""
    else:
        to_baseline = "1" if comparison.baseline(run) is run else spread(ratio, DASH)
    cells = [figure(run.mpps), figure(run.gbps), to_baseline]
    cells += [f"{100 * part:.1f}" for part in profile(run)]
    cells += [f"{run.host_cycles_per_frame:,.0f}"]
    cells += [f"{rate:,.0f}" for rate in (irq.physical_per_s, irq.driver_domain_per_s, irq.guest_per_s)]
    lost = f'<td class="bad">{run.lost:,}</td>' if run.lost else "<td>0</td>"
    return "".join(f"<td>{cell}</td>" for cell in cells) + lost
