"""The native guest driver: `send`, `recv`, buffers without a copy, polled or by interrupts."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from cdna.base.descriptors import readable
from cdna.errors import ConfigError, ContextFault
from cdna.guests.local import LocalQueues

if TYPE_CHECKING:
    from cdna.vmm.domain import Context


class Driver(LocalQueues):
    """Drives one context for its guest, in this process.

    buffer_size: bytes of one buffer, a multiple of 64; a larger frame spans several.
    """

    def __init__(self, context: Context, buffer_size: int = 2048) -> None:
        if context.revoked:
            raise ConfigError(f"context {context.index} was revoked: assign it again")
        super().__init__(context, buffer_size)
        self.context = context
        self.refill()

    def wait(self, timeout: float | None = None) -> bool:
        """Sleeps until something was received, by interrupt. False: `timeout` seconds passed first.

        The VMM's interrupt thread has to run (`Machine.start`). ContextFault: the context was stopped.
        ConfigError: it was revoked, also while this waits.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        event_fd = self.context.event_fd
        self.enable_interrupts(True)
        try:
            while not self.rx_waiting:
                if self.context.revoked:
                    raise ConfigError(f"context {self.context.index} was revoked: assign it again")
                if self.faulted:
                    self.context.vmm.collect_faults()
                    raise ContextFault(str(self.context.fault), self.context.fault)
                left = None if deadline is None else max(0.0, deadline - time.monotonic())
                if not readable(event_fd, left):
                    return False
                if not self.context.revoked:  # a revoked context has closed it
                    os.eventfd_read(event_fd)
        finally:
            if not self.context.revoked:
                self.enable_interrupts(False)
        return True

    def _refused(self, reason: int) -> None:
        if self.faulted:
            self.context.vmm.collect_faults()
            raise ContextFault(
                f"hypercall refused, the context is stopped: {self.context.fault}", self.context.fault
            )
        self.context.vmm.raise_refusal(reason, f"hypercall of guest {self.context.guest.name!r}")
