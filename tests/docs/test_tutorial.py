"""Runs the tutorial, and the session of the server's page, command after command, as a reader would."""

import shutil
from pathlib import Path

import pytest

from cdna.extend.host import try_out
from cdna.nic.wires import tap_trial
from tests.support.console import Shell, steps

pytestmark = pytest.mark.alone

PAGES = Path(__file__).parents[2] / "docs"
PROGRAMS = ("bash", "python3", "ping", "curl", "iperf3", "cmp")


@pytest.mark.parametrize(("page", "least"), [("tutorial.md", 20), ("serve.md", 10)])
def test_every_command_does_what_the_page_shows(shell: Shell, page: str, least: int) -> None:
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        pytest.skip(f"the tutorial needs {', '.join(missing)}")
    tap = try_out(tap_trial.tap)
    if not tap.works:
        pytest.skip(f"the tutorial needs a namespace with a tap: {tap.reason}")
    commands = steps((PAGES / page).read_text())
    assert len(commands) > least
    for step in commands:
        shell.run(step)
