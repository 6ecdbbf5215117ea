"""Where a backend's cycles go while frames are counted: `perf record` of the process, by its CPU's clock.

Samples fall on functions; a build with `CDNA_CFLAGS=-g` has lines as well, which `perf annotate` then shows.
The clock stands in for a cycle counter, which a virtual machine seldom has.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

from cdna.errors import ResourceError

HERTZ = 4999  # not in step with anything that happens every millisecond
SHOWN = 20  # functions


@contextlib.contextmanager
def recorded(pid: int, file: Path) -> Iterator[None]:
    if shutil.which("perf") is None:
        raise ResourceError("perf is missing: apt-get install linux-perf")
    record = ["perf", "record", "-q", "-e", "cpu-clock", "-F", str(HERTZ), "-p", str(pid), "-o", str(file)]
    perf = subprocess.Popen(
        record, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    try:
        yield
    finally:
        perf.send_signal(signal.SIGINT)
        _, said = perf.communicate()
    if not file.exists():
        raise ResourceError(f"perf record: {said.decode(errors='replace').strip() or 'no samples'}")


def report(file: Path) -> str:
    """The functions that most samples fell on."""
    command = ["perf", "report", "--stdio", "-i", str(file), "--sort", "dso,symbol"]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    lines = [line.rstrip(" -") for line in done.stdout.splitlines() if line.strip() and line[0] != "#"]
    if not lines:
        return f"{file}: no samples"
    return "\n".join([f"{file}:", *lines[:SHOWN], f"lines of code: perf annotate --stdio -l -i {file}"])
