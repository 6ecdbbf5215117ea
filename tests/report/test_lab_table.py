"""Tables of a lab: values as options take them, and columns that a narrow terminal has room for."""

import itertools

import pytest

from cdna.lab.rates import Traffic
from cdna.report.lab_table import (
    counters_table,
    detail_table,
    drops_text,
    guests_table,
    live_table,
    rates_table,
    totals_table,
)
from cdna.report.style import Style

NAMES = ("web", "a-guest-whose-name-is-long")
GUESTS = [{"guest": n, "kind": "namespace", "state": "running", "link": "up", "peer": 4711} for n in NAMES]
TRAFFIC = [Traffic(name, tx_frames_s=1e7, tx_bits_s=1.2e11, rx_frames_s=1e7, drops=10**9) for name in NAMES]


@pytest.mark.parametrize("width", range(len(NAMES[1]), 140))
def test_columns_fit_and_the_name_stays(width: int) -> None:
    style = Style(width=width)
    for table in (live_table(GUESTS, TRAFFIC, style), rates_table(TRAFFIC, style)):
        assert style.fits(table)
        _, _, *rows = style.render(table).splitlines()
        assert tuple(row.split()[0] for row in rows) == NAMES


def test_important_columns_stay_longest() -> None:
    headings = [
        {str(column.header) for column in live_table(GUESTS, TRAFFIC, Style(width=width)).columns}
        for width in range(26, 140)
    ]
    assert all(less <= more for less, more in itertools.pairwise(headings))
    assert headings[80 - 26] >= {"guest", "state", "tx Mbit/s", "rx Mbit/s", "drops/s"}
    assert len(headings[-1]) == len(live_table(GUESTS, TRAFFIC, Style()).columns) == 12


def test_not_even_the_name_fits() -> None:
    (column,) = live_table(GUESTS, TRAFFIC, Style(width=5)).columns
    assert column.header == "guest"


def test_values_as_options_take_them() -> None:
    detail = {
        "guest": "web",
        "rate": 1e8,
        "weight": 2,
        "connected": True,
        "anti_spoof": False,
        "vlan": None,
        "rings": [{"started": True, "packed": False, "size": 256}, {"started": False}],
    }
    text = Style().render(detail_table(detail, Style()))
    rows = dict(line.split(None, 1) for line in text.splitlines()[2:])
    assert rows["rate"] == "100M"
    assert (rows["connected"], rows["anti_spoof"], rows["vlan"], rows["weight"]) == ("on", "off", "-", "2")
    assert rows["ring"].split(None, 1)[1] == "started on, packed off, size 256"


def test_no_rate_limit() -> None:
    text = Style().render(detail_table({"rate": 0}, Style()))
    assert text.splitlines()[-1].split() == ["rate", "-"]


HOSTILE = "web\x1b[2J\x9b\n\rdb\u202e"
ESCAPED = r"web\x1b[2J\x9b\n\rdb\u202e"


@pytest.mark.parametrize("style", [Style(), Style(width=200, colour=True, unicode=True)])
def test_text_of_others_is_escaped(style: Style) -> None:
    guest = {
        **dict.fromkeys(("guest", "state", "link", "mac", "protection", "kind", "peer"), HOSTILE),
        **{"context": 0, "addresses": [HOSTILE], "vlan": None, "weight": 1, "rate": 0, "last_error": HOSTILE},
        "rings": [{"started": True, HOSTILE: HOSTILE}],
        "offered": [HOSTILE],
        HOSTILE: HOSTILE,
    }
    traffic = Traffic(HOSTILE, dropped={HOSTILE: 1})
    tables = [
        guests_table([guest], style),
        live_table([guest], [traffic], style),
        rates_table([traffic], style),
        totals_table([traffic], style),
        detail_table(guest, style),
        counters_table({HOSTILE: 1}, style),
    ]
    for text in (*map(style.render, tables), drops_text([traffic], {f"tx_lost{HOSTILE}": 1})):
        assert ESCAPED in text
        assert all(
            line.replace("\x1b[1m", "").replace("\x1b[0m", "").isprintable() for line in text.split("\n")
        )
    assert style.render(tables[2]).count("\n") == 3
