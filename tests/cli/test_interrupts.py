"""Ctrl-C at any moment of a command's start: no traceback."""

import signal
import subprocess
import sys

import pytest

# Interrupts itself when the module that is named first begins to be imported, as a user's Ctrl-C might.
CODE = """
import os, signal, sys
class Interrupt:
    def find_spec(self, name, path, target=None):
        if name == MODULE:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupt())
MODULE = sys.argv.pop(1)
signal.signal(signal.SIGINT, {handler})
from cdna.cli import {entry}
sys.exit({entry}())
"""
MODULES = {
    "cdna.cli.program": ["doctor"],
    "typer": ["ctl", "list"],
    "rich.table": ["top"],
    "cdna.cli.up": ["up", "--guests", "1"],
    "cdna.cli.capture": ["capture", "all", "-w", "-"],
    "cdna.fuzz.crew": ["fuzz"],
    "cdna.version": ["--version"],
}


def interrupted(
    module: str, *argv: str, entry: str = "main", handler: str = "signal.default_int_handler"
) -> subprocess.CompletedProcess[str]:
    code = CODE.format(entry=entry, handler=handler)
    return subprocess.run(
        [sys.executable, "-c", code, module, *argv], capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize("module", MODULES)
def test_an_interrupt_while_a_command_is_imported(module: str) -> None:
    done = interrupted(module, *MODULES[module])
    said = done.stderr.splitlines()
    assert (done.returncode, len(said)) in ((-signal.SIGINT, 0), (130, 1)), done.stderr
    assert not said or said[0].endswith(": interrupted")


def test_an_interrupt_while_the_program_for_wireshark_is_imported() -> None:
    done = interrupted("argparse", "--extcap-dlts", entry="extcap")
    assert (done.returncode, done.stderr) == (-signal.SIGINT, "")


def test_an_interrupt_that_is_ignored_stays_so() -> None:
    """As nohup and a shell's background jobs have it."""
    done = interrupted("typer", "--version", handler="signal.SIG_IGN")
    assert (done.returncode, done.stderr) == (0, "")
