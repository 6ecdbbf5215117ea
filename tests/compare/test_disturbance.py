"""Slices in which other programs had the cores: noticed, repeated, and said in table, page and JSON."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from cdna.compare.disturbance import REPEATS, Disturbance, Taken, undisturbed
from cdna.compare.plan import Plan
from cdna.compare.result import Comparison, Run
from cdna.compare.runner import SLICES, measure
from cdna.report import plots
from cdna.report.html import report
from cdna.report.style import Style
from cdna.report.table import comparison_text
from tests.support.synthetic import synthetic_comparison, synthetic_vm_comparison

pytestmark = pytest.mark.alone

CDNA = Plan((1,), direction=("tx",), path=("cdna",), protection=("validated",), seconds=0.1)
BURN = "import os, sys; os.sched_setaffinity(0, {int(sys.argv[1])}); print(flush=True)\nwhile True: pass"


@contextmanager
def busy(core: int) -> Iterator[None]:
    """Another program on this core."""
    command = [sys.executable, "-I", "-c", BURN, str(core)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as burner:
        try:
            assert burner.stdout is not None
            burner.stdout.readline()
            yield
        finally:
            burner.kill()


@pytest.mark.parametrize("core", [min, max])
def test_another_program_on_a_core(core) -> None:
    """It has half of the host's core, or of the NIC's: slices are repeated, and kept as disturbed."""
    with busy(core(os.sched_getaffinity(0))):
        (run,) = measure(CDNA).runs
    assert run.disturbance.disturbed > 0
    assert run.disturbance.repeated == REPEATS
    assert run.disturbance.share > 0.1
    assert len(run.slices) == SLICES


def taken(share: float) -> Taken:
    return Taken(share, 1, 0.0, disturbed=share > 0.02)


@pytest.mark.parametrize(
    ("shares", "kept", "repeated"),
    [([0.0], 0.0, 0), ([0.5, 0.01], 0.01, 1), ([0.5, 0.3, 0.4, 0.4], 0.3, REPEATS)],
)
def test_a_slice_is_repeated_while_it_is_disturbed(shares: list[float], kept: float, repeated: int) -> None:
    slices = iter(shares)

    def one() -> tuple[float, Taken]:
        share = next(slices)
        return share, taken(share)

    result, of, times = undisturbed(one, 0)
    assert (result, of.share, times) == (kept, kept, repeated)
    assert list(slices) == []
    slices = iter([0.5])
    assert undisturbed(one, REPEATS)[2] == 0


DISTURBED = Disturbance(repeated=6, disturbed=2, share=0.37, switches=80, stolen=0.0)


def disturbed(comparison: Comparison) -> Comparison:
    runs = [replace(run, disturbance=DISTURBED) if i == 0 else run for i, run in enumerate(comparison.runs)]
    vm = [replace(run, disturbance=DISTURBED) if i == 0 else run for i, run in enumerate(comparison.vm)]
    return Comparison(comparison.host, runs, vm)


@pytest.mark.parametrize("made", [synthetic_comparison, synthetic_vm_comparison])
def test_table_page_and_json_say_so(made) -> None:
    quiet, noisy = made(), disturbed(made())
    text, page = (" ".join(said.split()) for said in (comparison_text(noisy, Style()), report(noisy)))
    for said in (text, page):
        assert "Repeated: 6 slices, as other programs had the cores meanwhile." in said
        assert "Disturbed machine: 2 slices of the rows marked * had no quiet repetition" in said
        assert "others took up to 37% of a core" in said
    assert re.search(r"cdna( validated)? \*", comparison_text(noisy, Style()))
    for said in (comparison_text(quiet, Style()), report(quiet)):
        assert "Repeated" not in said
        assert "Disturbed machine" not in said
    assert Comparison.from_json(noisy.to_json()) == noisy
    rows = json.loads(noisy.to_json())
    assert (rows["runs"] or rows["vm"])[0]["disturbance"]["share"] == 0.37


def test_the_band_of_a_plot_stays_inside_its_axes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The middle half of the slices lies far above the mean, as one slice was slow."""

    def uneven(run: Run) -> Run:
        return replace(run, mpps=1.0, gbps=12.0, slices=(0.1, 1.6, 1.6, 1.6))

    figures = []
    monkeypatch.setattr(plots, "_svg", lambda figure, *_: figures.append(figure))
    runs = [uneven(run) for run in synthetic_comparison(Plan((1, 2), direction=("tx",))).runs]
    plots.throughput(runs, "t", "a plot")
    axes = figures[0].axes[0]
    bands = [path.vertices[:, 1] for collection in axes.collections for path in collection.get_paths()]
    assert bands
    low, high = axes.get_ylim()
    for band in bands:
        assert band.max() == pytest.approx(1.6 * 12)
        assert low <= band.min()
        assert band.max() <= high
