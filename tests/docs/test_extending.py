"""Carries out the recipes of docs/extending.md: their files, then their commands, as a reader would."""

import re
from pathlib import Path

from tests.support.console import Shell, steps

PAGE = (Path(__file__).parents[2] / "docs" / "extending.md").read_text()
FILES = dict(re.findall(r"^`([\w./-]+)`:\n\n```\w+\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))


def test_every_recipe_works_as_the_page_shows(shell: Shell, tmp_path: Path) -> None:
    for name, text in FILES.items():
        file = tmp_path / "work" / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    commands = steps(PAGE)
    assert len(commands) > 5
    for step in commands:
        shell.run(step)


def test_a_wire_and_a_kind_are_a_file_or_a_folder_and_a_line_each() -> None:
    (registry,) = (text for name, text in FILES.items() if name.endswith("entry_points.txt"))
    lines = [line for line in registry.splitlines() if "=" in line]
    places = {name.partition("/")[0] for name in FILES} - {"toy.dist-info"}
    assert len(lines) == len(places) == 2
