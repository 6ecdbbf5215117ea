"""Runs the tutorial, and the session of the server's page, command after command, as a reader would."""

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cdna.doctor.host import try_out
from tests.support.console import Shell, steps

pytestmark = pytest.mark.alone

ROOT = Path(__file__).parents[2]
PROGRAMS = ("bash", "python3", "ping", "curl", "iperf3", "cmp")


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """A shell with this Python's `cdna` first, and a place of its own for the control socket."""
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        pytest.skip(f"the tutorial needs {', '.join(missing)}")
    tap = try_out("tap")
    if not tap.works:
        pytest.skip(f"the tutorial needs a namespace with a tap: {tap.reason}")
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


@pytest.mark.parametrize(("page", "least"), [("tutorial.md", 20), ("serve.md", 10)])
def test_every_command_does_what_the_page_shows(shell: Shell, page: str, least: int) -> None:
    commands = steps((ROOT / "docs" / page).read_text())
    assert len(commands) > least
    for step in commands:
        shell.run(step)
