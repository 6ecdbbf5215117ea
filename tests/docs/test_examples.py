"""Runs the Python of the pages: as a program, or as tests of another project."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SECONDS = 100


def python_of(page: str) -> str:
    text = (ROOT / "docs" / page).read_text()
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert blocks
    return "\n\n".join(blocks)


def run(tmp_path: Path, *arguments: str) -> str:
    ended = subprocess.run(
        [sys.executable, *arguments],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def test_scapy(tmp_path: Path) -> None:
    out = run(tmp_path, "-c", python_of("scapy.md"))
    assert out.splitlines()[0] == "True"
    assert out.splitlines()[-1].startswith("carol 02:")


def test_pytest(tmp_path: Path) -> None:
    (tmp_path / "test_page.py").write_text(python_of("pytest.md"))
    (tmp_path / "conftest.py").write_text(
        "import sys\npytest_plugins = [] if 'cdna.pytest_plugin' in sys.modules else ['cdna.pytest_plugin']\n"
    )
    out = run(tmp_path, "-m", "pytest", "-q", "--strict-markers", "-p", "no:cacheprovider")
    assert "4 passed" in out


@pytest.mark.parametrize("page", sorted(path.name for path in (ROOT / "docs").glob("*.md")))
def test_links_lead_somewhere(page: str) -> None:
    text = (ROOT / "docs" / page).read_text()
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
        assert target.startswith("http") or (ROOT / "docs" / target).exists(), target


def test_a_page_for_every_command() -> None:
    from cdna.cli.program import COMMANDS

    index = (ROOT / "docs" / "README.md").read_text()
    titles = {name: (ROOT / "docs" / f"{name}.md").read_text().splitlines()[0] for name in COMMANDS}
    assert titles == {name: f"# `cdna {name}`" for name in COMMANDS}
    assert [name for name in COMMANDS if f"({name}.md)" not in index] == []
