"""A guest of a lab, of whatever kind: its plan, its context, its counters."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from cdna.abi import ContextState
from cdna.base.cgroup import MemoryGroup
from cdna.errors import ConfigError
from cdna.lab.kinds import CONTEXT, GuestPlan
from cdna.settings import SETTINGS, ContextSettings

if TYPE_CHECKING:
    from cdna.guests.pump import Pump
    from cdna.machine import Machine
    from cdna.nic.loop import SleepingLoop
    from cdna.vmm.domain import Context
    from cdna.vmm.vhost_user import VhostUserServer

# What every context can change while it runs.
LIVE_SETTINGS = tuple(setting.name for setting in CONTEXT if setting.live)
CLOSERS = 32  # threads

Plan = TypeVar("Plan", bound=GuestPlan)


@dataclass
class Shared:
    """What the guests of one lab share. loop, pump: None where the engine never sleeps.

    announces: whether a guest that comes tells its neighbours: where there may be some that know another.
    """

    machine: Machine
    loop: SleepingLoop | None = None
    pump: Pump | None = None
    announces: bool = True
    _vhost: VhostUserServer | None = None
    _closers: ThreadPoolExecutor | None = None

    def __post_init__(self) -> None:
        self.group = MemoryGroup()  # now: a sandbox may forbid it later

    @property
    def vhost(self) -> VhostUserServer:
        """The thread that serves vhost-user sockets; there is one as soon as somebody needs it."""
        if self._vhost is None:
            from cdna.vmm.vhost_user import Allowance, VhostUserServer

            group, machine = self.group, self.machine.memory.size
            allowance = Allowance(group.limit, lambda: group.own() + machine, group.others)
            self._vhost = VhostUserServer(self.machine.vmm, allowance=allowance)
        return self._vhost

    @contextlib.contextmanager
    def side_by_side(self) -> Iterator[None]:
        """Within it, `give_up` has CLOSERS threads; leaving it waits for them."""
        with ThreadPoolExecutor(CLOSERS, "cdna-closer") as self._closers:
            yield
        self._closers = None

    def give_up(self, close: Callable[[], None]) -> None:
        """Calls `close`, which ends a device.

        The kernel waits for all its processors before a tap is gone (rcu_barrier), some 20 ms. Threads that
        wait at the same time share one such wait.
        """
        if self._closers is None:
            close()
        else:
            self._closers.submit(close)

    def close(self) -> None:
        """Ends what was made here; the guests are gone by then."""
        if self._vhost is not None:
            self._vhost.close()
            self._vhost = None
        self.group.close()


class Member(ABC, Generic[Plan]):
    """A guest that is attached to the NIC when it is made, until `remove`.

    Errors of making one: ConfigError, ResourceError; then nothing is left behind.
    """

    def __init__(self, shared: Shared, plan: Plan) -> None:
        self.shared = shared
        self.plan = plan
        self.up = True
        self.earlier: Counter[str] = Counter()  # counters of contexts that it had before

    @property
    @abstractmethod
    def context(self) -> Context:
        """The context that it has now."""

    def settings(self, **more: Any) -> ContextSettings:
        """The context's settings, as the plan has them, and what the kind asks for itself."""
        return ContextSettings(**{**{name: getattr(self.plan, name) for name in SETTINGS}, **more})

    def describe(self) -> dict[str, Any]:
        """What it is, as JSON takes it."""
        plan, context = self.plan, self.context
        state = context.state
        return {
            "guest": plan.name,
            "kind": plan.kind,
            "context": context.index,
            "state": state.name.removeprefix("CONTEXT_").lower(),
            "fault": self._fault() if state == ContextState.CONTEXT_FAULTED else None,
            "link": "up" if self.up else "down",
            "mac": context.mac,
            "addresses": [str(interface) for interface in plan.addresses],
            **{name: getattr(plan, name) for name in SETTINGS if name != "mac"},
            "peer": None,
        }

    def detail(self) -> dict[str, Any]:
        """All that `describe` says, and what is too long for a list."""
        own_source = self.counters()["rx_own_source"]
        return {**self.describe(), "own_source": own_source, "learned": self._learned(), "time": self.time()}

    def time(self) -> dict[str, int]:
        """What its context has had of the NIC's core, in nanoseconds (`Nic.time`)."""
        return self.shared.machine.nic.time(self.context.index)

    def _learned(self) -> list[str]:
        """The addresses that were learned behind it, with their VLANs."""
        found = self.shared.machine.nic.learned(self.context.index)
        return [mac.hex(":") + (f" vlan {vlan}" if vlan else "") for mac, vlan in found]

    def _fault(self) -> str | None:
        """Why the NIC stopped the context, one line."""
        self.shared.machine.vmm.collect_faults()
        return None if self.context.fault is None else self.context.fault.why

    def look(self) -> None:
        """Takes notice of what the guest has changed of its device."""
        return None

    def counters(self) -> dict[str, int]:
        """Counters of all contexts that it has had."""
        return self._with_earlier(self.context.stats())

    def _with_earlier(self, counters: Mapping[str, int]) -> dict[str, int]:
        return {name: value + self.earlier[name] for name, value in counters.items()}

    def change(self, plan: Plan, given: set[str]) -> None:
        """Makes it as `plan` says, in which the settings `given` are new. An error changes nothing."""
        self.context.set(**{key: getattr(plan, key) for key in LIVE_SETTINGS if key in given})
        self.plan = plan

    def enter(self) -> tuple[list[int], tuple[str, ...]]:
        """The network namespace that programs run in, and its name servers. ConfigError: it has none."""
        raise ConfigError(
            f"guest {self.plan.name}: a {self.plan.kind} guest; programs run inside namespaces only"
        )

    @abstractmethod
    def set_link(self, up: bool) -> None:
        """Plugs its cable in or out."""

    @abstractmethod
    def reset(self) -> None:
        """Starts it anew, also a context that the NIC has stopped. What was under way is lost."""

    @abstractmethod
    def remove(self) -> None:
        """Takes it off the NIC and frees what it had."""

    @contextlib.contextmanager
    def _replacing(self) -> Iterator[int | None]:
        """The index for a context in the place of this one: the same, or None where another guest has it.

        No context comes or goes meanwhile, so none takes this one's index or address.
        """
        old = self.context
        with self.shared.machine.vmm.contexts_locked() as contexts:
            taken = old.revoked and any(context.index == old.index for context in contexts)
            yield None if taken else old.index

    def _keeping_mac(self) -> Plan:
        """The plan, with the address that the context was given where the plan has none."""
        return replace(self.plan, mac=self.context.mac)
