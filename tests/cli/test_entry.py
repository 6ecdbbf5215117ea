"""The ways to the command line beside the program `cdna`, completions, and the version."""

import errno
import os
import shlex
import subprocess
import sys
from importlib.metadata import version

import pytest

import cdna
from cdna.cli import main
from tests.support.lab import CDNA


def said(*argv: str) -> str:
    done = subprocess.run([sys.executable, *argv], capture_output=True, text=True, check=True)
    return done.stdout


def test_the_version() -> None:
    assert cdna.__version__ == version("cdna")


def test_as_a_module() -> None:
    assert said("-m", "cdna", "--version") == f"cdna {cdna.__version__}\n"


def completions(words: str) -> list[str]:
    """What bash is offered for the last of these words."""
    asked = {"_CDNA_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    done = subprocess.run([*CDNA], env={**os.environ, **asked}, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


def test_completions() -> None:
    assert completions("cdna c") == ["capture", "compare", "ctl"]
    assert completions("cdna ctl re") == ["remove", "reset"]
    assert completions("cdna top --in") == ["--interval"]


def test_a_script_for_a_shell() -> None:
    asked = f"{shlex.join(CDNA)} --show-completion; exit"  # its parent stays: bash
    done = subprocess.run(["bash", "-c", asked], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "complete -o default -F _cdna_completion cdna" in done.stdout


def test_an_error_names_the_help_of_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ctl", "set"]) == 2
    assert "(cdna ctl set --help shows what there is)" in capsys.readouterr().err
    assert main(["ctl", "set", "web", "rate"]) == 2
    assert "(cdna ctl set --help)" in capsys.readouterr().err


def test_a_broken_pipe_that_is_not_standard_output_s_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(case: object) -> None:
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

    monkeypatch.setattr("cdna.fuzz.runner.read_case", lambda name: {})
    monkeypatch.setattr("cdna.fuzz.runner.replay", fail)
    assert main(["fuzz", "--replay", "case.json"]) == 2
    assert capsys.readouterr().err == "cdna fuzz: Broken pipe\n"
