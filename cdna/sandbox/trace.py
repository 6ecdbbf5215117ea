"""A record of what a server does in its sandbox, by strace: what the list of system calls is compared with.

With CDNA_SANDBOX_TRACE=DIRECTORY in its environment a server is traced from the moment when it enters its
sandbox, which only logs then. Needs root, or a kernel that lets a child trace its parent.
"""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

from cdna.errors import ResourceError

TO = "CDNA_SANDBOX_TRACE"
PATIENCE = 30.0  # seconds
# Numbers, as the filter sees them; names of files where there are any.
STRACE = (
    "strace",
    "-f",
    "-qq",
    "-s",
    "200",
    "-e",
    "signal=none",
    "-e",
    "raw=!openat,newfstatat,readlink,execve",
)


def begin(directory: str) -> None:
    """Has every thread of this process traced, to a file in `directory`. ResourceError: it cannot be."""
    file = Path(directory, f"{os.getpid()}-{time.monotonic_ns()}.strace")
    try:
        tracer = subprocess.Popen(
            [*STRACE, "-o", str(file), "-p", str(os.getpid())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError as error:
        raise ResourceError(f"strace: {error.strerror}; {TO} needs it") from None
    deadline = time.monotonic() + PATIENCE
    while not all(map(_is_traced, os.listdir("/proc/self/task"))):
        if tracer.poll() is not None or time.monotonic() > deadline:
            raise ResourceError(f"strace cannot trace this process; {TO} needs root")
        time.sleep(0.01)


def _is_traced(thread: str) -> bool:
    try:
        status = Path("/proc/self/task", thread, "status").read_text(encoding="ascii")
    except FileNotFoundError:
        return True  # it has ended
    return "\nTracerPid:\t0\n" not in status
