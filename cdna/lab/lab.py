"""A running lab: a machine, its pump, and guests on contexts of their own, added and removed at any time."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from cdna.abi import ContextState
from cdna.descriptors import make_room
from cdna.errors import ConfigError, ResourceError
from cdna.guest_driver.driver import Driver
from cdna.guest_driver.pump import Pump
from cdna.guest_driver.queues import memory_needed
from cdna.lab.host_end import addresses_of, give_addresses, is_there, tap_of
from cdna.lab.hosts import hosts_text
from cdna.lab.namespace import Interface, Namespace
from cdna.lab.plan import MAX_GUESTS, GuestPlan, LabPlan, check_distinct, guest_plan, with_addresses
from cdna.lab.rates import TOTALS, Rates, Traffic
from cdna.machine import Machine
from cdna.vmm.settings import ContextSettings

if TYPE_CHECKING:
    from types import TracebackType

# A buffer holds the largest frame that a namespace sends, so that one read of the tap is one descriptor.
BUFFER_SIZE = 65472  # bytes
TX_RING, RX_RING = 64, 64  # descriptors; larger rings only move more memory through the caches
SPARE = 32  # contexts, and memory for them, beside those of the plan: guests that come later
DESCRIPTORS = 3  # of a guest: its namespace, its tap, its interrupt
OTHERS = 256  # descriptors of the rest: SPARE guests, wire, control sessions, programs' hosts files, modules
LIVE_SETTINGS = ("vlan", "weight", "rate")  # what a context can change while it runs


@dataclass
class Member:
    """A guest of the lab, and what it consists of."""

    plan: GuestPlan
    namespace: Namespace
    driver: Driver
    port: int
    up: bool = True
    earlier: Counter[str] = field(default_factory=Counter)  # counters of contexts that it had before


class Lab:
    """The lab of a plan, running until `close`. Errors: ConfigError, ResourceError; then nothing is left.

        with Lab(LabPlan(guests)) as lab:
            lab.add(...)

    Where this process may not make network namespaces, `cdna.lab.privilege.gain` has to have been called.
    """

    def __init__(self, plan: LabPlan, *, cpu: int | None = None, spin_us: float = 1000.0) -> None:
        self.plan = plan
        self.members: dict[str, Member] = {}
        self.host: tuple[Interface, ...] = ()
        self.notes: list[str] = []  # what the user should know and did not ask for
        self._lock = threading.RLock()
        self._rates = Rates()
        self._traffic: dict[str, Traffic] = {}
        self._gone: dict[str, Traffic] = {}
        self._closed = False
        contexts = min(len(plan.guests) + SPARE, MAX_GUESTS)
        number = len(plan.guests)
        make_room(DESCRIPTORS * number + OTHERS, f"{number} guests")
        tap = tap_of(plan.wire)
        was_there = tap is not None and is_there(tap)
        with contextlib.ExitStack() as undo:
            each = memory_needed(TX_RING, RX_RING, BUFFER_SIZE)
            self.machine = Machine(contexts * each, wire=plan.wire, contexts=contexts)
            undo.callback(self.machine.close)
            if tap is not None:
                self._set_up_host(tap, was_there)
            self.pump = Pump(self.machine.nic, spin_us=spin_us)
            undo.callback(self.pump.close)
            undo.callback(self._remove_all)
            for guest in plan.guests:
                self._add(guest)
            undo.callback(self.machine.nic.stop_engine)
            self.machine.vmm.start_interrupts()
            self.machine.nic.start_engine(cpu, loop=self.pump.run)
            self._undo = undo.pop_all()

    def _set_up_host(self, tap: str, was_there: bool) -> None:
        """Addresses of the host's end; a device that was there before is the user's, and stays as it is."""
        if not was_there:
            give_addresses(tap, self.plan.host)
            self.host = self.plan.host
            return
        self.host = tuple(addresses_of(tap))
        shown = ", ".join(map(str, self.host)) or "none"
        self.notes.append(f"{tap} was there before: its addresses are left as they are ({shown})")

    # --- guests -------------------------------------------------------------------------------------------

    def add(self, settings: Mapping[str, Any], where: str = "") -> GuestPlan:
        """A guest with these settings (`cdna.lab.plan.GUEST_KEYS`), at once in service."""
        with self._lock:
            self._check_open()
            plan = guest_plan(where, settings, self.plan.defaults, self.plan.net)
            others = [member.plan for member in self.members.values()]
            (plan,) = with_addresses([plan], self.plan.net, self.host or self.plan.host, others)
            check_distinct([*others, plan], self.host or self.plan.host)
            self._add(plan)
            return plan

    def _add(self, plan: GuestPlan) -> None:
        with contextlib.ExitStack() as undo:
            driver = self._attach(plan)
            undo.callback(self.machine.vmm.destroy_guest, driver.context.guest)
            try:
                namespace = Namespace(
                    driver.context.mac, plan.addresses, mtu=plan.mtu, gateways=plan.gateways
                )
            except ResourceError as error:
                raise ResourceError(f"guest {plan.name}: {error}") from None
            undo.callback(namespace.close)
            port = self.pump.add(driver, namespace.tap_fd)
            undo.pop_all()
        self.members[plan.name] = Member(plan, namespace, driver, port)

    def _attach(self, plan: GuestPlan, index: int | None = None) -> Driver:
        """A driver for the guest, on the context of this index or on a free one."""
        settings = ContextSettings(
            mac=plan.mac,
            vlan=plan.vlan,
            protection=plan.protection,
            tx_ring=TX_RING,
            rx_ring=RX_RING,
            weight=plan.weight,
            rate=plan.rate,
            all_multicast=True,  # a tap tells nobody which groups its stack has joined; IPv6 needs several
            vnet_header=True,
        )
        vmm = self.machine.vmm
        guest = vmm.create_guest(plan.name, memory_needed(TX_RING, RX_RING, BUFFER_SIZE))
        try:
            return Driver(vmm.assign(guest, settings, index=index), BUFFER_SIZE)
        except Exception:
            vmm.destroy_guest(guest)
            raise

    def remove(self, name: str) -> None:
        """Ends a guest. Programs that run inside go on, without a device."""
        with self._lock:
            member = self.member(name)
            self._gone[member.plan.name] = replace(self._now(member), guest=member.plan.name)
            self._remove(member)

    def _remove(self, member: Member) -> None:
        self.pump.remove(member.port)
        self.machine.vmm.destroy_guest(member.driver.context.guest)
        member.namespace.close()
        del self.members[member.plan.name]

    def _remove_all(self) -> None:
        for member in list(self.members.values()):
            self._remove(member)

    def member(self, name: str) -> Member:
        """The guest of this name. ConfigError: there is none."""
        for known, member in self.members.items():
            if isinstance(name, str) and known.lower() == name.lower():
                return member
        known = ", ".join(self.members) or "there is none"
        raise ConfigError(f"no guest {name!r:.80}: give one of this lab ({known})")

    # --- changes ------------------------------------------------------------------------------------------

    def set_link(self, name: str, up: bool) -> None:
        """Plugs the cable of a guest in or out, or that of the wire (`name` "wire")."""
        with self._lock:
            self._check_open()
            if name == "wire":
                self.machine.wire.link = up
                self.machine.nic.wake()
                return
            member = self.member(name)
            self.pump.set_link(member.port, up)
            member.up = up

    def change(self, name: str, settings: Mapping[str, Any], where: str = "") -> GuestPlan:
        """Changes rate, weight, VLAN or protection of a guest. Another protection loses frames under way.

        Protection, be it the same, also starts a context again that the NIC has stopped.
        """
        with self._lock:
            self._check_open()
            member = self.member(name)
            allowed = (*LIVE_SETTINGS, "protection")
            for key in settings:
                if key not in allowed:
                    raise ConfigError(
                        f"setting {key!r:.80}: a guest that runs can change {', '.join(allowed)}"
                    )
            wanted = guest_plan(where, {"name": member.plan.name, **settings}, {}, ())
            plan = replace(member.plan, **{key: getattr(wanted, key) for key in settings})
            stopped = member.driver.context.state == ContextState.CONTEXT_FAULTED
            if plan.protection != member.plan.protection or (stopped and "protection" in settings):
                self._reassign(member, plan)
            else:
                member.driver.context.set(**{key: getattr(plan, key) for key in LIVE_SETTINGS})
            member.plan = plan
            return plan

    def _reassign(self, member: Member, plan: GuestPlan) -> None:
        """Gives a guest a context and a driver anew: rings and protection are settled when it is assigned.

        The namespace, its device and the addresses stay. What was in the rings is lost.
        """
        context = member.driver.context
        plan = replace(plan, mac=context.mac)
        before, index = replace(member.plan, mac=context.mac), context.index
        member.earlier = Counter(self._counters(member))
        self.pump.remove(member.port)
        self.machine.vmm.destroy_guest(context.guest)
        try:
            member.driver = self._attach(plan, index)
        except Exception:
            member.driver = self._attach(before, index)
            raise
        finally:
            member.port = self.pump.add(member.driver, member.namespace.tap_fd)
            if not member.up:
                self.pump.set_link(member.port, False)

    # --- what is known ------------------------------------------------------------------------------------

    def describe(self) -> list[dict[str, Any]]:
        """What each guest is, as JSON takes it."""
        with self._lock:
            return [self._described(member) for member in self.members.values()]

    def _described(self, member: Member) -> dict[str, Any]:
        plan, context = member.plan, member.driver.context
        return {
            "guest": plan.name,
            "context": context.index,
            "state": context.state.name.removeprefix("CONTEXT_").lower(),
            "link": "up" if member.up else "down",
            "mac": context.mac,
            "addresses": [str(interface) for interface in plan.addresses],
            "vlan": plan.vlan,
            "weight": plan.weight,
            "rate": plan.rate,
            "protection": plan.protection,
            "mtu": plan.mtu,
        }

    def wire(self) -> dict[str, Any]:
        """The wire: its name, its link, its counters."""
        wire = self.machine.wire
        return {
            "wire": self.plan.wire,
            "link": "up" if wire.link else "down",
            "host": [str(interface) for interface in self.host],
            **wire.stats(),
        }

    def counters(self, name: str) -> dict[str, int]:
        """All counters of a guest, drops by reason among them: its context's, and its tap's."""
        with self._lock:
            return self._counters(self.member(name))

    def _counters(self, member: Member) -> dict[str, int]:
        tap = self.pump.stats(member.port)
        counters = {
            **member.driver.context.stats(),
            "tap_drop_tx": tap["lost_from_tap"],
            "tap_drop_rx": tap["lost_to_tap"],
        }
        return {name: value + member.earlier[name] for name, value in counters.items()}

    def sample(self) -> list[Traffic]:
        """Traffic of every guest, with rates since the last sample."""
        with self._lock:
            counters = {name: self._counters(member) for name, member in self.members.items()}
            self._traffic = self._rates.sample(counters, time.monotonic())
            return list(self._traffic.values())

    def traffic(self) -> list[Traffic]:
        """Totals as they are now, with the rates of the last sample."""
        with self._lock:
            return [self._now(member) for member in self.members.values()]

    def totals(self) -> list[Traffic]:
        """Totals of all guests there were, also of those that were removed."""
        with self._lock:
            return [*(t for name, t in self._gone.items() if name not in self.members), *self.traffic()]

    def _now(self, member: Member) -> Traffic:
        name = member.plan.name
        (now,) = Rates().sample({name: self._counters(member)}, 0.0).values()
        rates = self._traffic.get(name, now)
        return replace(rates, **{key: getattr(now, key) for key in TOTALS})

    def hosts(self) -> str:
        """The text of /etc/hosts inside the lab."""
        with self._lock:
            names = [(name, member.plan.addresses) for name, member in self.members.items()]
            return hosts_text([*names, *([("host", self.host)] if self.host else [])])

    # --- the end ------------------------------------------------------------------------------------------

    def _check_open(self) -> None:
        if self._closed:
            raise ConfigError("this lab was closed: make another")

    def close(self) -> None:
        """Stops the NIC, ends every guest, closes the wire. Closing twice is harmless."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._undo.close()

    def __enter__(self) -> Lab:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
