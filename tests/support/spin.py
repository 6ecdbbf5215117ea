"""Spin, the model checker, on the models of the protection protocol (docs/model.md)."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

MODELS = Path(__file__).parents[2] / "models"
SECONDS = 240  # of one search, on a machine that does other things

# Which check is left out is read when the search begins, so one compiled model serves for all of them.
WITHOUT = """
#include <stdlib.h>
static int without;
__attribute__((constructor)) static void read_without(void) { without = atoi(getenv("WITHOUT")); }
"""


def checks() -> dict[str, int]:
    """The checks of all models, by name: their numbers."""
    text = (MODELS / "checks.pml").read_text()
    return {name: int(number) for name, number in re.findall(r"^#define (\w+) +(\d+) +/\*", text, re.M)}


def made_by(model: str) -> list[str]:
    """The checks that a model makes."""
    text = (MODELS / f"{model}.pml").read_text()
    return sorted(set(re.findall(r"(?:MADE|BROKEN)\((\w+)", text)), key=checks().__getitem__)


@dataclass
class Result:
    """What a search has said."""

    text: str

    @property
    def violated(self) -> str | None:
        """The assertion that does not hold in some run."""
        found = re.search(r"assertion violated (.*) \(at depth", self.text)
        return found[1] if found else None

    @property
    def complete(self) -> bool:
        """All states were visited, and every assertion held."""
        cut = re.search(r"max search depth too small|out of memory|Search not completed", self.text)
        return "errors: 0" in self.text and cut is None

    @property
    def states(self) -> int:
        found = re.search(r"(\d+) states, stored", self.text)
        return int(found[1]) if found else 0

    @property
    def unreached(self) -> list[str]:
        """Statements that no run executes."""
        return re.findall(r'^\t\w+\.pml:\d+, state \d+, "(.*)"$', self.text, re.M)


class Search:
    """A compiled search through a model's states. It runs in a process of its own."""

    def __init__(self, model: str, directory: Path, *, leaving_out: bool = False) -> None:
        self.directory = directory
        options = ["-DWITHOUT=c_expr{without}"] if leaving_out else []
        self._do("spin", "-a", *options, str(MODELS / f"{model}.pml"))
        flags = ["-O1", "-include", "without.h"] if leaving_out else ["-O2", "-DMEMLIM=4000"]
        (directory / "without.h").write_text(WITHOUT)
        self._do("gcc", "-w", "-DSAFETY", *flags, "-o", "pan", "pan.c")

    def _do(self, *command: str) -> None:
        done = subprocess.run(command, cwd=self.directory, capture_output=True, text=True, timeout=SECONDS)
        assert done.returncode == 0, done.stdout + done.stderr

    def start(self, without: int = 0, depth: int = 3_000_000, hash_bits: int = 24) -> subprocess.Popen[str]:
        command = [str(self.directory / "pan"), f"-m{depth}", f"-w{hash_bits}"]
        env = {**os.environ, "WITHOUT": str(without)}
        return subprocess.Popen(
            command, cwd=self.directory, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )

    def run_without(self, check: int) -> Result:
        """A search that ends where something goes wrong, which is seldom deep."""
        return finish(self.start(check, depth=500_000, hash_bits=20))


def finish(search: subprocess.Popen[str]) -> Result:
    with search:
        try:
            return Result(search.communicate(timeout=SECONDS)[0])
        except subprocess.TimeoutExpired:
            search.kill()
            raise
