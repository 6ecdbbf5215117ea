"""The published figures beside those of a run that have the same shape. Nothing is computed from them.

Each path declares its own. P. Willmann, J. Shafer, D. Carr, A. Menon, S. Rixner, A. L. Cox, W. Zwaenepoel,
"Concurrent Direct Network Access for Virtual Machine Monitors", HPCA 2007: ratios with 24 guests are of
Figures 3 and 4; profiles of Tables 2 to 4, one guest on RiceNIC, operating system and user added up. Testbed:
AMD Opteron 250 (2.4 GHz), Xen 3, Linux 2.6.16.29, two 1 Gb/s NICs, TCP streams. Taken down from memory of the
paper, not from its pages: every profile sums to 100, which supports them but does not verify them.
"""

from html import escape

from cdna.compare.path import ComparisonPath, Published
from cdna.compare.paths import paths
from cdna.compare.result import Comparison, Run
from cdna.report.summary import DIRECTIONS, spread
from cdna.report.table import profile

_NOT_MEASURED = "\N{EM DASH}"
_SOURCE = """Willmann et al., &ldquo;Concurrent Direct Network Access for Virtual Machine
Monitors&rdquo;, HPCA 2007. Taken down from memory of the paper, not from its pages. Measured there on an
Opteron of 2.4 GHz with two 1 Gb/s links, which CDNA filled and then left time idle: compare shapes and
ratios, not shares of idle."""


def published(comparison: Comparison) -> str:
    """Two HTML tables: the ratios with 24 guests, and the profiles with one guest."""
    ratios = [
        _ratio(comparison, path, direction, theirs)
        for path in paths().values()
        for direction, theirs in path.published_ratios
    ]
    profiles = [
        _profile(comparison, path, row)
        for direction in DIRECTIONS
        for path in paths().values()
        for row in path.published
        if row.direction == direction
    ]
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


def _ratio(comparison: Comparison, path: ComparisonPath, direction: str, theirs: float) -> str:
    ours = next(other for other in paths().values() if not other.baseline)
    run = _like(comparison, ours, direction, 24, ours.contenders()[0].variant)
    ratio = None if run is None or comparison.reference is not path else comparison.ratio(run)
    measured = "not measured" if ratio is None else spread(ratio, "\N{EN DASH}")
    name = escape(f"{DIRECTIONS[direction].lower()}: {ours.label} over the {path.label}")
    return f'<tr><td class="left">{name}</td><td class="theirs">{theirs}</td><td>{measured}</td></tr>'


def _profile(comparison: Comparison, path: ComparisonPath, row: Published) -> str:
    run = _like(comparison, path, row.direction, 1, row.variant, row.instead)
    theirs = [f"{part:.1f}" for part in (row.vmm, row.driver_domain, row.guests, row.idle)]
    ours = [_NOT_MEASURED] * 4 if run is None else [f"{100 * part:.1f}" for part in profile(run)]
    name = path.with_variant(row.variant).label if run is None else run.case.contender.label
    return (
        f'<tr><td class="left">{DIRECTIONS[row.direction].lower()}: {escape(name)}</td>'
        + "".join(f'<td class="theirs">{part}</td>' for part in theirs)
        + "".join(f"<td>{part}</td>" for part in ours)
        + "</tr>"
    )


def _like(
    comparison: Comparison, path: ComparisonPath, direction: str, guests: int, *variants: str
) -> Run | None:
    """The run that corresponds to a published one, of the first of these variants that was measured."""
    runs = [
        run
        for run in comparison.runs
        if (run.path, run.direction, run.guests, run.domains) == (path.name, direction, guests, "process")
    ]
    return next((run for name in variants for run in runs if run.case.contender.variant == name), None)
