"""The registry of kinds of guests: who can share the NIC of a lab, a folder a kind.

    base         what every kind has: a context, counters; and what the guests of one lab share
    namespace    a Linux network namespace on the native driver, which the pump drives
    vhost_user   a virtual machine or a DPDK program behind a socket
    synthetic    a generator or a sink of this process, on the native driver

A folder's `__init__` has the plan and the entry (`GuestKind`), and needs no compiled module; `member` has the
rest, and is imported with the first guest. This package's kinds are in OWN; another package's is an entry
point of the group cdna.guests. docs/extending.md has the recipe.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from cdna.extend.permits import Permits
from cdna.extend.registry import Registry
from cdna.extend.setting import Setting
from cdna.settings import SETTINGS, Declared

if TYPE_CHECKING:
    from cdna.extend.host import Check
    from cdna.lab.kinds.base import Member, Shared
    from cdna.lab.namespace import Interface
    from cdna.lab.values import Network

OWN = {
    "namespace": "cdna.lab.kinds.namespace:KIND",
    "vhost-user": "cdna.lab.kinds.vhost_user:KIND",
    "synthetic": "cdna.lab.kinds.synthetic:KIND",
}
DEFAULT = "namespace"  # the kind of a guest that is given no kind


@dataclass(frozen=True)
class GuestPlan(Declared):
    """What every guest has."""

    kind: ClassVar[str]

    name: str
    addresses: tuple[Interface, ...] = ()
    mtu: int = field(default=1500, kw_only=True)

    def claims(self) -> Mapping[str, str]:
        """What no other guest of a lab can have as well, by what it is called: {"socket": path}."""
        return {}

    def permits(self) -> Permits:
        """What this guest needs of a server's sandbox, beside what its kind does."""
        return Permits()


# What every kind can be told, about its context; and what some can.
PROTECTION, MTU = SETTINGS["protection"], SETTINGS["mtu"]
CONTEXT = tuple(setting for setting in SETTINGS.values() if setting not in (PROTECTION, MTU))

Given = Mapping[str, tuple[str, object]]  # by setting: where it stood, and the value


@dataclass(frozen=True)
class GuestKind:
    """A kind of guest.

    plan: its dataclass, in which `kind` is this name. settings: what a guest can be told beside its name.
    target: the setting that stands behind KIND:. networked: the settings that need the lab's networks, which
    `read_networked` reads; with "address" among them, a guest gets an address when it is given none.
    member: makes one, attached (`cdna.lab.kinds.base.Member` has the contract).

    memory: bytes of machine memory of a guest, at most. descriptors: how many it holds, at most. pumped: the
    engine's loop drives it (`Shared.pump`). spin_us: how long an adaptive loop spins for its sake before it
    sleeps. privileged: making one takes the right to make namespaces. permits: what the kind needs of a
    server's sandbox.

    gauges: keys of `Member.describe` that are metrics, with their help. drops: counters of lost frames that
    are not named DIRECTION_drop_REASON: direction and reason. notes: what the user of a lab with these
    guests should know. state, remark: of a guest as `Member.describe` has it, for tables; None: nothing.
    checks: by part of the report, what `cdna doctor` looks at for it.
    """

    name: str
    plan: type[GuestPlan]
    settings: Sequence[Setting]
    member: Callable[[Shared, Any], Member[Any]]
    target: str = "name"
    networked: Sequence[Setting] = ()
    read_networked: Callable[[Given, Sequence[Network]], dict[str, Any]] = lambda given, net: {}
    memory: Callable[[], int] = lambda: 1 << 20
    descriptors: int = 8
    pumped: bool = False
    spin_us: float = 50.0
    privileged: bool = False
    permits: Callable[[], Permits] = Permits
    gauges: Mapping[str, str] = field(default_factory=dict)
    drops: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    notes: Callable[[Sequence[Any]], list[str]] = lambda plans: []
    state: Callable[[Mapping[str, Any]], str | None] = lambda guest: None
    remark: Callable[[Mapping[str, Any]], str | None] = lambda guest: None
    checks: Mapping[str, Sequence[Check]] = field(default_factory=dict)

    @property
    def keys(self) -> tuple[str, ...]:
        """The names of all settings of a guest of this kind, its kind aside."""
        return ("name", *(setting.name for setting in self.all_settings))

    @property
    def all_settings(self) -> tuple[Setting, ...]:
        """The settings of a guest of this kind beside its name."""
        return (*self.settings, *self.networked)

    @property
    def live(self) -> tuple[str, ...]:
        """The names of the settings that a guest that runs can change."""
        return tuple(setting.name for setting in self.settings if setting.live)

    @property
    def addressed(self) -> bool:
        """Whether its guests have addresses of the lab's networks."""
        return "address" in self.keys


KINDS: Registry[GuestKind] = Registry("kind of guest", "cdna.guests", GuestKind, OWN)


def state_of(guest: Mapping[str, Any]) -> str:
    """The state of a guest as `Member.describe` has it: its kind's word, or its context's."""
    kind = KINDS.get(guest.get("kind", DEFAULT))
    return str((kind and kind.state(guest)) or guest["state"])


def remark_of(guest: Mapping[str, Any]) -> str | None:
    """What its user should know about a guest as `Member.describe` has it."""
    kind = KINDS.get(guest["kind"])
    return None if kind is None else kind.remark(guest)


def kind_of(plan: GuestPlan) -> GuestKind:
    """The kind that a plan is of."""
    return KINDS[plan.kind]


def kinds_of(plans: Sequence[GuestPlan]) -> tuple[GuestKind, ...]:
    """The kinds of these guests, each once."""
    return tuple(map(KINDS.__getitem__, dict.fromkeys(plan.kind for plan in plans)))
