"""A machine that nobody runs, moved by those who use it: deterministic, and without a thread."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from cdna.errors import ConfigError

if TYPE_CHECKING:
    from cdna.vmm.hypervisor import Hypervisor

ROUNDS = 64  # of the NIC, at most, until its guests are looked at again

_lock = threading.RLock()  # one at a time, also where several threads use the same machine
_actors: WeakKeyDictionary[Hypervisor, list[Callable[[], object]]] = WeakKeyDictionary()


def runs(vmm: Hypervisor) -> bool:
    """Whether some thread or process runs the NIC."""
    return vmm.nic.running or vmm.nic.alive


def settle(vmm: Hypervisor, rounds: int = ROUNDS) -> int:
    """Moves a machine that nobody runs until nothing moves any more. Returns the frames moved."""
    total = 0
    with _lock:
        if runs(vmm):
            return 0
        act(vmm)
        for _ in range(rounds):
            try:
                moved = vmm.nic.poll()
            except ConfigError:  # somebody has just started it
                break
            vmm.handle_interrupts()
            total += moved
            if not moved:
                break
    return total


def before_each_step(vmm: Hypervisor, actor: Callable[[], object]) -> None:
    """Has `actor` called whenever the machine is about to be moved: a guest that runs beside the others."""
    _actors.setdefault(vmm, []).append(actor)


def act(vmm: Hypervisor) -> None:
    """Lets the actors of a machine act."""
    for actor in _actors.get(vmm, ()):
        actor()


def forget(vmm: Hypervisor) -> None:
    """No actor of a machine acts any more."""
    _actors.pop(vmm, None)
