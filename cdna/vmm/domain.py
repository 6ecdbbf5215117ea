"""Domains as the VMM keeps them: a guest with its pages, and the contexts that are assigned to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from cdna import abi
from cdna.faults import FaultReport
from cdna.settings import ContextSettings

if TYPE_CHECKING:
    from cdna.vmm.hypervisor import Hypervisor

PAGE = abi.PAGE_BYTES


class Guest:
    """A domain: a run of pages of its own, and the contexts that were assigned to it."""

    def __init__(self, vmm: Hypervisor, name: str, domain: int, first_page: int, pages: int) -> None:
        self.vmm = vmm
        self.name = name
        self.domain = domain
        self.first_page = first_page
        self.pages = pages
        self.contexts: list[Context] = []

    @property
    def maddr(self) -> int:
        """Machine address of the guest's first byte."""
        return self.first_page * PAGE

    @property
    def size(self) -> int:
        return self.pages * PAGE

    @property
    def memory(self) -> np.ndarray:
        """The guest's memory, bytes without a copy."""
        return self.vmm.memory.view(self.maddr, self.size)

    def __repr__(self) -> str:
        return f"<Guest {self.name!r} domain {self.domain}, {self.pages} pages>"


class Context:
    """A context of the NIC while it is assigned to a guest."""

    def __init__(
        self, vmm: Hypervisor, guest: Guest, index: int, settings: ContextSettings, event_fd: int
    ) -> None:
        self.vmm = vmm
        self.guest = guest
        self.index = index
        self.settings = settings
        self.options: dict[str, Any] = settings.options()  # as they are now: `set` changes them
        self.event_fd = event_fd
        self.revoked = False
        self.on_revoke: Callable[[], None] | None = None  # called once, when the context was taken away
        self.fault: FaultReport | None = None  # the last one
        self.faults_collected = 0
        self._last: tuple[str, dict[str, int]] = ("", {})  # address and counters when it was taken away

    @property
    def state(self) -> abi.ContextState:
        if self.revoked:
            return abi.ContextState.CONTEXT_FREE
        return abi.ContextState(self.vmm.nic.info(self.index)["state"])

    @property
    def mac(self) -> str:
        """The address; of a context that was revoked, the last one."""
        return self._last[0] if self.revoked else str(self.vmm.nic.info(self.index)["mac"].hex(":"))

    def stats(self) -> dict[str, int]:
        """Counters since the assignment: frames, bytes, drops by reason, interrupts, doorbells, faults.

        Of a context that was revoked, those of its end: its index may be another guest's by now.
        """
        return dict(self._last[1]) if self.revoked else self.vmm.nic.stats(self.index)

    def end(self) -> None:
        """Keeps address and counters: the NIC is about to forget them. `Hypervisor.revoke` calls it."""
        self._last = (self.mac, self.stats())
        self.revoked = True

    def set(self, **options: object) -> None:
        """Changes `ContextSettings` while running: all that are not about rings and protection."""
        self.vmm.set_options(self, options)

    def adopt(self, options: dict[str, Any]) -> None:
        """Applies what its guest has chosen within `options`, which stay the operator's. Parsed values."""
        self.vmm.adopt_options(self, options)

    def __repr__(self) -> str:
        return f"<Context {self.index} of {self.guest.name!r}, {self.state.name}>"
