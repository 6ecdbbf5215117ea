"""The HTML report. All figures here are synthetic."""

import re
from collections import Counter
from html.parser import HTMLParser

import pytest

from cdna.base.units import PROTECTIONS
from cdna.compare.plan import Plan
from cdna.compare.result import Comparison
from cdna.report.html import report
from tests.support.synthetic import HOST, synthetic_comparison, synthetic_vm_comparison

VOID = {"meta", "br", "hr", "img", "input", "link"}


class Page(HTMLParser):
    """Checks that elements nest, and keeps ids, references and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.count: Counter[str] = Counter()
        self.ids: Counter[str] = Counter()
        self.references: set[str] = set()
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.count[tag] += 1
        for name, value in attrs:
            if name == "id":
                self.ids[value or ""] += 1
            if name in ("href", "src"):
                self.references.add(value or "")
            self.references |= {f"#{at}" for at in re.findall(r"url\(#(.*?)\)", value or "")}
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


@pytest.fixture(scope="module")
def text() -> str:
    return report(synthetic_comparison(Plan(guests=(1, 24))))


def test_it_needs_nothing_else(text: str) -> None:
    page = Page(text)
    assert "http" not in text
    assert "@import" not in text
    assert page.references
    assert all(reference.startswith("#") for reference in page.references)


def test_ids_are_unique_and_references_lead_somewhere(text: str) -> None:
    page = Page(text)
    assert [name for name, count in page.ids.items() if count > 1] == []
    assert {reference.removeprefix("#") for reference in page.references} <= page.ids.keys()


def test_plots_in_both_shapes_for_each_direction(text: str) -> None:
    page = Page(text)
    assert page.count["svg"] == 4
    assert page.count["figure"] == 4
    words = " ".join(page.words)
    for label in (
        "throughput, Gb/s",
        "host idle, % (dashed)",
        "host time, %",
        "driver domain",
        "bridge, copy",
    ):
        assert label in words


def test_colours_are_the_page_s(text: str) -> None:
    used = set(re.findall(r"var\(--([\w-]+)\)", text))
    defined = set(re.findall(r"--([\w-]+):", text))
    assert used <= defined
    plots = "".join(re.findall(r"<svg.*?</svg>", text, re.DOTALL))
    assert set(re.findall(r"#[0-9a-f]{6}\b", plots)) == set()


def test_measured_and_published_stay_apart(text: str) -> None:
    page = " ".join(Page(text).words)
    assert page.count("published, as recorded here") == 2
    published = text[text.index('class="panel published"') :]
    assert '<td class="theirs">2.1</td>' in published
    assert '<td class="theirs">2.1</td>' not in text[: text.index('class="panel published"')]


def test_what_was_not_measured_is_not_compared() -> None:
    text = report(synthetic_comparison(Plan(guests=(4,))))
    published = text[text.index('class="panel published"') :]
    assert published.count("not measured") == 2
    assert published.count("<td>\N{EM DASH}</td>") == 6 * 4


def test_names_are_escaped() -> None:
    comparison = synthetic_comparison(Plan(guests=(1,), size='<b>&"x".pcap'))
    text = report(Comparison({**HOST, "cpu": "<script>"}, comparison.runs))
    Page(text)
    assert "<b>&" not in text
    assert "<script>" not in text


@pytest.mark.parametrize(
    "plan",
    [
        Plan(guests=(1,), direction=("tx",), path=("cdna",), protection=("none",)),
        Plan(guests=(63,), path=("bridge",), receive=("flip",)),
        Plan(guests=tuple(range(1, 31)), protection=PROTECTIONS, direction=("rx",)),
        Plan(guests=(2,), domains=("inline", "process"), size="imix"),
    ],
)
def test_other_plans(plan: Plan) -> None:
    page = Page(report(synthetic_comparison(plan)))
    assert page.count["svg"] == 2 * len(plan.direction) * len(plan.domains)


def test_the_same_result_gives_the_same_page(text: str) -> None:
    assert report(synthetic_comparison(Plan(guests=(1, 24)))) == text


def test_nothing_measured() -> None:
    with pytest.raises(ValueError, match="without runs"):
        report(Comparison(HOST, []))


def test_virtual_machines_have_a_page_of_their_own() -> None:
    page = Page(report(synthetic_vm_comparison()))
    text = " ".join(page.words)
    assert "virtual machines" in text
    assert "QEMU 0.0 (TCG)" in text
    assert page.count["table"] == 2
    ratio = "2.00 (2.00\N{EN DASH}2.00)"
    for word in ("TCP", "UDP, 64 B frames", "round trip, median", "round trip, p99", ratio):
        assert word in text, word
    assert "$" not in text
