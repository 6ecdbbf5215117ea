"""A running lab: a machine, its engine, and guests on contexts of their own, which come and go."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from cdna import logs
from cdna.base.closing import Closing
from cdna.base.descriptors import make_room
from cdna.errors import ConfigError
from cdna.guests.pump import Pump
from cdna.interrupts import held
from cdna.lab.duplicates import Duplicates
from cdna.lab.guest_plans import guest_plan
from cdna.lab.host_end import addresses_of, give_addresses, is_there
from cdna.lab.hosts import hosts_text
from cdna.lab.kinds import DEFAULT, KINDS, GuestPlan, kind_of, kinds_of
from cdna.lab.kinds.base import Member, Shared
from cdna.lab.namespace import Interface
from cdna.lab.plan import MAX_GUESTS, LabPlan, check_distinct, with_addresses
from cdna.lab.rates import TOTALS, Rates, Traffic
from cdna.machine import Machine
from cdna.nic.loop import SleepingLoop
from cdna.nic.wires import named_wire

if TYPE_CHECKING:
    from cdna.sandbox import Entered, Needs

log = logs.logger("cdna.lab")

DEFAULT_MTU = 1500  # bytes
WIRE_DROPS = ("rx_drop_filter", "rx_drop_invalid")  # counters of the NIC that are about frames of the wire
SPARE = 32  # contexts, and memory for them, beside those of the plan: guests that come later
SPIN_US = 50.0  # how long an adaptive loop spins where no guest's kind asks for more
OTHERS = 250  # descriptors of the rest: SPARE guests, control sessions, programs' hosts files, modules


class Lab(Closing):
    """The lab of a plan, running until `close`. Errors: ConfigError, ResourceError; then nothing is left.

        with Lab(LabPlan(guests)) as lab:
            lab.add(...)

    Where this process may not make network namespaces, `cdna.lab.privilege.gain` has to have been called.
    spin_us: how long an adaptive loop spins before it sleeps; None: `SPIN_US`.
    """

    def __init__(self, plan: LabPlan, *, cpu: int | None = None, spin_us: float | None = None) -> None:
        self.plan = plan
        self.members: dict[str, Member[Any]] = {}
        self.host: tuple[Interface, ...] = ()
        self.notes: list[str] = []  # what the user should know and did not ask for
        self._lock = threading.RLock()
        self._rates = Rates()
        wire, said = named_wire(plan.wire)
        self._duplicates = Duplicates(wire.live)
        self._traffic: dict[str, Traffic] = {}
        self._gone: dict[str, Traffic] = {}
        self._known: dict[str, dict[str, int]] = {}  # counters as they were last
        self._unreadable: set[str] = set()  # guests whose counters were not to be read
        self._closed = False
        self._check_room: Callable[[GuestPlan], None] = lambda plan: None  # of the sandbox
        self.sandbox: Entered | None = None  # what this process has given up, where it has
        contexts = min(len(plan.guests) + SPARE, MAX_GUESTS)
        number = len(plan.guests)
        of_guests = sum(kind_of(guest).descriptors for guest in plan.guests)
        make_room(of_guests + wire.descriptors(said) + OTHERS, f"{number} guests")
        device = wire.host_device(said)
        was_there = device is not None and is_there(device)
        with contextlib.ExitStack() as undo:
            memory = max(kind.memory() for kind in (KINDS[DEFAULT], *kinds_of(plan.guests)))
            self.machine = Machine(
                contexts * memory, wire=plan.wire, contexts=contexts, identity=_identity(plan)
            )
            undo.callback(self.machine.close)
            if device is not None:
                self._set_up_host(device, was_there)
            self._wire_mtu = self.machine.wire.mtu  # at the start: later, the sandbox may not let it be asked
            self._note_mtu(plan.guests)
            for kind in kinds_of(plan.guests):
                self.notes += kind.notes([guest for guest in plan.guests if guest.kind == kind.name])
            loop = self._loop(spin_us)
            pump = None if loop is None else Pump(loop)
            self._shared = Shared(self.machine, loop, pump, announces=wire.live)
            if loop is not None:
                undo.callback(loop.close)
            if pump is not None:
                undo.callback(pump.close)
            undo.callback(self._shared.close)
            undo.callback(self._remove_all)
            for guest in plan.guests:
                with held():
                    self._add(guest)
            self._shared.announces = True
            undo.callback(self.machine.nic.stop_engine)
            self.machine.vmm.start_interrupts()
            self.machine.nic.start_engine(
                plan.cpu if cpu is None else cpu, loop=None if loop is None else loop.run
            )
            self._undo = undo.pop_all()

    def _loop(self, spin_us: float | None) -> SleepingLoop | None:
        """A loop that can sleep, and that the pump can share; None: the NIC's own, which is always busy."""
        busy = self.plan.poll == "busy"
        kinds = kinds_of(self.plan.guests)
        if busy and not any(kind.pumped for kind in kinds):
            return None
        if spin_us is None:
            spin_us = max([SPIN_US, *(kind.spin_us for kind in kinds)])
        return SleepingLoop(self.machine.nic, spin_us=-1 if busy else spin_us)

    def _set_up_host(self, device: str, was_there: bool) -> None:
        """Addresses of the host's end; a device that was there before is the user's, and stays as it is."""
        if not was_there:
            mtu = min((guest.mtu for guest in self.plan.guests if _has_mtu(guest)), default=DEFAULT_MTU)
            give_addresses(device, self.plan.host, mtu)  # it is up, also without any
            self.host = self.plan.host
            return
        self.host = tuple(addresses_of(device))
        shown = ", ".join(map(str, self.host)) or "none"
        self.notes.append(f"{device} was there before: its addresses are left as they are ({shown})")

    def _note_mtu(self, guests: Sequence[GuestPlan]) -> None:
        """Notes that the wire's device has a smaller MTU than some guests: longer frames are lost there."""
        limit = self._wire_mtu
        above = [guest for guest in guests if _has_mtu(guest) and limit is not None and guest.mtu > limit]
        if not above:
            return
        names = ", ".join(guest.name for guest in above[:3]) + (", ..." if len(above) > 3 else "")
        most = max(guest.mtu for guest in above)
        device = self.plan.wire.partition(":")[2].partition(",")[0]
        self.notes.append(
            f"wire {self.plan.wire} has MTU {limit}, less than guest {names} ({most}): longer frames are "
            f"dropped there; give mtu={limit}, or: ip link set {device} mtu {most}"
        )

    def confine(self, needs: Needs) -> None:
        """Enters the sandbox that leaves this process `needs`, all threads of it. ResourceError: refused."""
        from cdna.lab.metrics import metrics_text
        from cdna.lab.needs import check_room, modules_of
        from cdna.sandbox import enter
        from cdna.sandbox.preload import preload

        if needs.mode != "off":
            preload(modules_of(needs))
            metrics_text(self)  # opens all that a look at the counters reads
        with self._lock:
            if needs.user is not None:
                for path in needs.listens:
                    os.chown(path, needs.user.uid, -1, follow_symlinks=False)
            self.sandbox = enter(needs)
            if self.sandbox.mode == "on":
                self._check_room = partial(check_room, needs)

    # --- guests -------------------------------------------------------------------------------------------

    def add(self, settings: Mapping[str, Any], where: str = "") -> GuestPlan:
        """A guest with these settings (`cdna.lab.guest_plans.keys_of`), at once in service."""
        with self._lock:
            self._check_open()
            plan = guest_plan(where, settings, self.plan.defaults, self.plan.net)
            self._check_room(plan)
            others = [member.plan for member in self.members.values()]
            (plan,) = with_addresses([plan], self.plan.net, self.host or self.plan.host, others)
            check_distinct([*others, plan], self.host or self.plan.host)
            self._add(plan)
            noted = len(self.notes)
            self._note_mtu([plan])
            for note in self.notes[noted:]:
                log.warning("%s", note)
            return plan

    def _add(self, plan: GuestPlan) -> None:
        self.members[plan.name] = kind_of(plan).member(self._shared, plan)

    def remove(self, name: str) -> None:
        """Ends a guest. Programs that run inside a namespace go on, without a device."""
        with self._lock:
            member = self.member(name)
            self._gone[member.plan.name] = replace(self._now(member), guest=member.plan.name)
            self._remove(member)

    def _remove(self, member: Member[Any]) -> None:
        name = member.plan.name
        del self.members[name]  # first: one that goes halfway is sampled no more
        self._known.pop(name, None)
        self._unreadable.discard(name)
        member.remove()

    def _remove_all(self) -> None:
        with self._shared.side_by_side():
            for member in list(self.members.values()):
                try:
                    self._remove(member)
                except Exception:  # the others are to go, too
                    log.exception("guest %r: internal error: it was not removed whole", member.plan.name)

    def member(self, name: str) -> Member[Any]:
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
            self.member(name).set_link(up)

    def reset(self, name: str) -> None:
        """Starts a guest's context anew, also one that the NIC has stopped. What was under way is lost."""
        with self._lock:
            self._check_open()
            self.member(name).reset()

    def change(self, name: str, settings: Mapping[str, Any], where: str = "") -> GuestPlan:
        """Changes settings that are `live` for the guest's kind. Another protection loses frames under way.

        Given at all, it also starts a context again that the NIC has stopped.
        """
        with self._lock:
            self._check_open()
            member = self.member(name)
            kind = kind_of(member.plan)
            allowed = kind.live
            for key in settings:
                if key not in allowed:
                    raise ConfigError(
                        f"setting {key!r:.80}: a guest that runs can change {', '.join(allowed)}"
                    )
            known = {"kind": kind.name, kind.target: getattr(member.plan, kind.target)}
            wanted = guest_plan(where, {**known, "name": member.plan.name, **settings}, {}, ())
            plan: GuestPlan = replace(member.plan, **{key: getattr(wanted, key) for key in settings})
            member.change(plan, set(settings))
            return plan

    # --- what is known ------------------------------------------------------------------------------------

    def describe(self) -> list[dict[str, Any]]:
        """What each guest is, as JSON takes it."""
        with self._lock:
            return [member.describe() for member in self.members.values()]

    def detail(self, name: str) -> dict[str, Any]:
        """All that is known of a guest."""
        with self._lock:
            return self.member(name).detail()

    def wire(self) -> dict[str, Any]:
        """The wire: its name, its link, its counters, and what the NIC has dropped of its frames."""
        wire, nic = self.machine.wire, self.machine.nic.counters
        return {
            "wire": self.plan.wire,
            "link": "up" if wire.link else "down",
            "host": [str(interface) for interface in self.host],
            **wire.stats(),
            **{name: nic[name] for name in WIRE_DROPS},
        }

    def counters(self, name: str) -> dict[str, int]:
        """All counters of a guest, drops by reason among them."""
        with self._lock:
            return self._counters(self.member(name))

    def times(self) -> dict[str, dict[str, int]]:
        """What each guest's context has had of the NIC's core, in nanoseconds (`Nic.time`)."""
        with self._lock:
            return {name: member.time() for name, member in self.members.items()}

    def snapshot(self) -> tuple[list[dict[str, Any]], dict[str, dict[str, int]]]:
        """What each guest is, and its counters by its name, of one moment."""
        with self._lock:
            return self.describe(), self._all_counters()

    def sample(self) -> list[Traffic]:
        """Traffic of every guest, with rates since the last sample."""
        with self._lock:
            for member in self.members.values():
                self._look(member)
            counters = self._all_counters()
            self._traffic = self._rates.sample(counters, time.monotonic())
            self._duplicates.look(counters, {name: m.context.mac for name, m in self.members.items()})
            return list(self._traffic.values())

    def traffic(self) -> list[Traffic]:
        """Totals as they are now, with the rates of the last sample."""
        with self._lock:
            return [self._now(member) for member in self.members.values()]

    def totals(self) -> list[Traffic]:
        """Totals of all guests there were, also of those that were removed."""
        with self._lock:
            return [*(t for name, t in self._gone.items() if name not in self.members), *self.traffic()]

    def _now(self, member: Member[Any]) -> Traffic:
        name = member.plan.name
        (now,) = Rates().sample({name: self._counters(member)}, 0.0).values()
        rates = self._traffic.get(name, now)
        return replace(rates, **{key: getattr(now, key) for key in (*TOTALS, "dropped")})

    def _look(self, member: Member[Any]) -> None:
        try:
            member.look()
        except Exception:  # what goes wrong with one guest must not end the others
            log.exception("guest %r: internal error: its device cannot be looked at", member.plan.name)

    def _all_counters(self) -> dict[str, dict[str, int]]:
        return {name: self._counters(member) for name, member in self.members.items()}

    def _counters(self, member: Member[Any]) -> dict[str, int]:
        """A guest's counters; as they were before, where an internal error keeps them from being read.

        What goes wrong with one guest must not end the others, and the log says it once.
        """
        name = member.plan.name
        try:
            self._known[name] = member.counters()
        except Exception:
            if name not in self._unreadable:
                log.exception("guest %r: internal error: its counters cannot be read", name)
            self._unreadable.add(name)
        else:
            self._unreadable.discard(name)
        return self._known.get(name) or dict.fromkeys(TOTALS, 0)

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


def _identity(plan: LabPlan) -> str | None:
    """What tells this lab from others of this machine: what its plan says, or where its control socket is."""
    if plan.identity is not None or plan.socket is None:
        return plan.identity
    return os.path.realpath(plan.socket)


def _has_mtu(plan: GuestPlan) -> bool:
    """Whether a guest of this kind keeps to an MTU; others take frames of any size."""
    return "mtu" in kind_of(plan).keys
