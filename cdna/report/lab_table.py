"""Tables of a lab: what its contexts do, what they did, and what its guests are."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from cdna.lab.rates import Traffic
from cdna.report.style import Style


def _table(style: Style, *columns: str) -> Table:
    """A table whose first column is text and whose others are numbers."""
    table = style.table()
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i == 0 else "right", no_wrap=True)
    return table


def rates_table(traffic: Sequence[Traffic], style: Style) -> Table:
    """What the contexts do now; drops and faults since the start beside it."""
    table = _table(
        style, "guest", "tx frames/s", "tx Mbit/s", "rx frames/s", "rx Mbit/s", "drops", "faults", "irq/s"
    )
    for t in traffic:
        table.add_row(
            t.guest,
            f"{t.tx_frames_s:.0f}",
            f"{t.tx_bits_s / 1e6:.1f}",
            f"{t.rx_frames_s:.0f}",
            f"{t.rx_bits_s / 1e6:.1f}",
            str(t.drops),
            str(t.faults),
            f"{t.interrupts_s:.0f}",
        )
    return table


def totals_table(traffic: Sequence[Traffic], style: Style) -> Table:
    """What the contexts did since their guests came."""
    table = _table(
        style, "guest", "tx frames", "tx MB", "rx frames", "rx MB", "drops", "faults", "interrupts"
    )
    for t in traffic:
        table.add_row(
            t.guest,
            str(t.tx_frames),
            f"{t.tx_bytes / 1e6:.1f}",
            str(t.rx_frames),
            f"{t.rx_bytes / 1e6:.1f}",
            str(t.drops),
            str(t.faults),
            str(t.interrupts),
        )
    return table


def guests_table(guests: Sequence[Mapping[str, Any]], style: Style) -> Table:
    """What the guests are: the rows of `Lab.describe`."""
    table = style.table()
    for column in (
        "guest",
        "ctx",
        "state",
        "link",
        "MAC",
        "addresses",
        "VLAN",
        "weight",
        "rate",
        "protection",
    ):
        table.add_column(column, no_wrap=True)
    for guest in guests:
        table.add_row(
            guest["guest"],
            str(guest["context"]),
            guest["state"],
            guest["link"],
            guest["mac"],
            " ".join(guest["addresses"]) or style.dash,
            str(guest["vlan"] or style.dash),
            str(guest["weight"]),
            rate_text(guest["rate"]) if guest["rate"] else style.dash,
            guest["protection"],
        )
    return table


def counters_table(counters: Mapping[str, int], style: Style) -> Table:
    table = _table(style, "counter", "since the guest came")
    for name, value in counters.items():
        table.add_row(name, str(value))
    return table


def rate_text(rate: float) -> str:
    """Bits a second as an option takes them: 100M, 1.5G."""
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("K", 1e3)):
        if rate >= size:
            return f"{rate / size:g}{unit}"
    return f"{rate:g}"
