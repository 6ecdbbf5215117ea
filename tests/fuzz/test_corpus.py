"""What the coverage-guided fuzzers keep, in an ordinary build: nothing is found by any of it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fuzz.catalogue import TARGETS, corpus, regressions

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("target", TARGETS)
def test_nothing_is_found(target):
    """In a process of its own: a target sets the process up as a fuzzer wants it."""
    number = len([*corpus(target), *regressions(target)])
    assert number, "there is a corpus for each target"
    done = subprocess.run(
        [sys.executable, "-m", "fuzz.replay", target],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.environ.get("PYTHONPATH", str(ROOT))},
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""
    assert done.stdout == f"{target}: {number} inputs, nothing found\n"
    assert done.returncode == 0
