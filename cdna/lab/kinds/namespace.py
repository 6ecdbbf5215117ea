"""A guest that is a Linux network namespace: its tap, the native driver, and the pump between them."""

from __future__ import annotations

import contextlib
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from cdna.abi import ContextState
from cdna.errors import ConfigError, ResourceError
from cdna.guest_driver.driver import Driver
from cdna.guest_driver.queues import memory_needed
from cdna.lab.guest_plans import GuestPlan
from cdna.lab.kinds.base import Member, Shared
from cdna.lab.namespace import Namespace

if TYPE_CHECKING:
    from cdna.guest_driver.pump import Pump
    from cdna.vmm.hypervisor import Context

# A buffer holds the largest frame that a namespace sends, so that one read of the tap is one descriptor.
BUFFER_SIZE = 65472  # bytes
TX_RING, RX_RING = 64, 64  # descriptors; larger rings only move more memory through the caches
MEMORY = memory_needed(TX_RING, RX_RING, BUFFER_SIZE)


class NamespaceMember(Member[GuestPlan]):
    changeable = ("protection",)

    def __init__(self, shared: Shared, plan: GuestPlan) -> None:
        super().__init__(shared, plan)
        if shared.pump is None:
            raise ConfigError(
                f"guest {plan.name}: a namespace, which this server's busy loop does not drive; "
                "start it with --poll adaptive, or with a namespace from the beginning"
            )
        self.pump: Pump = shared.pump
        with contextlib.ExitStack() as undo:
            self.driver = self._attach(plan)
            undo.callback(shared.machine.vmm.destroy_guest, self.context.guest)
            try:
                self.namespace = Namespace(
                    self.context.mac, plan.addresses, mtu=plan.mtu, gateways=plan.gateways
                )
            except ResourceError as error:
                raise ResourceError(f"guest {plan.name}: {error}") from None
            undo.callback(self.namespace.close)
            self.port = self._connect()
            undo.pop_all()

    @property
    def context(self) -> Context:
        return self.driver.context

    def _attach(self, plan: GuestPlan, index: int | None = None) -> Driver:
        """A driver for the guest, on the context of this index or on a free one."""
        self.plan = plan
        settings = self.settings(
            tx_ring=TX_RING,
            rx_ring=RX_RING,
            all_multicast=True,  # a tap tells nobody which groups its stack has joined; IPv6 needs several
            vnet_header=True,
        )
        vmm = self.shared.machine.vmm
        guest = vmm.create_guest(plan.name, MEMORY)
        try:
            return Driver(vmm.assign(guest, settings, index=index), BUFFER_SIZE)
        except Exception:
            vmm.destroy_guest(guest)
            raise

    def _connect(self) -> int:
        """Puts the context behind the tap. Returns the pump's port."""
        self.context.set(takes=self.namespace.takes)
        return self.pump.add(self.driver, self.namespace.tap_fd)

    def counters(self) -> dict[str, int]:
        """The context's, and the tap's."""
        tap = self.pump.stats(self.port)
        taps = {"tap_drop_tx": tap["lost_from_tap"], "tap_drop_rx": tap["lost_to_tap"]}
        return self._with_earlier({**self.context.stats(), **taps})

    def change(self, plan: GuestPlan, given: set[str]) -> None:
        """Another protection loses frames under way. Given at all, it starts a stopped context again."""
        stopped = self.context.state == ContextState.CONTEXT_FAULTED
        if plan.protection != self.plan.protection or (stopped and "protection" in given):
            self._reassign(plan)
            self.plan = plan
        else:
            super().change(plan, given)

    def reset(self) -> None:
        plan = self.plan
        self._reassign(plan)
        self.plan = plan

    def _reassign(self, plan: GuestPlan) -> None:
        """Gives the guest a context and a driver anew: rings and protection are settled when it is assigned.

        The namespace, its device and the addresses stay. What was in the rings is lost.
        """
        context, planned = self.context, self.plan
        before, index = self._keeping_mac(), context.index
        self.earlier = Counter(self.counters())
        self.pump.remove(self.port)
        self.shared.machine.vmm.destroy_guest(context.guest)
        try:
            self.driver = self._attach(replace(plan, mac=before.mac), index)
        except Exception:
            self.driver = self._attach(before, index)
            self.plan = planned
            raise
        finally:
            self.port = self._connect()
            if not self.up:
                self.pump.set_link(self.port, False)

    def set_link(self, up: bool) -> None:
        self.pump.set_link(self.port, up)
        self.up = up

    def remove(self) -> None:
        """Programs that run inside go on, without a device."""
        self.pump.remove(self.port)
        self.shared.machine.vmm.destroy_guest(self.context.guest)
        self.namespace.close()
