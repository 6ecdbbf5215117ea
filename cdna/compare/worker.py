"""The process that runs slices, one line of JSON in and one out; the runner starts it.

It stands between the command and the domains: it forks them, so it has no threads, and when its standard
input closes it ends, and with it every process of the slice.
"""

from __future__ import annotations

import json
import os
import signal

from cdna.compare.plan import Case
from cdna.compare.scene import run_slice
from cdna.errors import CdnaError
from cdna.nic.traffic import Load


class Lines:
    """Lines of a descriptor, read without a buffer that would hide from `poll` what has come."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.rest = b""

    def next(self) -> bytes | None:
        while b"\n" not in self.rest:
            chunk = os.read(self.fd, 65536)
            if not chunk:
                return None
            self.rest += chunk
        line, _, self.rest = self.rest.partition(b"\n")
        return line


def main() -> int:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the command decides; it closes our standard input
    load: Load | None = None
    lines = Lines(0)
    while (line := lines.next()) is not None:
        task = json.loads(line)
        try:
            if load is None:
                load = Load.parse(str(task["case"]["size"]), verify=task["verify"])
            result = run_slice(Case(**task["case"]), load, task["seconds"], task["line_rate"], stop_fd=0)
        except CdnaError as error:
            result = {"error": str(error)}
        if not _answer(json.dumps(result) + "\n"):
            break
    return 0


def _answer(line: str) -> bool:
    """Writes a line for the command. False: nobody is left to read it."""
    left = line.encode()
    try:
        while left:
            left = left[os.write(1, left) :]
    except BrokenPipeError:
        return False
    return True
