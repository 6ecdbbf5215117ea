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
            *_rates(t),
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
    """What the guests are: the rows of `Lab.describe`. Their kinds, unless all are namespaces."""
    mixed = any(guest.get("kind", "namespace") != "namespace" for guest in guests)
    table = style.table()
    for column in (
        "guest",
        "ctx",
        *(["kind", "peer"] if mixed else []),
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
            *([guest["kind"], peer_text(guest, style)] if mixed else []),
            state_text(guest),
            guest["link"],
            guest["mac"],
            " ".join(guest["addresses"]) or style.dash,
            str(guest["vlan"] or style.dash),
            str(guest["weight"]),
            rate_text(guest["rate"]) if guest["rate"] else style.dash,
            guest["protection"],
        )
    return table


def live_table(guests: Sequence[Mapping[str, Any]], traffic: Sequence[Traffic], style: Style) -> Table:
    """What the contexts are and do now: the rows of `Lab.describe`, and the traffic of the same guests."""
    table = style.table()
    for column in ("guest", "kind", "state", "link", "peer"):
        table.add_column(column, no_wrap=True)
    for column in ("tx frames/s", "tx Mbit/s", "rx frames/s", "rx Mbit/s", "drops/s", "drops", "irq/s"):
        table.add_column(column, justify="right", no_wrap=True)
    by_name = {t.guest: t for t in traffic}
    for guest in guests:
        t = by_name.get(guest["guest"], Traffic(guest["guest"]))
        table.add_row(
            guest["guest"],
            guest["kind"],
            state_text(guest),
            guest["link"],
            peer_text(guest, style),
            *_rates(t),
            f"{t.drops_s:.0f}",
            str(t.drops),
            f"{t.interrupts_s:.0f}",
        )
    return table


def _rates(t: Traffic) -> tuple[str, str, str, str]:
    """Four cells: frames and Mbit a second, each way."""
    return (
        f"{t.tx_frames_s:.0f}",
        f"{t.tx_bits_s / 1e6:.1f}",
        f"{t.rx_frames_s:.0f}",
        f"{t.rx_bits_s / 1e6:.1f}",
    )


def state_text(guest: Mapping[str, Any]) -> str:
    """The context's state; behind a socket, what the frontend makes of it: waiting, connected, running.

    "no device": a program inside the namespace has deleted it.
    """
    if guest.get("device") is False and guest["state"] == "running":
        return "no device"
    return str(guest.get("frontend") or guest["state"])


def peer_text(guest: Mapping[str, Any], style: Style) -> str:
    """The process behind the guest's socket, if there is one."""
    return str(guest["peer"] or style.dash)


def detail_table(detail: Mapping[str, Any], style: Style) -> Table:
    """All that is known of a guest, a line each; of its rings, a line for each that was started."""
    table = style.table()
    for column in ("what", "value"):
        table.add_column(column, no_wrap=True)
    for name, value in detail.items():
        if name == "rings":
            for number, ring in enumerate(value):
                if ring.get("started"):
                    parts = [f"{key} {part}" for key, part in ring.items()]
                    table.add_row(f"ring {number}", ", ".join(parts))
        elif isinstance(value, list):
            for i, word in enumerate(value or [style.dash]):
                table.add_row(name if i == 0 else "", str(word))
        else:
            table.add_row(name, style.dash if value is None else str(value))
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
