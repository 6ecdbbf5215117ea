"""A guest that is a Linux network namespace: its tap, the native driver, and the pump between them."""

from __future__ import annotations

import contextlib
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cdna.abi import ContextState
from cdna.errors import ConfigError, ResourceError
from cdna.guest_driver.queues import memory_needed
from cdna.guests.driver import Driver
from cdna.lab.kinds.base import Member, Shared
from cdna.lab.kinds.namespace import NamespacePlan
from cdna.lab.namespace import Namespace

if TYPE_CHECKING:
    from cdna.guests.pump import Pump
    from cdna.vmm.domain import Context

# A buffer holds the largest frame that a namespace sends, so that one read of the tap is one descriptor.
BUFFER_SIZE = 65472  # bytes
TX_RING, RX_RING = 64, 64  # descriptors; larger rings only move more memory through the caches
MEMORY = memory_needed(TX_RING, RX_RING, BUFFER_SIZE)


class NamespaceMember(Member[NamespacePlan]):
    def __init__(self, shared: Shared, plan: NamespacePlan) -> None:
        super().__init__(shared, plan)
        if shared.pump is None:
            raise ConfigError(
                f"guest {plan.name}: a namespace, which this server's busy loop does not drive; "
                "start it with --poll adaptive, or with a namespace from the beginning"
            )
        self.pump: Pump = shared.pump
        self.port: int | None = None  # of the pump; None: nothing drives the guest
        self._taps: dict[str, int] = {}  # the tap's counters, as they were last
        with contextlib.ExitStack() as undo:
            self.driver = self._attach(plan)
            undo.callback(shared.machine.vmm.destroy_guest, self.context.guest)
            try:
                self.namespace = Namespace(
                    self.context.mac, plan.addresses, mtu=plan.mtu, gateways=plan.gateways, gro=plan.gro
                )
            except ResourceError as error:
                raise ResourceError(f"guest {plan.name}: {error}") from None
            undo.callback(self.namespace.close)
            self._connect()
            undo.pop_all()
        if shared.announces:
            self.namespace.announce()

    @property
    def context(self) -> Context:
        return self.driver.context

    def _attach(self, plan: NamespacePlan, index: int | None = None) -> Driver:
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

    def _connect(self) -> None:
        """Puts the context behind the tap."""
        self.context.set(takes=self.namespace.takes)
        self.port = self.pump.add(self.driver, self.namespace.tap_fd)
        self.look()
        if not self.up:
            self.pump.set_link(self.port, False)

    def _disconnect(self) -> None:
        """Takes it off the pump, with its counters kept. Twice is harmless."""
        self._taps = self._tap_counters()
        port, self.port = self.port, None
        if port is not None:
            self.pump.remove(port)

    def _tap_counters(self) -> dict[str, int]:
        if self.port is None:
            return self._taps
        tap = self.pump.stats(self.port)
        return {
            "tap_drop_tx": tap["lost_from_tap"],
            "tap_drop_rx": tap["lost_to_tap"],
            "rx_drop_link": tap["lost_to_link"],
        }

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), "device": self.namespace.has_device, "gro": self.namespace.gro}

    def look(self) -> None:
        """Datagrams are joined as the device says, which programs inside may change (ethtool -K)."""
        if self.port is not None:
            self.pump.set_gro(self.port, self.namespace.gro)

    def counters(self) -> dict[str, int]:
        """The context's, the tap's, and what the guest's own device has dropped before the tap was read."""
        counters = self._with_earlier({**self.context.stats(), **self._tap_counters()})
        return {**counters, "tx_drop_device": self.namespace.drops.count()}

    def change(self, plan: NamespacePlan, given: set[str]) -> None:
        """Another protection loses frames under way. Given at all, it starts a stopped context again."""
        if "gro" in given:
            self.namespace.set_gro(plan.gro)
            self.look()
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

    def _reassign(self, plan: NamespacePlan) -> None:
        """Gives the guest a context and a driver anew: rings and protection are settled when it is assigned.

        The namespace, its device and the addresses stay. What was in the rings is lost. A device that a
        program inside has deleted is made anew. An error leaves the guest as it was; where that cannot be,
        without a context, until the next reset.
        """
        before = self._keeping_mac()
        try:
            self._disconnect()
            if not self.namespace.has_device:
                self._renew_device()
            self._exchange(before, plan)
        finally:
            if not self.context.revoked:
                self._connect()

    def _renew_device(self) -> None:
        try:
            self.namespace.renew()
        except (ResourceError, OSError) as error:
            raise ResourceError(
                f"guest {self.plan.name}: its device was deleted inside, and there is no new one: {error}"
            ) from None

    def _exchange(self, before: NamespacePlan, plan: NamespacePlan) -> None:
        """Puts a context as `plan` says, or as `before`, in the place of the one that it has."""
        planned, old, counters = self.plan, self.context, self.counters()
        with self._replacing() as index:
            self.shared.machine.vmm.destroy_guest(old.guest)
            try:
                self.driver = self._attach(replace(plan, mac=before.mac), index)
            except Exception:
                self.driver = self._attach(before, index)
                raise
            finally:
                self.plan = planned
                if self.context is not old:
                    self.earlier, self._taps = Counter(counters), {}

    def enter(self) -> tuple[list[int], tuple[str, ...]]:
        return [self.namespace.fd], self.plan.dns

    def set_link(self, up: bool) -> None:
        if self.port is not None:
            self.pump.set_link(self.port, up)
        if up and not self.up:
            self.namespace.announce()
        self.up = up

    def remove(self) -> None:
        """Programs that run inside go on, without a device."""
        self._disconnect()
        self.shared.machine.vmm.destroy_guest(self.context.guest)
        self.shared.give_up(self.namespace.close)
