"""Carries out the recipes of docs/extending.md: their files, then their commands, as a reader would."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.console import Shell, steps

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "extending.md").read_text()
FILES = dict(re.findall(r"^`([\w./-]+)`:\n\n```\w+\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))
# Files of this package, and what the page's lines go in front of; None: they go to the end.
OURS = {"cdna/settings.py": "\n\n\nSETTINGS:", "ext/cdna/nic/options.pyx": None}
COMPILE = """
from pathlib import Path
from setup import BuildExt, extension, setup
setup(
    script_args=["-q", "build_ext", "--build-lib=."],
    ext_modules=[extension(Path("ext/cdna/nic/options.pyx"))],
    cmdclass={"build_ext": BuildExt},
)
"""


@pytest.mark.timeout(900)  # a module is compiled, on a busy machine too
def test_every_recipe_works_as_the_page_shows(shell: Shell, tmp_path: Path) -> None:
    pytest.importorskip("Cython", reason="an option of the NIC has to be compiled")
    work = tmp_path / "work"
    linked = shutil.ignore_patterns("__pycache__", "*.c")
    for tree in ("cdna", "ext"):
        shutil.copytree(ROOT / tree, work / tree, copy_function=_link, ignore=linked)
    (work / "setup.py").symlink_to(ROOT / "setup.py")
    for name, text in FILES.items():
        file = work / name
        file.parent.mkdir(exist_ok=True)
        if name in OURS:
            file.unlink()
            text = _with_lines((ROOT / name).read_text(), text.rstrip(), OURS[name])
        file.write_text(text)
    next((work / "cdna/nic").glob("options.*.so")).unlink()
    subprocess.run([sys.executable, "-c", COMPILE], cwd=work, check=True)
    commands = steps(PAGE)
    assert len(commands) > 10
    for step in commands:
        shell.run(step)


def _with_lines(before: str, lines: str, end: str | None) -> str:
    if end is None:
        return f"{before}\n\n{lines}\n"
    assert before.count(end) == 1
    return before.replace(end, f"\n{lines}{end}")


def _link(source: str, target: str) -> None:
    Path(target).symlink_to(source)


def test_a_wire_and_a_kind_are_a_file_or_a_folder_and_a_line_each() -> None:
    (registry,) = (text for name, text in FILES.items() if name.endswith("entry_points.txt"))
    lines = [line for line in registry.splitlines() if "=" in line]
    places = {name.partition("/")[0] for name in FILES if name not in OURS} - {"toy.dist-info"}
    assert len(lines) == len(places) == 2


def test_a_setting_touches_three_files() -> None:
    rows = dict(re.findall(r"^\| `([\w./]+)` \| .*`(\w+)` *\|$", PAGE, re.MULTILINE))
    assert len(rows) == 3
    assert OURS.keys() < rows.keys()
    for file, place in rows.items():
        assert re.search(rf"\b{place}\b", (ROOT / file).read_text()), file
    sources = [file for file in (ROOT / "cdna").rglob("*.py*") if file.suffix in {".py", ".pyi"}]
    named = [file for file in sources if "anti_spoof" in file.read_text()]
    assert [file for file in named if {"lab", "cli", "nic"} & set(file.parts)] == []
