"""Commands that start processes, run in a directory of modules that none of these processes may import."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cdna.vm.server import cdna

# -P: as the installed program, which does not look for modules in the current directory either.
CDNA = [sys.executable, "-P", "-c", "import sys; from cdna.cli import main; sys.exit(main())"]
MODULES = ("fuzz", "json", "numpy", "rich", "sitecustomize", "typer", "typing")
TRAP = """
import os
os.close(os.open(os.environ["SPRUNG"], os.O_CREAT | os.O_WRONLY))
"""

COMMANDS = {
    "fuzz": ("fuzz", "--seconds", "0.5", "--jobs", "2"),
    "fuzz --replay": ("fuzz", "--replay", "case.json"),
    "compare": ("compare", "--guests", "1", "--path", "cdna", "--seconds", "0.05"),
    "doctor": ("doctor",),
    "serve": ("serve", "--socket", "control", "--context", "vhost-user:guest.sock", "--for", "0.1"),
}


@pytest.fixture
def trap(tmp_path: Path) -> Path:
    """A directory with modules that say when they are imported, as packages and as files."""
    place = tmp_path / "trap"
    place.mkdir()
    (place / "cdna").mkdir()
    for file in ("cdna/__init__.py", *(f"{name}.py" for name in MODULES)):
        (place / file).write_text(TRAP)
    case = {"cdna fuzz": 1, "case": {"campaign": "model", "seed": 1}}
    (place / "case.json").write_text(json.dumps(case))
    return place


def run(trap: Path, *command: str) -> subprocess.CompletedProcess[str]:
    sprung = trap.parent / "sprung"
    path = os.pathsep.join(os.path.abspath(place) for place in sys.path if place)
    done = subprocess.run(
        command,
        cwd=trap,
        env={**os.environ, "PYTHONPATH": path, "SPRUNG": str(sprung)},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert not sprung.exists(), done.stderr
    return done


@pytest.mark.parametrize("name", COMMANDS)
def test_no_module_of_it_is_imported(trap: Path, name: str) -> None:
    done = run(trap, *CDNA, *COMMANDS[name])
    assert done.returncode == 0, done.stderr


def test_nor_by_the_server_of_virtual_machines_and_benchmarks(trap: Path) -> None:
    assert run(trap, *cdna("--version")).stdout.startswith("cdna ")


def test_the_trap_works(trap: Path) -> None:
    with pytest.raises(AssertionError):
        run(trap, sys.executable, "-c", "import cdna")
