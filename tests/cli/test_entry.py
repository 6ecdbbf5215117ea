"""The ways to the command line beside the program `cdna`, and the version."""

import subprocess
import sys
from importlib.metadata import version

import cdna


def said(*argv: str) -> str:
    done = subprocess.run([sys.executable, *argv], capture_output=True, text=True, check=True)
    return done.stdout


def test_the_version() -> None:
    assert cdna.__version__ == version("cdna")


def test_as_a_module() -> None:
    assert said("-m", "cdna", "--version") == f"cdna {cdna.__version__}\n"
