"""Carries out the recipes of docs/extending.md: their files, then their commands, as a reader would."""

import re
import shutil
from pathlib import Path

from tests.support.console import Shell, steps

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "extending.md").read_text()
FILES = dict(re.findall(r"^`([\w./-]+)`:\n\n```\w+\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))
SETTINGS = "cdna/settings.py"
END = "\n\n\nSETTINGS:"  # of the class that the page's lines go into


def test_every_recipe_works_as_the_page_shows(shell: Shell, tmp_path: Path) -> None:
    work = tmp_path / "work"
    linked = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "cdna", work / "cdna", copy_function=_link, ignore=linked)
    for name, text in FILES.items():
        file = work / name
        file.parent.mkdir(exist_ok=True)
        if name == SETTINGS:
            file.unlink()
            before = (ROOT / name).read_text()
            assert before.count(END) == 1
            text = before.replace(END, f"\n{text.rstrip()}{END}")
        file.write_text(text)
    commands = steps(PAGE)
    assert len(commands) > 10
    for step in commands:
        shell.run(step)


def _link(source: str, target: str) -> None:
    Path(target).symlink_to(source)


def test_a_wire_and_a_kind_are_a_file_or_a_folder_and_a_line_each() -> None:
    (registry,) = (text for name, text in FILES.items() if name.endswith("entry_points.txt"))
    lines = [line for line in registry.splitlines() if "=" in line]
    places = {name.partition("/")[0] for name in FILES} - {"toy.dist-info", "cdna"}
    assert len(lines) == len(places) == 2


def test_a_setting_touches_three_files() -> None:
    rows = dict(re.findall(r"^\| `([\w./]+)` \| .*`(\w+)` *\|$", PAGE, re.MULTILINE))
    assert len(rows) == 3
    for file, place in rows.items():
        assert re.search(rf"\b{place}\b", (ROOT / file).read_text()), file
    named = [file for file in (ROOT / "cdna").rglob("*.py") if "promiscuous" in file.read_text()]
    assert [file for file in named if "lab" in file.parts or "cli" in file.parts] == []
