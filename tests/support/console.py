"""Runs what a page shows: fenced blocks of commands and what they print, in one shell.

    ```console
    $ a command
    > that goes on
    what it prints
    ```

What is shown has to be among what is printed, line after line; the width of white space does not count. `...`
in a line stands for anything, a line of it for any number of lines. "console repeat" runs a command until it
prints what is shown, "console about" takes numbers that are within a tenth.
"""

import os
import re
import select
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

PATIENCE = 60.0  # seconds that a command may take, or that what it shows may be late
TOLERANCE = 0.1
IN_A_ROW = 3  # times that a command which is repeated shows it: once may be by chance
_NUMBER = re.compile(r"\d+(\.\d+)?")


@dataclass
class Step:
    """A command, and the lines that it shows; `line` is where it stands in its page."""

    line: int
    command: str
    shown: list[str] = field(default_factory=list)
    flags: frozenset[str] = frozenset()


def steps(text: str) -> list[Step]:
    """The commands of a page, in order."""
    found: list[Step] = []
    flags: frozenset[str] | None = None
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("```"):
            words = line.removeprefix("```").split()
            flags = frozenset(words[1:]) if flags is None and words[:1] == ["console"] else None
        elif flags is None:
            continue
        elif line.startswith("$ "):
            found.append(Step(number, line[2:], flags=flags))
        elif line.startswith("> ") and not found[-1].shown:
            found[-1].command += f"\n{line[2:]}"
        else:
            found[-1].shown.append(line)
    return found


def prints(shown: Sequence[str], lines: Sequence[str], about: bool = False) -> bool:
    """Whether `shown` is among `lines`."""
    return any(_from_here(shown, lines[i:], about) for i in range(len(lines) + 1))


def _from_here(shown: Sequence[str], lines: Sequence[str], about: bool) -> bool:
    if not shown:
        return True
    if shown[0].strip() == "...":
        return prints(shown[1:], lines, about)
    return bool(lines) and _same(shown[0], lines[0], about) and _from_here(shown[1:], lines[1:], about)


def _same(shown: str, line: str, about: bool) -> bool:
    numbers = [float(number[0]) for number in _NUMBER.finditer(shown)] if about else []
    parts = []
    for part in re.split(r"(\.\.\.|\s+)", shown.strip()):
        if part == "...":
            parts.append(".*")
        elif part.isspace():
            parts.append(r"\s+")
        elif about:
            parts.append(_NUMBER.sub(r"(\\d+(?:\\.\\d+)?)", re.escape(part).replace(r"\.", ".")))
        else:
            parts.append(re.escape(part))
    match = re.fullmatch("".join(parts), line.strip())
    if match is None:
        return False
    return all(abs(float(m) - n) <= TOLERANCE * n for m, n in zip(match.groups(), numbers, strict=True))


class Shell:
    """A bash of its own session, with nothing on its standard input."""

    def __init__(self, directory: Path, environment: Mapping[str, str]) -> None:
        script, self._script = os.pipe()
        self._out, out = os.pipe()
        os.set_blocking(self._out, False)
        self.process = subprocess.Popen(
            ["bash", "--noprofile", "--norc", f"/dev/fd/{script}"],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            pass_fds=(script,),
            cwd=directory,
            env=dict(environment),
            start_new_session=True,
        )
        os.close(script)
        os.close(out)
        self._text = ""
        self._commands = 0

    def run(self, step: Step) -> None:
        """Runs a command. AssertionError: it failed, or did not print what is shown."""
        deadline = time.monotonic() + PATIENCE
        wanted = IN_A_ROW if "repeat" in step.flags else 1
        times = 0
        while True:
            status, lines = self._once(step, deadline)
            right = prints(step.shown, lines, "about" in step.flags)
            times = times + 1 if right else 0
            if times == wanted or "repeat" not in step.flags or time.monotonic() > deadline:
                break
        printed = "\n".join(lines)
        assert right, f"line {step.line}: {step.command}\nprinted:\n{printed}"
        # A command that is shown to fail shows its error.
        fails = step.shown[:1] and step.shown[0].startswith("cdna") and "&" not in step.command
        assert status == 0 or fails, f"line {step.line}: {step.command}\nended with {status}:\n{printed}"

    def _once(self, step: Step, deadline: float) -> tuple[int | None, list[str]]:
        """The status of a command and what is printed until it has ended and shown what it should."""
        self._commands += 1
        mark = f"<<{self._commands}:"
        self._text = ""
        os.write(self._script, f'{step.command}\necho "{mark}$?>>"\n'.encode())
        status: int | None = None
        while True:
            ended = re.search(rf"{re.escape(mark)}(\d+)>>\n", self._text)
            status = int(ended[1]) if ended else None
            lines = re.sub(rf"{re.escape(mark)}\d+>>\n", "", self._text).splitlines()
            late = "&" in step.command and not prints(step.shown, lines)
            if status is not None and not late:
                return status, lines
            if time.monotonic() > deadline or not self._read(deadline):
                return status, lines

    def _read(self, deadline: float) -> bool:
        """Takes what is printed. False: nothing comes any more."""
        readable, _, _ = select.select([self._out], [], [], max(0.0, deadline - time.monotonic()))
        if not readable:
            return False
        taken = os.read(self._out, 65536)
        self._text += taken.decode(errors="replace")
        return bool(taken)

    def close(self) -> None:
        """Ends the shell and whatever it has started."""
        os.close(self._script)
        for number, patience in ((signal.SIGTERM, 20.0), (signal.SIGKILL, 20.0)):
            try:
                os.killpg(self.process.pid, number)
            except ProcessLookupError:
                break
            deadline = time.monotonic() + patience
            while self._read(deadline):
                pass
        self.process.wait()
        os.close(self._out)
