"""What Python would import, or do for the first time, when no file can be opened any more.

Most of a server's modules are there once it serves. These are those that a request, an error or the end asks
for. A module that is missed here fails to import in the sandbox; python -m cdna.sandbox.derive tells of it.
"""

from __future__ import annotations

import contextlib
import importlib
import pwd
import sys
from collections.abc import Collection
from typing import TYPE_CHECKING

from cdna.sandbox import calls

if TYPE_CHECKING:
    from cdna.lab.lab import Lab

ALWAYS = (
    "cdna.cli.output",
    "cdna.lab.capture",
    "cdna.lab.kinds.synthetic",
    "cdna.lab.kinds.vhost_user",
    "cdna.lab.metrics",
    "cdna.lab.rates",
    "cdna.report.lab_table",
    "cdna.vmm.vhost_user",
    "concurrent.futures.thread",
    "encodings.ascii",
    "encodings.idna",
    "encodings.latin_1",
    "tempfile",
    "traceback",
)
BY_PART = {
    calls.TAP: ("pyroute2",),
    calls.NAMESPACES: (
        "cdna.lab.kinds.namespace",
        "cdna.nic.tap",
        "pyroute2",
        "pyroute2.netns",
        "pyroute2.ethtool.ioctl",
    ),
}


def preload(parts: Collection[str]) -> None:
    """Imports what these parts of the list of system calls stand for."""
    for module in (*ALWAYS, *(module for part in parts for module in BY_PART.get(part, ()))):
        importlib.import_module(module)
    make_no_code()
    with contextlib.suppress(KeyError):
        pwd.getpwnam("nobody of this name")  # the C library loads what looks up users


def make_no_code() -> None:
    """Has the interpreter make no machine code for perf(1): PYTHONPERFSUPPORT asks for that (Python 3.12)."""
    stop = getattr(sys, "deactivate_stack_trampoline", None)
    if stop is not None:
        stop()


def rehearse(lab: Lab) -> None:
    """Does once what a server does later, so that what is made at the first use is made now."""
    from cdna.cli import output
    from cdna.lab.metrics import metrics_text
    from cdna.report.lab_table import rates_table, totals_table

    style = output.style()
    style.render(totals_table(lab.totals(), style))
    style.render(rates_table(lab.traffic(), style))
    metrics_text(lab)
    lab.describe()
    lab.wire()
