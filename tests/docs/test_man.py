"""The man pages and the systemd unit say what the command line knows."""

import importlib.util
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
import typer

from cdna.cli.program import COMMANDS, command_line

ROOT = Path(__file__).parents[2]
MAN = ROOT / "man"
PAGES = MAN / "man1"
UNIT = ROOT / "packaging" / "cdna-serve@.service"


@pytest.fixture(scope="module")
def make() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_man", MAN / "make.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_pages_are_those_of_the_command_line(make: ModuleType) -> None:
    made = make.pages()
    assert {path.name for path in PAGES.glob("*.1")} == made.keys(), "run make man"
    assert [name for name, text in made.items() if (PAGES / name).read_text() != text] == [], "run make man"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_there_and_no_other(name: str) -> None:
    page = (PAGES / f"cdna-{name}.1").read_text().replace("\\-", "-")
    options = page.partition(".SH OPTIONS\n")[2]
    shown = set(re.findall(r"^\.TP\n(\\fB-.*)$", options, re.MULTILINE))
    named = {word for line in shown for word in re.findall(r"\\fB(--?[A-Za-z-]+)\\fR", line)}
    command = typer.main.get_command(command_line(COMMANDS)).commands[name]  # type: ignore[attr-defined]
    every = [command, *getattr(command, "commands", {}).values()]
    known = {word for c in every for p in c.params if p.param_type_name == "option" for word in p.opts}
    assert named == known


@pytest.mark.parametrize("page", sorted(path.name for path in PAGES.glob("*.1")))
@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not installed")
def test_nothing_to_warn_of(page: str) -> None:
    done = subprocess.run(
        ["groff", "-man", "-Tutf8", "-ww", "-z", str(PAGES / page)], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(shutil.which("man") is None, reason="man is not installed")
@pytest.mark.parametrize("page", ["cdna", "cdna-up"])
def test_they_are_found_in_the_source_tree(page: str) -> None:
    done = subprocess.run(["man", "-M", str(MAN), "-w", page], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"{PAGES}/{page}.1\n")


def test_they_are_shipped() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    files = project["tool"]["setuptools"]["data-files"]
    assert files["share/man/man1"] == ["man/man1/*.1"]
    assert files["lib/systemd/system"] == [str(UNIT.relative_to(ROOT))]


def test_the_unit_starts_a_command_that_there_is() -> None:
    (line,) = re.findall(r"^ExecStart=(.*)$", UNIT.read_text(), re.MULTILINE)
    program, name, *words = shlex.split(line)
    assert (Path(program).name, name) == ("cdna", "serve")
    command = typer.main.get_command(command_line(["serve"]))
    if hasattr(command, "commands"):
        command = command.commands["serve"]
    known = {option for param in command.params for option in param.opts}
    assert {word for word in words if word.startswith("--")} <= known


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/usr/bin/cdna", "/bin/true"))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True
    )
    mine = [line for line in done.stderr.splitlines() if "cdna-serve" in line]
    assert (done.returncode, mine) == (0, [])
