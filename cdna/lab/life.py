"""A lab in this process, from its plan to its end: its sockets, its sandbox, its looks at the counters."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cdna.base.sockets import is_left_over
from cdna.interrupts import held
from cdna.lab import privilege
from cdna.lab.control import ControlServer, check_free, default_path, make_directory
from cdna.lab.host_end import wait_until_gone
from cdna.lab.kinds import kinds_of
from cdna.lab.notify import notify
from cdna.nic.wires import named_wire

if TYPE_CHECKING:
    from cdna.base.stopping import Stop
    from cdna.lab.lab import Lab
    from cdna.lab.plan import LabPlan
    from cdna.lab.rates import Traffic
    from cdna.sandbox import Needs

INTERVAL = 1.0  # seconds between two looks at the counters
GRACE = 10.0  # seconds that the devices of a lab that was killed have to go

Look = Callable[[Sequence["Traffic"]], None]


def run(
    plan: LabPlan,
    stop: Stop,
    say: Callable[[Lab, str], None],
    watching: Callable[[], AbstractContextManager[Look]],
    *,
    socket: str | None = None,
    seconds: float = math.inf,
    confine: Callable[[LabPlan, str], Needs] | None = None,
) -> dict[str, Any]:
    """Runs a lab until it is told to end. Returns its final totals, as JSON takes them.

    say: called with the lab and its control socket when it is in service. watching: what `Look` is called
    within, every INTERVAL. confine: what a sandbox leaves this process, which enters it when everything is
    open, and stays there; what is called later imports nothing. A user other than root who starts guests
    that take it enters a user namespace: this process has one thread until then.
    """
    with ExitStack() as outer, ExitStack() as undo:
        path = socket or plan.socket or outer.enter_context(_default_socket())
        with stop.at_once():
            needs = None if confine is None else lambda: confine(plan, path)
            lab = _start(plan, path, needs, undo)
        started = time.monotonic()
        with stop.soon():
            say(lab, path)
            notify("READY=1")
            _watch(lab, stop, started + seconds, watching)
        notify("STOPPING=1")
        return {
            "seconds": round(time.monotonic() - started, 3),
            "guests": [t.as_dict() for t in lab.totals()],
            "wire": lab.wire(),
        }


def _start(plan: LabPlan, path: str, needs_of: Callable[[], Needs] | None, undo: ExitStack) -> Lab:
    """A lab in service, which `undo` ends."""
    check_free(path)
    wire, said = named_wire(plan.wire)
    device = wire.host_device(said)
    if device is not None and is_left_over(path):
        wait_until_gone(device, GRACE)
    confined = needs_of is not None
    privileged = not confined or any(kind.privileged for kind in kinds_of(plan.guests))
    user_fd = privilege.gain_fd() if privileged else None
    from cdna.lab.capture import capture_handlers
    from cdna.lab.commands import handlers
    from cdna.lab.lab import Lab  # numpy among what it needs: not before the user namespace

    needs = None if needs_of is None else needs_of()
    lab = undo.enter_context(Lab(replace(plan, socket=path)))
    with held():
        if plan.metrics is not None:
            from cdna.lab.metrics_server import MetricsServer

            undo.enter_context(MetricsServer(plan.metrics, lab))
        undo.enter_context(ControlServer(path, {**handlers(lab, user_fd), **capture_handlers(lab)}))
        if needs is not None:
            lab.confine(needs)
    return lab


def _watch(lab: Lab, stop: Stop, until: float, watching: Callable[[], AbstractContextManager[Look]]) -> None:
    """Looks at the counters until it is told to end or the time is over."""
    with watching() as look:
        while not stop.is_set() and time.monotonic() < until:
            look(lab.sample())
            stop.wait(min(INTERVAL, max(0.0, until - time.monotonic())))
        lab.sample()


@contextmanager
def _default_socket() -> Iterator[str]:
    """The default path, in a directory that goes again when it is empty."""
    path = default_path()
    make_directory(path)
    try:
        yield path
    finally:
        with suppress(OSError):
            os.rmdir(os.path.dirname(path))
