"""The guide's recipe for a path, carried out: an entry point is all that `cdna compare` needs."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "compare.md").read_text()
(RECIPE,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def install(place: Path, name: str, text: str) -> None:
    """Puts a package with one module into a directory, as pip would."""
    assert '[project.entry-points."cdna.paths"]\n    short = "short_rings:PATH"\n' in PAGE
    (place / "short_rings.py").write_text(text)
    facts = place / "toy_package-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-package\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text(f"[cdna.paths]\n{name} = short_rings:PATH\n")


def compare(place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`cdna compare` as a program, with what is installed in `place`."""
    code = f"import sys; sys.path.append({str(place)!r}); from cdna.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "compare", *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def test_it_is_measured_and_shown_beside_the_others(tmp_path: Path) -> None:
    install(tmp_path, "short", RECIPE)
    measured = "--guests 2 --protection validated --receive copy --seconds 0.1 --domains inline"
    report, out = tmp_path / "report", tmp_path / "out.json"
    ended = compare(tmp_path, *measured.split(), "--report", str(report), "--json", str(out))
    assert ended.returncode == 0, ended.stderr

    runs = json.loads(out.read_text())["runs"]
    assert [(run["path"], run["protection"], run["receive"]) for run in runs] == [
        ("cdna", "validated", None),
        ("bridge", "none", None),
        ("short", "none", None),
        ("cdna", "validated", None),
        ("bridge", "none", "copy"),
        ("short", "none", None),
    ]
    assert all(run["lost"] == 0 < run["frames"] for run in runs)

    rows = [line.split() for line in ended.stdout.splitlines() if line.split()[:1] == ["short"]]
    assert len(rows) == 2
    assert all(float(row[3]) > 0 for row in rows)  # times the bridge
    said = " ".join(ended.stdout.split())
    for contender in ("CDNA validated", "short rings"):
        assert f"Transmit (inline), 2 guests: {contender} moves " in said
    assert said.count("times the bridge") == 2 * 2

    page = (report / "index.html").read_text()
    assert "<h1>CDNA and short rings against software bridging</h1>" in page
    assert "<dt>Short rings</dt>\n<dd>CDNA with rings of 32 descriptors and no protection.</dd>" in page
    assert page.count("--short: #6b4c9a;") == page.count("--short: #c9b3e8;") == 1
    plots = page.split("<svg")[1:]
    assert len(plots) == 2 * 2
    assert all(">short rings<" in plot for plot in plots)
    assert "stroke: var(--short)" in plots[0]


def test_it_is_in_help_and_can_be_chosen_or_not(tmp_path: Path) -> None:
    install(tmp_path, "short", RECIPE)
    assert "cdna,bridge,short" in compare(tmp_path, "--help").stdout
    ended = compare(tmp_path, "--path", "short,rock")
    assert ended.stderr.endswith(
        "--path rock: there is no such path; give one or more of cdna, bridge, short\n"
    )
    ended = compare(tmp_path, "--guest", "vm", "--path", "short")
    assert ended.stderr.endswith("--path short: there is no such path; give one or more of cdna, bridge\n")


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("short", "1 / 0", "cannot be loaded (ZeroDivisionError: division by zero)"),
        ("short", "PATH = 7", "short_rings:PATH is no ComparisonPath of this name"),
        ("long", RECIPE, "short_rings:PATH is no ComparisonPath of this name"),
        ("bridge", RECIPE.replace('name="short"', 'name="bridge"'), "there is a path of this name"),
    ],
)
def test_a_package_that_is_wrong_is_named(tmp_path: Path, name: str, text: str, problem: str) -> None:
    install(tmp_path, name, text)
    ended = compare(tmp_path, "--guests", "1")
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"cdna compare: path {name}, of package toy-package: {problem}")
    assert len(ended.stderr.splitlines()) == 1
