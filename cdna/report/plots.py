"""The paper's two shapes as SVG for a page: throughput and idle over guests, and execution profiles.

matplotlib draws with colours that only stand for CSS variables; the page says what they are on a light
and on a dark background.
"""

import io
import re
from collections.abc import Mapping, Sequence
from html import escape
from itertools import pairwise
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from cdna.compare.path import Contender
from cdna.compare.paths import contenders
from cdna.compare.result import Run, quartiles
from cdna.report.table import profile

ACCOUNTS = ("VMM", "driver domain", "guests", "idle")


def variable(name: str) -> str:
    """The CSS variable that holds the colour of a contender or an account."""
    return re.sub(r"\W", "-", name)


_INK, _MUTED, _GRID = "#010101", "#010102", "#010103"
_SERIES = {name: f"#0102{i:02x}" for i, name in enumerate(contenders())}
_PARTS = {name: f"#0103{i:02x}" for i, name in enumerate(ACCOUNTS)}
_VARIABLES = {_INK: "ink", _MUTED: "muted", _GRID: "grid"}
_VARIABLES |= {colour: variable(name) for name, colour in (_SERIES | _PARTS).items()}

_MANY_TICKS = 12
_PANELS = 4  # profiles beside each other

_SETTINGS = {
    "svg.fonttype": "none",  # text stays text
    "font.size": 10,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _MUTED,
    "xtick.color": _MUTED,
    "ytick.color": _MUTED,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "grid.color": _GRID,
    "axes.spines.top": False,
    "axes.titlesize": 10,
    "legend.frameon": False,
}


def _settings(identity: str) -> Any:
    """Any: matplotlib types its settings by a list of names that differs between its versions."""
    return {**_SETTINGS, "svg.hashsalt": identity}


def palette() -> dict[str, str]:
    """The contenders' colours as a page's style defines them, on a light and on a dark background."""
    looks = {variable(name): contender.look for name, contender in contenders().items()}
    return {
        "colours": " ".join(f"--{name}: {look.light};" for name, look in looks.items()),
        "dark_colours": " ".join(f"--{name}: {look.dark};" for name, look in looks.items()),
    }


def _present(runs: Sequence[Run]) -> list[Contender]:
    """The contenders of these runs, in the order of every legend."""
    present = {run.case.contender.name for run in runs}
    return [contender for name, contender in contenders().items() if name in present]


