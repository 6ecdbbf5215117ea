"""The tables of `cdna fuzz`: what was tried, why contexts were stopped, what was refused."""

from collections.abc import Mapping

from rich.table import Table

from cdna.fuzz.campaign import Tally
from cdna.fuzz.runner import FuzzResult
from cdna.report.style import Style

_UNITS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
COLUMNS = ("attempts", "descriptors", "desc/s", "frames", "faults", "refusals", "out of bounds", "lost")


def short(number: float) -> str:
    """A number in four places: 12.3M."""
    for unit, letter in _UNITS:
        if number >= unit:
            return f"{number / unit:.3g}{letter}"
    return f"{number:.0f}"


def reasons(counts: Mapping[str, int], most: int = 0) -> str:
    """Reasons with their counts, the most frequent first: "sequence 12, producer 3"; `most` of them."""
    if not counts:
        return "none"
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    shown = ordered[:most] if most else ordered
    more = f", {len(ordered) - len(shown)} more" if len(shown) < len(ordered) else ""
    return ", ".join(f"{_word(name)} {short(count)}" for name, count in shown) + more


def _word(name: str) -> str:
    for prefix in ("FAULT_", "REFUSED_"):
        name = name.removeprefix(prefix)
    return name.lower().replace("_", " ")


def fuzz_table(result: FuzzResult, style: Style) -> Table:
    """A row for each campaign, and one for all of them."""
    table = style.table()
    table.add_column("campaign", no_wrap=True)
    for column in COLUMNS:
        table.add_column(column, justify="right", no_wrap=True)
    for name in sorted(result.campaigns):
        _row(table, name, result.campaigns[name], result.seconds)
    _row(table, "all", result.tally, result.seconds)
    return table


def _row(table: Table, name: str, tally: Tally, seconds: float) -> None:
    table.add_row(
        name,
        short(tally.attempts),
        short(tally.descriptors),
        short(tally.descriptors / seconds if seconds else 0),
        short(tally.frames),
        short(sum(tally.faults.values())),
        short(sum(tally.refusals.values())),
        str(tally.outside),
        str(tally.lost),
    )


def live_table(result: FuzzResult, note: str, style: Style) -> Table:
    """What there is while it runs."""
    plan, tally, table = result.plan, result.tally, style.table()
    table.show_header = False
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    rate = tally.descriptors / result.seconds if result.seconds else 0
    rows = {
        "elapsed": f"{result.seconds:.0f} of {plan.seconds:g} s, seed {plan.seed}, {result.jobs} jobs",
        "attempts": short(tally.attempts),
        "descriptors": f"{short(tally.descriptors)}, {short(rate)} a second",
        "faults": reasons(tally.faults, 8),
        "refusals": reasons(tally.refusals, 8),
        "out of bounds": f"{tally.outside} bytes",
        "neighbours": f"{short(tally.frames)} frames, {tally.lost} lost",
        **({"now": note} if note else {}),
    }
    for name, value in rows.items():
        table.add_row(name + "  ", value)
    return table


def line(result: FuzzResult) -> str:
    """What there is in one line."""
    tally = result.tally
    rate = tally.descriptors / result.seconds if result.seconds else 0
    return (
        f"{result.seconds:.0f} s, {short(tally.attempts)} attempts, {short(tally.descriptors)} descriptors "
        f"({short(rate)}/s), {short(sum(tally.faults.values()))} faults, "
        f"{short(sum(tally.refusals.values()))} refusals, {tally.outside} bytes out of bounds, "
        f"{tally.lost} of {short(tally.frames)} neighbours' frames lost"
    )


def fuzz_text(result: FuzzResult, style: Style) -> str:
    """All of a run as text."""
    tally = result.tally
    after = f"{result.seconds:.1f} s, {result.jobs} jobs, seed {result.plan.seed}"
    return style.render(
        f"Attacks on DMA protection: {after}\n",
        fuzz_table(result, style),
        f"\nfaults: {reasons(tally.faults)}\nrefusals: {reasons(tally.refusals)}\n"
        f"bytes out of bounds: {tally.outside}\nneighbours' frames lost: {tally.lost} of {tally.frames}",
    )
