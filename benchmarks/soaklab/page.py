"""A soak as one HTML page that needs nothing else."""

from __future__ import annotations

from html import escape
from importlib.resources import files
from string import Template

from cdna.report import plots

from .run import Result
from .samples import UNITS

_PAGE = """
<main>
<header>
<h1>$title</h1>
<p class="lead">$lead</p>
</header>
<div class="tiles">$tiles</div>
$failures
<h2>Honest guests</h2>
<div class="panel scroll">$honest</div>
<h2>Hostile guests</h2>
<div class="panel scroll">$hostile</div>
<h2>What is held</h2>
<p class="note">Written down while every guest that comes and goes is gone. Growth is that of a straight line
through the samples but for the first quarter, over their whole time.</p>
<div class="figures">$figures</div>
$trends
<h2>The host</h2>
<table class="facts"><tbody>$host</tbody></table>
</main>
</body>
</html>
"""


def page(result: Result) -> str:
    head, _, _ = files("cdna.report").joinpath("report.html").read_text(encoding="utf-8").partition("<main>")
    hours = (
        f"{result.seconds / 3600:.2g} hours" if result.seconds >= 3600 else f"{result.seconds:.0f} seconds"
    )
    verdict = "no frame was lost, and nothing grows" if not result.failures else "failed"
    comings = sum(counts.comings for counts in result.honest.values())
    dropped = sum(counts.dropped.total() for counts in result.honest.values())
    tiles = [
        (f"{result.frames / 1e6:,.1f} M", "honest frames, each of them compared"),
        (f"{result.lost}", f"lost; {dropped} dropped for a reason"),
        (f"{result.acts:,}", "attacks"),
        (f"{comings:,}", "honest guests came and went"),
    ]
    return Template(head + _PAGE).substitute(
        **plots.palette(),
        title="CDNA, soaked",
        lead=escape(f"{hours}: {verdict}. Seed {result.seed}."),
        tiles="".join(
            f'<div class="tile"><b>{figure}</b><span>{text}</span></div>' for figure, text in tiles
        ),
        failures="".join(f"<p><strong>{escape(text)}</strong></p>" for text in result.failures),
        honest=_honest(result),
        hostile=_hostile(result),
        figures=_figures(result),
        trends="".join(_trends(result, process) for process in result.trends),
        host="".join(
            f'<tr><th scope="row">{escape(name)}</th><td>{escape(str(value))}</td></tr>'
            for name, value in result.host.items()
        ),
    )


def _table(head: list[str], rows: list[list[str]]) -> str:
    names = "".join(
        f'<th scope="col"{" class=left" * (i == 0)}>{escape(name)}</th>' for i, name in enumerate(head)
    )
    body = "".join(
        "<tr>"
        + "".join(f"<td{' class=left' * (i == 0)}>{escape(cell)}</td>" for i, cell in enumerate(row))
        + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{names}</tr></thead><tbody>{body}</tbody></table>"


def _honest(result: Result) -> str:
    rows = []
    for name, counts in result.honest.items():
        dropped = ", ".join(f"{reason} {n}" for reason, n in counts.dropped.items() if n) or "0"
        figures = (
            f"{counts.sent:,}",
            f"{counts.received:,}",
            dropped,
            f"{counts.lost:,}",
            f"{counts.comings:,}",
        )
        rows.append([name, *figures])
    rows += [[name, "left out", why, "", "", ""] for name, why in result.left_out.items()]
    return _table(["guests", "frames sent", "received", "dropped", "lost", "came and went"], rows)


def _hostile(result: Result) -> str:
    rows = [
        [
            name,
            f"{sum(kind['acts'].values()):,}",
            ", ".join(f"{r} {n:,}" for r, n in sorted(kind["faults"].items())),
        ]
        for name, kind in result.hostile.items()
    ]
    return _table(["guests", "attacks", "stopped or sent away"], rows)


def _figures(result: Result) -> str:
    drawn = [("frames", "honest frames a second", {"frames": result.rates})]
    for process, samples in result.samples.items():
        of = "" if process == "soak" else f", {process}"
        memory = {name: samples[name] for name in ("rss", "pss")}
        counts = {name: samples[name] for name in samples if name not in memory}
        drawn.append((f"memory-{process}", f"memory{of}, MiB", memory))
        drawn.append((f"counts-{process}", f"descriptors, mappings, threads, pages{of}", counts))
    return "".join(
        f"<figure><h3>{escape(title)}</h3>{plots.over_time(result.times, lines, identity, title)}</figure>"
        for identity, title, lines in drawn
    )


def _trends(result: Result, process: str) -> str:
    rows = [
        [
            f"{line.name}, {UNITS[line.name]}" if line.name in UNITS else line.name,
            *(f"{figure:,.1f}" for figure in (line.first, line.last, line.most, line.growth, line.tolerance)),
            "grows" if line.grows else "flat",
        ]
        for line in result.trends[process]
    ]
    table = _table([f"held by {process}", "first", "last", "most", "growth", "allowed", ""], rows)
    return f'<h3>{escape(process)}</h3><div class="panel scroll">{table}</div>'
