"""The thread that hands the NIC's interrupts on; it sleeps while there are none."""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable

from cdna.nic.device import Nic


class InterruptThread:
    """Calls `handle` in a thread of its own when the NIC raises an interrupt. It is started by `start`."""

    def __init__(self, nic: Nic, handle: Callable[[], object]) -> None:
        self._nic = nic
        self._handle = handle
        self._irq_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        nic.set_interrupt_fd(self._irq_fd)
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="cdna-vmm", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        poller = select.poll()
        for fd in (self._irq_fd, self._wake_fd):
            poller.register(fd, select.POLLIN)
        while True:
            if self._nic.arm_interrupt():
                ready = {fd for fd, _ in poller.poll()}
                if self._wake_fd in ready:
                    return
                os.eventfd_read(self._irq_fd)
            self._handle()

    def stop(self) -> None:
        """Ends the thread, if there is one. The NIC may still raise interrupts, which wait."""
        if self._thread is not None:
            os.eventfd_write(self._wake_fd, 1)
            self._thread.join()
            self._thread = None

    def close(self) -> None:
        """Takes the descriptor away from the NIC, which must raise no interrupts any more."""
        self._nic.set_interrupt_fd(-1)
        for fd in (self._irq_fd, self._wake_fd):
            os.close(fd)