def throughput(runs: Sequence[Run], identity: str, description: str) -> str:
    """Gb/s as lines and idle as dashed lines over the number of guests, as in Figures 3 and 4.

    runs: of one direction. A band shows the middle half of the slices. identity: unique in the page.
    """
    with matplotlib.rc_context(_settings(identity)):
        present = _present(runs)
        figure = Figure(figsize=(5.6, 3.8 + 0.2 * -(-len(present) // 2)), layout="constrained")
        axes = figure.subplots()
        idle = axes.twinx()
        for one in present:
            line = sorted((run for run in runs if run.case.contender == one), key=lambda run: run.guests)
            _throughput_line(axes, idle, one, line)
        top = max(max(run.gbps, _band(run)[1]) for run in runs)
        axes.set(xlabel="guests", ylabel="throughput, Gb/s", ylim=(0, 1.1 * top or 1))
        idle.set(ylabel="host idle, % (dashed)", ylim=(0, 110), yticks=range(0, 101, 20))
        idle.spines["left"].set_visible(False)
        axes.grid(axis="y", linewidth=0.8)
        axes.set_axisbelow(True)
        _ticks(axes, sorted({run.guests for run in runs}))
        handles = [
            Line2D([], [], color=_SERIES[one.name], marker=one.look.marker, markersize=5, label=one.label)
            for one in present
        ]
        figure.legend(handles=handles, loc="outside upper center", ncols=2)
        return _svg(figure, identity, description)


def _band(run: Run) -> tuple[float, float]:
    """The quartiles of the slices, in Gb/s."""
    if not run.slices or not run.mpps:
        return run.gbps, run.gbps
    low, high = quartiles(run.slices)
    return low * run.gbps / run.mpps, high * run.gbps / run.mpps


def _throughput_line(axes: Axes, idle: Axes, contender: Contender, runs: Sequence[Run]) -> None:
    guests = [run.guests for run in runs]
    colour, marker = _SERIES[contender.name], contender.look.marker
    low, high = zip(*map(_band, runs), strict=True)
    axes.fill_between(guests, low, high, color=colour, alpha=0.15, linewidth=0)
    gbps = [run.gbps for run in runs]
    axes.plot(guests, gbps, color=colour, marker=marker, markersize=5, linewidth=2)
    idle.plot(
        guests,
        [100 * run.profile.idle for run in runs],
        color=colour,
        linestyle=(0, (4, 3)),
        linewidth=1.3,
        marker=marker,
        markersize=3,
        clip_on=False,
    )


def profiles(runs: Sequence[Run], identity: str, description: str) -> str:
    """Where the host's time went: a panel for each contender, a stacked bar for each number of guests."""
    present = _present(runs)
    counts = sorted({run.guests for run in runs})
    columns = min(len(present), _PANELS)
    rows = -(-len(present) // columns)
    with matplotlib.rc_context(_settings(identity)):
        figure = Figure(figsize=(11, 0.7 + 2.7 * rows), layout="constrained")
        grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        panels = list(grid.flat)
        for panel in panels[len(present) :]:
            panel.set_visible(False)
        for i, (one, panel) in enumerate(zip(present, panels, strict=False)):
            _profile_panel(panel, [run for run in runs if run.case.contender == one], counts)
            panel.set_title(one.label)
            panel.label_outer()
            if i + columns >= len(present):
                panel.set_xlabel("guests")
                panel.tick_params(labelbottom=True)
            if i % columns == 0:
                panel.set_ylabel("host time, %")
        handles = [
            Patch(facecolor=_PARTS[name], edgecolor=_MUTED, linewidth=0.5, label=name) for name in ACCOUNTS
        ]
        figure.legend(handles=handles, loc="outside upper center", ncols=len(ACCOUNTS))
        return _svg(figure, identity, description)


def over_time(
    seconds: Sequence[float], lines: Mapping[str, Sequence[float]], identity: str, description: str
) -> str:
    """Lines over time, one for each name, as many as there are contenders at most; from 0."""
    scale, unit = (3600, "hours") if seconds and seconds[-1] > 2 * 3600 else (1, "seconds")
    with matplotlib.rc_context(_settings(identity)):
        figure = Figure(figsize=(5.6, 3.2 + 0.2 * -(-len(lines) // 3)), layout="constrained")
        axes = figure.subplots()
        for (name, values), colour in zip(lines.items(), _SERIES.values(), strict=False):
            axes.plot([at / scale for at in seconds], values, color=colour, linewidth=1.5, label=name)
        most = max((value for values in lines.values() for value in values), default=0)
        axes.set(xlabel=unit, ylim=(0, 1.1 * most or 1))
        axes.grid(axis="y", linewidth=0.8)
        axes.set_axisbelow(True)
        figure.legend(loc="outside upper center", ncols=3)
        return _svg(figure, identity, description)


def _profile_panel(panel: Axes, runs: Sequence[Run], counts: Sequence[int]) -> None:
    place = [counts.index(run.guests) for run in runs]
    bottom = [0.0] * len(runs)
    for i, account in enumerate(ACCOUNTS):
        share = [100 * profile(run)[i] for run in runs]
        panel.bar(place, share, 0.74, bottom=bottom, color=_PARTS[account], edgecolor=_MUTED, linewidth=0.5)
        bottom = [a + b for a, b in zip(bottom, share, strict=True)]
    panel.set(ylim=(0, 100), xlim=(-0.6, len(counts) - 0.4))
    step = -(-len(counts) // _MANY_TICKS)
    panel.set_xticks(range(0, len(counts), step), [str(count) for count in counts[::step]])
    panel.spines["right"].set_visible(False)


def _ticks(axes: Axes, counts: Sequence[int]) -> None:
    """A tick for each number of guests that was measured, as long as they have room."""
    span = counts[-1] - counts[0]
    near = min((b - a for a, b in pairwise(counts)), default=1)
    if len(counts) <= _MANY_TICKS and (span == 0 or near / span > 0.03):
        axes.set_xticks(counts)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(nbins=_MANY_TICKS, integer=True))
    axes.set_xlim(left=0 if counts[0] < 4 else None)


def _svg(figure: Figure, identity: str, description: str) -> str:
    """The figure as an element of a page: no name space, no link, ids of its own, the page's colours."""
    out = io.StringIO()
    figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<defs>\s*<style.*?</style>\s*</defs>", "", text, flags=re.DOTALL)
    text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text).replace("xlink:href", "href")
    text = re.sub(r' (id|clip-path|href)="(url\()?(#?)', rf' \1="\2\3{identity}-', text)
    text = re.sub(r"font: (?:\d+ )?([\d.]+px)[^;\"]*", r"font-size: \1", text)
    text = re.sub(r"#01010[1-3]|#010[23][0-9a-f]{2}", lambda match: f"var(--{_VARIABLES[match[0]]})", text)
    size = re.search(r'viewBox="([^"]*)"', text)
    assert size is not None
    opening = f'<svg class="plot" role="img" aria-label="{escape(description)}" viewBox="{size[1]}">'
    return re.sub(r"<svg[^>]*>", lambda _: opening, text, count=1)
