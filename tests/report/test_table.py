"""Tables of text. All figures here are synthetic."""

import pytest

from cdna.base.units import PROTECTIONS
from cdna.compare.plan import Case, Plan
from cdna.compare.result import Comparison
from cdna.report import table
from cdna.report.style import Style
from cdna.report.table import comparison_text, figure, short
from tests.support.synthetic import synthetic_bench, synthetic_comparison, synthetic_run


def rows(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def test_plain_text_is_ascii_and_fits_a_hundred_columns() -> None:
    text = comparison_text(synthetic_comparison(), Style())
    assert text.isascii()
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= 100


@pytest.mark.parametrize("width", [40, 80, 100, 200])
@pytest.mark.parametrize("terminal", [True, False])
def test_no_figure_is_cut_whatever_the_width(width: int, terminal: bool) -> None:
    comparison = synthetic_comparison(Plan(guests=(63,), protection=PROTECTIONS))
    text = comparison_text(comparison, Style(width=width, colour=terminal, unicode=terminal))
    assert "\N{HORIZONTAL ELLIPSIS}" not in text
    for run in comparison.runs:
        assert figure(run.mpps) in text
        assert f"{run.host_cycles_per_frame:.0f}" in text


def test_a_narrow_terminal_leaves_the_interrupts_out() -> None:
    assert "irq/s" in comparison_text(synthetic_comparison(), Style(width=110))
    assert "irq/s" not in comparison_text(synthetic_comparison(), Style(width=90))


def test_a_row_holds_what_was_measured() -> None:
    cdna = synthetic_run(
        Case("cdna", "tx", 3, 64, "validated", "process"),
        mpps=6.0,
        gbps=3.0,
        host_cycles_per_frame=173.2,
        slices=(5.0, 7.0),
    )
    bridge = synthetic_run(
        Case("bridge", "tx", 3, 64, "none", "process"), mpps=2.0, slices=(2.0, 2.0), lost=9
    )
    text = comparison_text(Comparison({}, [cdna, bridge]), Style())
    mine = next(row for row in rows(text) if row[:3] == ["3", "cdna", "validated"])
    theirs = next(row for row in rows(text) if row[:1] == ["bridge"])
    assert mine[3:] == [
        "6.000",
        "3.000",
        "3.00",
        "2.75-3.25",
        "10",
        "0",
        "42",
        "48",
        "173",
        "13.0k",
        "0",
        "41.0k",
        "0",
    ]
    assert theirs[3] == "1"
    assert theirs[-1] == "9"
    assert "3.00 (2.75-3.25) times the bridge" in " ".join(text.split())


def test_sentences_take_the_largest_number_of_guests() -> None:
    text = " ".join(comparison_text(synthetic_comparison(Plan(guests=(2, 16))), Style()).split())
    assert "Transmit, 16 guests: CDNA validated moves" in text
    assert "times the bridge (copy)" in text
    assert "of itself with 2 guests and" in text
    assert "of itself without protection" in text


def test_one_path_alone() -> None:
    for path in ("cdna", "bridge"):
        text = comparison_text(synthetic_comparison(Plan(guests=(1,), path=(path,))), Style())
        assert path in text
        assert "times the bridge" not in text


def test_nothing_measured_shows_nothing() -> None:
    assert comparison_text(Comparison({}, []), Style()) == ""


def test_bench() -> None:
    text = table.bench_text(synthetic_bench(), Style())
    assert text.isascii()
    assert max(map(len, text.splitlines())) <= 100
    row = next(r for r in rows(text) if r[:4] == ["guest-to-wire", "64", "validated", "1"])
    assert row[4:] == ["23.50", "12.03", "100.0", "0.23", "0.23-0.24", "0.78", "0.98"]
    said = " ".join(text.split())
    assert "guest-to-wire, 64 B, validated: 0.979 (0.979-0.979) of the throughput without protection" in said
    assert "1024 contexts assigned: 0.98 (0.98-0.98) of the throughput with one" in said


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (999.4, "999"),
        (999.6, "1.0k"),
        (12_345, "12.3k"),
        (99_960, "100k"),
        (999_960, "1.00M"),
        (2e6, "2.00M"),
    ],
)
def test_short_rates(value: float, text: str) -> None:
    assert short(value) == text
