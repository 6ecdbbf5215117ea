"""The machine as the checks see it: its files, its programs, and things tried out. A test gives its own."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cdna.extend.finding import Finding

TRIAL_SECONDS = 20.0
_HARNESS = Path(__file__).with_name("trial.py")


@dataclass(frozen=True)
class Trial:
    """How trying something out ended: at which step, with which errno; 0: it works."""

    errno: int = 0
    step: str = ""

    @property
    def works(self) -> bool:
        return self.errno == 0

    @property
    def reason(self) -> str:
        return f"{self.step}: {os.strerror(self.errno)}"


def try_out(trial: Callable[[], None]) -> Trial:
    """Tries something out in a process of its own (`cdna.extend.trial`), which takes all traces with it."""
    name = trial.__name__
    try:
        ended = subprocess.run(
            [sys.executable, "-I", "-S", str(_HARNESS), trial.__code__.co_filename, name],
            capture_output=True,
            text=True,
            timeout=TRIAL_SECONDS,
            check=False,
        )
        number, _, step = ended.stdout.strip().partition(" ")
        return Trial(int(number), step)
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return Trial(int(os.EX_OSERR), f"trying out {name}")


def output_of(command: Sequence[str]) -> str | None:
    """What a program prints on standard output; None if it cannot be run or fails."""
    try:
        ended = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=TRIAL_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return ended.stdout if ended.returncode == 0 else None


@dataclass(frozen=True)
class Host:
    """root: where /proc, /sys, /dev and /usr are; package: the directory of the package `cdna`."""

    root: Path = Path("/")
    package: Path = Path(__file__).parents[1]
    uid: int = field(default_factory=os.getuid)
    affinity: frozenset[int] = field(default_factory=lambda: frozenset(os.sched_getaffinity(0)))
    which: Callable[[str], str | None] = shutil.which
    output: Callable[[Sequence[str]], str | None] = output_of
    trial: Callable[[Callable[[], None]], Trial] = try_out

    def read(self, path: str) -> str | None:
        """The text of a file such as "proc/meminfo"; None if it cannot be read."""
        try:
            return (self.root / path).read_text(errors="replace").strip()
        except OSError:
            return None

    def integer(self, path: str) -> int | None:
        text = self.read(path)
        return int(text) if text is not None and text.lstrip("-").isdigit() else None

    def exists(self, path: str) -> bool:
        return (self.root / path).exists()

    def as_root(self, command: str) -> str:
        """The command as this user has to type it."""
        return command if self.uid == 0 else f"sudo {command}"

    def install(self, package: str) -> str:
        """The command that installs a package, by its name in Debian."""
        for manager in ("apt-get", "dnf"):
            if self.which(manager):
                name = package if manager == "apt-get" else FEDORA.get(package, package)
                return self.as_root(f"{manager} install {name}")
        return f"install the package that Debian calls {package}"

    def version(self, program: str, option: str) -> str:
        """The first thing in a program's answer to `option` that looks like a version."""
        found = re.search(r"\d+(\.\d+)+[\w.-]*|\b\d{8}\b", self.output([program, option]) or "")
        return found[0].rstrip(".-") if found else "there"


FEDORA = {
    "dpdk-dev": "dpdk",
    "iproute2": "iproute",
    "iputils-ping": "iputils",
    "qemu-system-x86": "qemu-system-x86-core",
    "tshark": "wireshark-cli",
}


def integers_of(ranges: str | None) -> frozenset[int]:
    """The numbers of a list as the kernel writes it, such as 0-3,8."""
    numbers: set[int] = set()
    for part in (ranges or "").split(","):
        first, _, last = part.strip().partition("-")
        if first.isdigit() and (last or first).isdigit():
            numbers.update(range(int(first), int(last or first) + 1))
    return frozenset(numbers)


def ranges_of(numbers: frozenset[int]) -> str:
    """The other way: {0, 1, 2, 5} is 0-2,5."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ",".join(str(p[0]) if len(p) == 1 else f"{p[0]}-{p[-1]}" for p in parts)


Check = Callable[[Host], Finding | list[Finding]]
