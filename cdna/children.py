"""Python processes of this package: they import what this one does, and nothing of the current directory."""

from __future__ import annotations

import json
import os
import sys

# -P keeps the current directory out of the path; then the path becomes this process's own, and nothing else.
_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv.pop(1)); from importlib import import_module; "
    "sys.exit(import_module(sys.argv.pop(1)).main())"
)


def python(module: str, *arguments: str) -> list[str]:
    """The command line of a process that calls `main()` of a module, with the arguments in sys.argv."""
    alone = "-I" if sys.flags.isolated else "-P"
    return [sys.executable, alone, "-c", _START, json.dumps(sys.path), module, *arguments]


def worker_environment() -> dict[str, str]:
    """For processes that work side by side, one for each core: numpy starts no threads in them."""
    return {**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
