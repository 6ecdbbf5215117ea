"""Tables of a lab: what its contexts do, what they did, and what its guests are."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from cdna.base.shown import printable
from cdna.base.units import rate_text, size_text
from cdna.lab.kinds import DEFAULT, state_of
from cdna.lab.rates import Traffic
from cdna.report.style import Column, Style

# Counters of a wire that are about frames that were lost; the rx_drop_ ones of the NIC among them.
WIRE_DROPS = ("tx_lost", "tx_oversize", "rx_drop_", "rx_oversize", "rx_bad_offload")


def _table(style: Style, *columns: str) -> Table:
    """A table whose first column is text and whose others are numbers."""
    table = style.table()
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i == 0 else "right", no_wrap=True)
    return table


def rates_table(traffic: Sequence[Traffic], style: Style) -> Table:
    """What the contexts do now; drops and faults since the start beside it."""
    return style.columns(
        [
            Column("guest", [t.guest for t in traffic], text=True),
            *_rates(traffic),
            Column("drops", [str(t.drops) for t in traffic], rank=2),
            Column("faults", [str(t.faults) for t in traffic], rank=3),
            Column("irq/s", [f"{t.interrupts_s:.0f}" for t in traffic], rank=7),
        ]
    )


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
    """What the guests are: the rows of `Lab.describe`. Their kinds, unless all are of the default one."""
    mixed = any(guest.get("kind", DEFAULT) != DEFAULT for guest in guests)
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
            state_of(guest),
            guest["link"],
            guest["mac"],
            " ".join(guest["addresses"]) or style.dash,
            str(guest["vlan"] or style.dash),
            str(guest["weight"]),
            rate_text(guest["rate"]) if guest["rate"] else style.dash,
            guest["protection"],
        )
    return table


def drops_text(traffic: Sequence[Traffic], wire: Mapping[str, Any]) -> str:
    """A line for each guest, and for the wire, that has dropped frames: how many, by the counter's name."""
    found = [(t.guest, t.dropped) for t in traffic if t.dropped]
    lost = {name: value for name, value in wire.items() if value and name.startswith(WIRE_DROPS)}
    found += [("the wire", lost)] if lost else []
    lines = (
        f"drops of {where}: {', '.join(f'{name} {value}' for name, value in counters.items())}"
        for where, counters in found
    )
    return "".join(f"{printable(line)}\n" for line in lines)


def live_table(guests: Sequence[Mapping[str, Any]], traffic: Sequence[Traffic], style: Style) -> Table:
    """What the contexts are and do now: the rows of `Lab.describe`, and the traffic of the same guests."""
    by_name = {t.guest: t for t in traffic}
    shown = [by_name.get(guest["guest"], Traffic(guest["guest"])) for guest in guests]
    return style.columns(
        [
            Column("guest", [guest["guest"] for guest in guests], text=True),
            Column("kind", [guest["kind"] for guest in guests], rank=8, text=True),
            Column("state", [state_of(guest) for guest in guests], rank=2, text=True),
            Column("link", [guest["link"] for guest in guests], rank=4, text=True),
            Column("peer", [peer_text(guest, style) for guest in guests], rank=9, text=True),
            *_rates(shown),
            Column("drops/s", [f"{t.drops_s:.0f}" for t in shown], rank=3),
            Column("drops", [str(t.drops) for t in shown], rank=5),
            Column("irq/s", [f"{t.interrupts_s:.0f}" for t in shown], rank=10),
        ]
    )


def _rates(traffic: Sequence[Traffic]) -> list[Column]:
    """Frames and Mbit a second, each way."""
    return [
        Column("tx frames/s", [f"{t.tx_frames_s:.0f}" for t in traffic], rank=6),
        Column("tx Mbit/s", [f"{t.tx_bits_s / 1e6:.1f}" for t in traffic], rank=1),
        Column("rx frames/s", [f"{t.rx_frames_s:.0f}" for t in traffic], rank=6),
        Column("rx Mbit/s", [f"{t.rx_bits_s / 1e6:.1f}" for t in traffic], rank=1),
    ]


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
                    parts = [f"{key} {_value(key, part, style)}" for key, part in ring.items()]
                    table.add_row(f"ring {number}", ", ".join(parts))
        elif name == "time":
            for activity, ns in value.items():
                table.add_row(f"core: {activity}", f"{ns / 1e6:.3f} ms")
        elif isinstance(value, list):
            for i, word in enumerate(value or [style.dash]):
                table.add_row(name if i == 0 else "", str(word))
        else:
            table.add_row(name, _value(name, value, style))
    return table


def _value(name: str, value: object, style: Style) -> str:
    """A value as an option takes it: on, off, 100M; a dash for none."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if value is None or (name in ("rate", "storm", "flood") and not value):
        return style.dash
    if name == "memory" and isinstance(value, int):
        return size_text(value)
    if name == "rate" and isinstance(value, int | float):
        return rate_text(value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def counters_table(counters: Mapping[str, int], style: Style) -> Table:
    table = _table(style, "counter", "since the guest came")
    for name, value in counters.items():
        table.add_row(name, str(value))
    return table
