"""A guest of this process that stands for a program: it takes what comes, and may send without an end.

A thread of its own drives the context, woken by virtual interrupts as any guest's driver is; between them it
sleeps. A limit on its rate is the context's: the transmit ring is then full, and the thread waits for it.
"""

from __future__ import annotations

import os
import select
import threading
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cdna.base.units import parse_mac
from cdna.errors import ConfigError
from cdna.guest_driver.queues import memory_needed
from cdna.guests.driver import Driver
from cdna.guests.synthetic import SyntheticGuest
from cdna.lab.kinds.base import Member, Shared
from cdna.lab.kinds.synthetic import SyntheticPlan
from cdna.nic.traffic import Load

if TYPE_CHECKING:
    from cdna.nic.device import Nic
    from cdna.vmm.domain import Context

RING = 256  # descriptors each way
BATCH = 64  # frames between two looks at the other direction
NOBODY = bytes(6)  # a sink's peer


class SyntheticMember(Member[SyntheticPlan]):
    def __init__(self, shared: Shared, plan: SyntheticPlan) -> None:
        super().__init__(shared, plan)
        self._wakes = False
        self._load = Load.fixed(plan.size)
        self._peer = NOBODY if plan.to is None else self._address_of(plan.to)
        self._start(None)

    def _address_of(self, to: str) -> bytes:
        if ":" in to:
            return parse_mac(to)
        with self.shared.machine.vmm.contexts_locked() as contexts:
            for context in contexts:
                if context.guest.name.lower() == to.lower():
                    return parse_mac(context.mac)
        raise ConfigError(
            f"guest {self.plan.name}: there is no guest {to!r} to send to; give it before this one, or a MAC"
        )

    def _start(self, index: int | None) -> None:
        size = max(2048, -(-self.plan.size // 64) * 64)
        vmm = self.shared.machine.vmm
        guest = vmm.create_guest(self.plan.name, memory_needed(RING, RING, size))
        try:
            settings = self.settings(tx_ring=RING, rx_ring=RING)
            self._driver = Driver(vmm.assign(guest, settings, index=index), size)
            own = parse_mac(self.context.mac)
            traffic = SyntheticGuest(self._driver, self._load, self.context.index, own, self._peer)
            sends = self.plan.to is not None
            self._worker = Worker(self.shared.machine.nic, self._driver, traffic, sends)
        except Exception:
            vmm.destroy_guest(guest)
            raise
        self._tell_loop(True)
        if self.up:
            self._worker.start()

    def _tell_loop(self, wakes: bool) -> None:
        """Counts the guest's thread among those that wake the loop, or no more. Twice is once."""
        if self.shared.loop is not None and wakes != self._wakes:
            self.shared.loop.add_wakers(1 if wakes else -1)
            self._wakes = wakes

    @property
    def context(self) -> Context:
        return self._driver.context

    def describe(self) -> dict[str, Any]:
        plan = self.plan
        return {**super().describe(), "to": plan.to, "size": plan.size}

    def change(self, plan: SyntheticPlan, given: set[str]) -> None:
        if "protection" in given:
            self._restart(plan)
        else:
            super().change(plan, given)

    def set_link(self, up: bool) -> None:
        """Out, it neither sends nor takes: what comes is lost for want of buffers."""
        if up:
            self._worker.start()
        else:
            self._worker.stop()
        self.up = up

    def reset(self) -> None:
        self._restart(self.plan)

    def _restart(self, plan: SyntheticPlan) -> None:
        """Gives the guest the same context and a driver anew, as `plan` says, or as before if that fails."""
        planned, before, old = self.plan, self._keeping_mac(), self.context
        self._worker.stop()
        counters = self.counters()
        with self._replacing() as index:
            self.remove()
            try:
                self.plan = replace(plan, mac=before.mac)
                self._start(index)
            except Exception:
                self.plan, plan = before, planned
                self._start(index)
                raise
            finally:
                self.plan = plan
                if self.context is not old:
                    self.earlier = Counter(counters)

    def remove(self) -> None:
        self._worker.stop()
        self._tell_loop(False)
        self.shared.machine.vmm.destroy_guest(self.context.guest)


class Worker:
    """The thread of one synthetic guest; it can be stopped, and started again."""

    def __init__(self, nic: Nic, driver: Driver, traffic: SyntheticGuest, sends: bool) -> None:
        self._nic = nic
        self._driver = driver
        self._traffic = traffic
        self._sends = sends
        self._stop_fd = -1
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Starting twice is harmless."""
        if self._thread is None:
            self._stop_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            self._thread = threading.Thread(target=self._run, name="cdna-synthetic", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """The driver is then nobody's. Stopping twice is harmless."""
        if self._thread is not None:
            os.eventfd_write(self._stop_fd, 1)
            self._thread.join()
            self._thread = None
            os.close(self._stop_fd)

    def _run(self) -> None:
        event_fd = self._driver.context.event_fd
        poll = select.poll()
        for fd in (event_fd, self._stop_fd):
            poll.register(fd, select.POLLIN)
        self._driver.enable_interrupts(True)
        self._move()
        while True:
            ready = {fd for fd, _ in poll.poll()}
            if self._stop_fd in ready:
                return
            os.eventfd_read(event_fd)
            self._move()

    def _move(self) -> None:
        """Takes what has come; fills the transmit ring."""
        moved = 1
        while moved:
            moved = self._traffic.take(BATCH)
            if self._sends:
                sent = self._traffic.offer(BATCH)
                moved += sent
                if sent:
                    self._nic.wake()
