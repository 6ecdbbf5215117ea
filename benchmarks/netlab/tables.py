"""A load's figures as a table, and what they come to in a sentence."""

from __future__ import annotations

from cdna.compare.result import quartiles
from cdna.report.style import Style
from cdna.report.summary import middle_half, spread
from netlab.turns import Load, ratio


def judged(load: Load, against: str = "", *, wanted: str, least: bool = False) -> Load:
    """Adds the ratios of the first contender to the others, and a sentence about one of them.

    against: which one; by default the one that is better (`least`: has the lower figure).
    """
    ours, others = load.figures[0], load.figures[1:]
    load.ratios = {other.contender: ratio(ours.values, other.values) for other in others}
    best = (min if least else max)(others, key=lambda figure: figure.median)
    named = against or best.contender
    over = load.ratios[named]
    load.said = f"{ours.contender} over {named}{'' if against else ', the better one'}: {spread(over, '-')}"
    load.said += f" (wanted: {wanted})." if wanted else "."
    return load


def table(load: Load, style: Style) -> str:
    """The ratios are of the first contender, which the heading names."""
    ours = load.figures[0].contender
    rows = style.table()
    rows.add_column(load.unit, no_wrap=True)
    headings = ("median", "middle\nhalf", *((f"{ours}\nover it", "middle\nhalf") if load.ratios else ()))
    for heading in headings:
        rows.add_column(heading, justify="right", no_wrap=True)
    for figure in load.figures:
        cells = [figure.contender, f"{figure.median:.2f}"]
        low, high = quartiles(figure.values)
        cells.append(f"{low:.2f}{style.dash}{high:.2f}")
        over = load.ratios.get(figure.contender)
        if load.ratios:
            cells += ["", ""] if over is None else [f"{over.median:.2f}", middle_half(over, style.dash)]
        rows.add_row(*cells)
    return style.render("", load.name, rows, *([load.said] if load.said else []))
