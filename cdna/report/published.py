"""The published figures beside those of a run that have the same shape. Nothing is computed from them."""

import tomllib
from html import escape
from importlib.resources import files
from typing import Any

from cdna.compare.result import Comparison, Run
from cdna.report.plots import label
from cdna.report.summary import DIRECTIONS, spread
from cdna.report.table import profile

_NOT_MEASURED = "\N{EM DASH}"
_SOURCE = """Willmann et al., &ldquo;Concurrent Direct Network Access for Virtual Machine
Monitors&rdquo;, HPCA 2007. Taken down from memory of the paper, not from its pages. Measured there on an
Opteron of 2.4 GHz with two 1 Gb/s links, which CDNA filled and then left time idle: compare shapes and
ratios, not shares of idle."""


def published(comparison: Comparison) -> str:
    """Two HTML tables: the ratios with 24 guests, and the profiles with one guest."""
    figures = tomllib.loads(files("cdna.report").joinpath("published.toml").read_text(encoding="utf-8"))
    ratios = [_ratio(comparison, direction, theirs) for direction, theirs in figures["at_24_guests"].items()]
    profiles = [_profile(comparison, row) for row in figures["one_guest"]]
    names = [
        f'<th scope="col"{style}>{name}</th>'
        for style in (' class="theirs"', "")
        for name in ("VMM", "driver", "guests", "idle")
    ]
    return f"""<p class="note">{_SOURCE}</p>
<div class="scroll"><table><thead><tr><th scope="col" class="left">throughput with 24 guests</th>
<th scope="col" class="theirs">published, as recorded here</th><th scope="col">this run</th></tr></thead>
<tbody>{"".join(ratios)}</tbody></table>
<table><thead><tr><td></td><th scope="colgroup" colspan="4" class="theirs">published, as recorded here</th>
<th scope="colgroup" colspan="4">this run</th></tr>
<tr><th scope="col" class="left">host time with one guest, %</th>{"".join(names)}</tr></thead>
<tbody>{"".join(profiles)}</tbody></table></div>"""


def _ratio(comparison: Comparison, direction: str, theirs: float) -> str:
    run = _like(comparison, direction, "cdna validated", 24)
    ratio = None if run is None else comparison.ratio(run)
    ours = "not measured" if ratio is None else spread(ratio, "\N{EN DASH}")
    return (
        f'<tr><td class="left">{DIRECTIONS[direction].lower()}: CDNA over the bridge</td>'
        f'<td class="theirs">{theirs}</td><td>{ours}</td></tr>'
    )


def _profile(comparison: Comparison, row: dict[str, Any]) -> str:
    run = _like(comparison, row["direction"], row["contender"], 1)
    theirs = [f"{row[account]:.1f}" for account in ("vmm", "driver_domain", "guests", "idle")]
    ours = [_NOT_MEASURED] * 4 if run is None else [f"{100 * part:.1f}" for part in profile(run)]
    name = label(row["contender"] if run is None else run.case.contender)
    return (
        f'<tr><td class="left">{DIRECTIONS[row["direction"]].lower()}: {escape(name)}</td>'
        + "".join(f'<td class="theirs">{part}</td>' for part in theirs)
        + "".join(f"<td>{part}</td>" for part in ours)
        + "</tr>"
    )


def _like(comparison: Comparison, direction: str, contender: str, guests: int) -> Run | None:
    """The run that corresponds to a published one. Xen received by flipping pages then."""
    runs = [run for run in comparison.runs if run.direction == direction and run.guests == guests]
    for name in (contender, f"{contender} flip", f"{contender} copy"):
        for run in runs:
            if run.case.contender == name and run.domains == "process":
                return run
    return None
