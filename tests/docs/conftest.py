"""A shell in which the commands of a page are run."""

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.console import Shell

ROOT = Path(__file__).parents[2]


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """A shell with this Python's `cdna` first, and a place of its own for the control socket."""
    if shutil.which("bash") is None:
        pytest.skip("a page's commands need bash")
    runtime, work = tmp_path / "runtime", tmp_path / "work"
    runtime.mkdir(0o700)
    work.mkdir()
    path = f"{_programs(tmp_path)}{os.pathsep}{os.environ['PATH']}"
    shell = Shell(
        work, {**os.environ, "PATH": path, "XDG_RUNTIME_DIR": str(runtime), "PYTHONPATH": str(ROOT)}
    )
    yield shell
    shell.close()
    assert list(runtime.rglob("*.sock")) == []


def _programs(tmp_path: Path) -> Path:
    """The directory with `cdna`: this Python's, or one made here where the package is not installed."""
    beside = Path(sys.executable).parent
    if (beside / "cdna").exists():
        return beside
    made = tmp_path / "bin"
    made.mkdir()
    command = made / "cdna"
    command.write_text(f"#!{sys.executable}\nimport sys\nfrom cdna.cli import main\nsys.exit(main())\n")
    command.chmod(0o755)
    return made
