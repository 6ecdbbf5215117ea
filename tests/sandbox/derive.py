"""The list of system calls beside what servers under test do.

    python -m tests.sandbox.derive [PYTEST ARGUMENT...]

Runs tests of `cdna serve` (those of TESTS, or the ones that are given) with each server traced from when it
enters its sandbox, and prints what the list lacks, what it has too many of, and which files were opened.
Status 1: the list is not what it should be.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from cdna.extend.permits import Call
from cdna.lab.needs import declared
from cdna.sandbox import trace
from cdna.sandbox.calls import OWN_PID, calls_of

TESTS = ("tests/sandbox/test_serving.py", "tests/cli/test_serve.py", "tests/interop")
LIST = calls_of(call for permits in declared() for call in permits.calls)
_LINE = re.compile(r"^\d+ +(\w+)\((.*)$")
_ENTERED = re.compile(r"^\d+ +seccomp\(0x1, \w+, 0x")  # libseccomp tries out what there is with NULL
_NUMBER = re.compile(r"^(0x[0-9a-f]+|0|[1-9]\d*)(?=[,) ]|$)")
_FILE = re.compile(r'^\d+ +openat\([^"]*"([^"]*)"')


@dataclass
class Needed:
    """What the servers did. calls: each with arguments that the list looks at; used: places in the list."""

    servers: int = 0
    outside: Counter[str] = field(default_factory=Counter)
    used: Counter[tuple[str, str]] = field(default_factory=Counter)
    files: Counter[str] = field(default_factory=Counter)

    def surplus(self) -> list[str]:
        """What is in the list, was not needed, and has no reason to be there."""
        found = []
        for call in LIST:
            values = [value for one in call.only for value in one.values if value.name]
            places = [(f"{call.name}: {value.name}", value.name, value.unseen) for value in values]
            for shown, place, unseen in places or [(call.name, "", "")]:
                if not (
                    self.used[(call.name, place)] or unseen or call.unseen or call.instead_of or call.absent
                ):
                    found.append(shown)
        return found


def read(traces: Iterable[Path]) -> Needed:
    """What the traces of `cdna.sandbox.trace` show."""
    needed = Needed()
    for file in traces:
        pid = int(file.name.partition("-")[0])
        needed.servers += 1
        for line in _inside(file):
            opened = _FILE.match(line)
            if opened is not None:
                needed.files[opened[1]] += 1
            matched = _LINE.match(line)
            if matched is not None:
                _count(needed, matched[1], _arguments(matched[2]), pid)
    return needed


def _inside(file: Path) -> Iterator[str]:
    """The lines after the filter was loaded."""
    with file.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if _ENTERED.match(line):
                yield from lines


def _arguments(text: str) -> list[int]:
    """As far as they are numbers."""
    numbers = []
    for part in text.split(", "):
        number = _NUMBER.match(part)
        numbers.append(int(number[1], 0) if number is not None else 0)
    return numbers


def _count(needed: Needed, name: str, arguments: list[int], pid: int) -> None:
    for call in LIST:
        if call.name == name and (places := _places(call, arguments, pid)) is not None:
            for place in places:
                needed.used[(name, place)] += 1
            return
    needed.outside[f"{name}({', '.join(map(hex, arguments[:4]))})"] += 1


def _places(call: Call, arguments: list[int], pid: int) -> list[str] | None:
    """The values of the list that a call has; None: it is another one."""
    places = []
    for one in call.only:
        argument = arguments[one.argument] if one.argument < len(arguments) else 0
        value = one.allows(OWN_PID if argument == pid else argument)
        if value is None:
            return None
        places.append(value.name)
    return places or [""]


def report(needed: Needed) -> str:
    lines = [f"{needed.servers} servers, {len(LIST)} entries in the list"]
    lines += [f"lacks      {count:7}  {what}" for what, count in sorted(needed.outside.items())]
    lines += [f"too many            {what}" for what in needed.surplus()]
    lines += [f"opened     {count:7}  {file}" for file, count in sorted(needed.files.items())]
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    with tempfile.TemporaryDirectory(prefix="cdna-sandbox-") as place:
        command = [sys.executable, "-P", "-m", "pytest", "-q", *(arguments or TESTS)]
        tests = subprocess.run(command, env={**os.environ, trace.TO: place})
        needed = read(sorted(Path(place).iterdir()))
    print(report(needed))
    return 1 if tests.returncode or needed.outside or needed.surplus() or not needed.servers else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
