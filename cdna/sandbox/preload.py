"""What Python would import, or do for the first time, when no file can be opened any more.

Most of a server's modules are there once it serves. These are those that a request, an error or the end asks
for. A module that is missed here fails to import in the sandbox; python -m tests.sandbox.derive tells of it.
"""

from __future__ import annotations

import contextlib
import importlib
import pwd
import sys
from collections.abc import Iterable

ALWAYS = (
    "concurrent.futures.thread",
    "encodings.ascii",
    "encodings.idna",
    "encodings.latin_1",
    "tempfile",
    "traceback",
)


def preload(modules: Iterable[str]) -> None:
    """Imports these modules, and what every server needs."""
    for module in (*ALWAYS, *modules):
        importlib.import_module(module)
    make_no_code()
    with contextlib.suppress(KeyError):
        pwd.getpwnam("nobody of this name")  # the C library loads what looks up users


def make_no_code() -> None:
    """Has the interpreter make no machine code for perf(1): PYTHONPERFSUPPORT asks for that (Python 3.12)."""
    stop = getattr(sys, "deactivate_stack_trampoline", None)
    if stop is not None:
        stop()
