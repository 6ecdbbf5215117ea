"""A path of another package: an entry point is all that `cdna compare` needs to measure it and to show it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

TOY = """
from cdna.compare.path import ComparisonPath, Look

PATH = ComparisonPath(
    name="toy",
    label="toy",
    title="a toy",
    looks={"": Look("#121314", "#e1e2e3", "P")},
    reading="CDNA with rings of 32 descriptors.",
    build="toy_path:build",
)


def build(case, load, wire):
    from cdna.compare.paths.cdna.build import build

    return build(case, load, wire, tx_ring=32, rx_ring=32)
"""


def install(place: Path, name: str, text: str) -> None:
    """Puts a package with one module into a directory, as pip would."""
    (place / "toy_path.py").write_text(text)
    facts = place / "toy_package-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-package\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text(f"[cdna.paths]\n{name} = toy_path:PATH\n")


def compare(place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`cdna compare` as a program, with what is installed in `place`."""
    code = f"import sys; sys.path.append({str(place)!r}); from cdna.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "compare", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=110)


def test_a_toy_is_measured_and_shown_beside_the_others(tmp_path: Path) -> None:
    install(tmp_path, "toy", TOY)
    measured = "--guests 1,2 --protection validated --receive copy --seconds 0.1 --domains inline"
    report, out = tmp_path / "report", tmp_path / "out.json"
    ended = compare(tmp_path, *measured.split(), "--report", str(report), "--json", str(out))
    assert ended.returncode == 0, ended.stderr

    runs = json.loads(out.read_text())["runs"]
    assert [(run["path"], run["protection"], run["receive"]) for run in runs if run["guests"] == 2] == [
        ("cdna", "validated", None),
        ("bridge", "none", None),
        ("toy", "none", None),
        ("cdna", "validated", None),
        ("bridge", "none", "copy"),
        ("toy", "none", None),
    ]
    assert all(run["lost"] == 0 < run["frames"] for run in runs)

    rows = [line.split() for line in ended.stdout.splitlines() if line.split()[:1] == ["toy"]]
    assert len(rows) == 4
    assert all(float(row[3]) > 0 for row in rows)  # times the bridge
    said = " ".join(ended.stdout.split())
    for contender in ("CDNA validated", "toy"):
        assert f"Transmit (inline), 2 guests: {contender} moves " in said
    assert said.count("times the bridge") == 2 * 2

    page = (report / "index.html").read_text()
    assert "<h1>CDNA and a toy against software bridging</h1>" in page
    assert "<dt>Toy</dt>\n<dd>CDNA with rings of 32 descriptors.</dd>" in page
    assert page.count("--toy: #121314;") == page.count("--toy: #e1e2e3;") == 1
    plots = page.split("<svg")[1:]
    assert len(plots) == 2 * 2
    assert all(">toy<" in plot for plot in plots)
    assert "stroke: var(--toy)" in plots[0]


def test_it_is_in_help_and_can_be_chosen_or_not(tmp_path: Path) -> None:
    install(tmp_path, "toy", TOY)
    assert "cdna,bridge,toy" in compare(tmp_path, "--help").stdout
    ended = compare(tmp_path, "--path", "toy,rock")
    assert ended.stderr.endswith(
        "--path rock: there is no such path; give one or more of cdna, bridge, toy\n"
    )
    ended = compare(tmp_path, "--guest", "vm", "--path", "toy")
    assert ended.stderr.endswith("--path toy: there is no such path; give one or more of cdna, bridge\n")


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("toy", "1 / 0", "cannot be loaded (ZeroDivisionError: division by zero)"),
        ("toy", "PATH = 7", "toy_path:PATH is no ComparisonPath of this name"),
        ("joy", TOY, "toy_path:PATH is no ComparisonPath of this name"),
        ("bridge", TOY.replace('name="toy"', 'name="bridge"'), "there is a path of this name"),
    ],
)
def test_a_package_that_is_wrong_is_named(tmp_path: Path, name: str, text: str, problem: str) -> None:
    install(tmp_path, name, text)
    ended = compare(tmp_path, "--guests", "1")
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"cdna compare: path {name}, of package toy-package: {problem}")
    assert len(ended.stderr.splitlines()) == 1
