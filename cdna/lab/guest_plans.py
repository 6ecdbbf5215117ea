"""Guests as options or a file plan them: what each kind can be told. Nothing here needs a compiled module."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_interface
from typing import TYPE_CHECKING, Any, ClassVar

from cdna.base.units import MAX_MTU
from cdna.errors import ConfigError
from cdna.lab import values

if TYPE_CHECKING:
    from cdna.lab.namespace import Address, Interface
    from cdna.lab.values import Network

NAMESPACE, VHOST_USER, SYNTHETIC = "namespace", "vhost-user", "synthetic"
LISTS = ("address", "gateway", "dns", "user", "features")  # settings that an option may give several times


@dataclass(frozen=True)
class GuestPlan:
    """A namespace, and what every guest has. mac: None gives it the context's own.

    vlan, weight, rate, protection, mtu, anti_spoof, promiscuous: `ContextSettings`. dns: name servers;
    none: the host's.
    """

    kind: ClassVar[str] = NAMESPACE

    name: str
    mac: str | None = None
    addresses: tuple[Interface, ...] = ()
    gateways: tuple[Address, ...] = ()
    dns: tuple[str, ...] = ()
    vlan: int | str = 0
    weight: int = 1
    rate: float = 0  # bits a second, 0: no limit
    protection: str = "validated"
    mtu: int = 1500
    anti_spoof: bool = True
    promiscuous: bool = False
    gro: bool = False  # a namespace's device takes UDP datagrams that are joined


@dataclass(frozen=True)
class VhostUserPlan(GuestPlan):
    """A virtual machine or a DPDK program. client: we connect to `path`, and again when it is gone."""

    kind: ClassVar[str] = VHOST_USER

    protection: str = "table"
    path: str = ""
    client: bool = False
    queues: int = 1  # pairs
    packed: bool = True  # whether packed rings are offered
    features: tuple[str, ...] = ()  # virtio features withheld (-rss) and added (+rss)
    users: tuple[int, ...] = ()  # who may attach beside this process's user and root


@dataclass(frozen=True)
class SyntheticPlan(GuestPlan):
    """A sink; with `to`, a MAC address or the name of a guest, a generator of frames to it as well."""

    kind: ClassVar[str] = SYNTHETIC

    mtu: int = MAX_MTU  # it takes frames of any size
    to: str | None = None
    size: int = 64  # bytes of a frame, without the FCS


Check = Callable[[str, object], Any]

_SHARED: dict[str, tuple[str, Check]] = {  # by setting: the plan's field, and what a value may be
    "mac": ("mac", values.mac),
    "vlan": ("vlan", values.vlan),
    "weight": ("weight", values.weight),
    "rate": ("rate", values.rate),
    "anti_spoof": ("anti_spoof", values.switch),
    "promiscuous": ("promiscuous", values.switch),
}
_KINDS: dict[str, tuple[type[GuestPlan], dict[str, tuple[str, Check]]]] = {
    NAMESPACE: (
        GuestPlan,
        {
            **_SHARED,
            "protection": ("protection", values.protection),
            "mtu": ("mtu", values.mtu),
            "dns": ("dns", values.servers),
            "gro": ("gro", values.switch),
        },
    ),
    VHOST_USER: (
        VhostUserPlan,
        {
            **_SHARED,
            "path": ("path", values.socket_path),
            "mode": ("client", values.client),
            "queues": ("queues", values.queues),
            "mtu": ("mtu", values.mtu),
            "packed": ("packed", values.switch),
            "features": ("features", values.features),
            "user": ("users", values.users),
        },
    ),
    SYNTHETIC: (
        SyntheticPlan,
        {
            **_SHARED,
            "protection": ("protection", values.protection),
            "to": ("to", values.destination),
            "size": ("size", values.frame_size),
        },
    ),
}
KINDS = tuple(_KINDS)
TARGETS = {
    NAMESPACE: "name",
    VHOST_USER: "path",
    SYNTHETIC: "name",
}  # what stands behind KIND: is this setting


def keys_of(kind: str) -> tuple[str, ...]:
    """The settings of a guest of this kind, its kind aside."""
    own = ("address", "gateway") if kind == NAMESPACE else ()
    return ("name", *_KINDS[kind][1], *own)


def guest_plan(
    where: str, settings: Mapping[str, Any], defaults: Mapping[str, Any], net: Sequence[Network]
) -> GuestPlan:
    """A guest from the settings that options or a file give it. `where` is followed by a setting's name.

    It has the addresses that it was given; `with_addresses` gives it some when that is none.
    """
    kind = values.one_of(f"{where}kind", settings.get("kind", NAMESPACE), KINDS)
    known = keys_of(kind)
    for key in settings:
        if key not in known and key != "kind":
            raise ConfigError(f"{where}unknown setting {key!r:.80}; a {kind} guest has {', '.join(known)}")
    given = {key: (f"{where}{key}", value) for key, value in settings.items() if key != "kind"}
    for key, value in defaults.items():
        if key in known:
            given.setdefault(key, value)
    if "name" not in given and "path" in given:
        given["name"] = (f"{where}no name is given, and that of its socket,", name_of(given["path"][1]))
    if TARGETS[kind] not in given:
        raise ConfigError(f"{where}a {kind} guest without {TARGETS[kind]}: give one")
    plan_type, checks = _KINDS[kind]
    changes: dict[str, Any] = {
        name: check(*given[key]) for key, (name, check) in checks.items() if key in given
    }
    if "address" in given:
        changes["addresses"] = values.addresses(*given["address"], net)
    if "gateway" in given:
        near = changes.get("addresses") or tuple(ip_interface(f"{n[1]}/{n.prefixlen}") for n in net)
        changes["gateways"] = values.gateways(*given["gateway"], near)
    return replace(plan_type(name=values.name(*given["name"])), **changes)


def name_of(path: object) -> object:
    """What a guest at this socket is called unless somebody says otherwise: web, of /run/web.sock."""
    return os.path.splitext(os.path.basename(path))[0] if isinstance(path, str) else path


def context_settings(where: str, text: str) -> dict[str, Any]:
    """The settings in KIND:TARGET,KEY=VALUE,... which `guest_plan` takes."""
    target, *pairs = text.split(",")
    kind, colon, value = target.partition(":")
    if not colon or kind not in KINDS or not value:
        forms = ", ".join(f"{kind}:{TARGETS[kind].upper()}" for kind in KINDS)
        raise ConfigError(f"{where} {text!r:.80}: give one of {forms}, settings such as rate=1G behind it")
    settings: dict[str, Any] = {"kind": kind, TARGETS[kind]: value}
    key = ""
    for pair in pairs:
        if key == "features" and pair[:1] in ("+", "-"):
            settings[key].append(pair)
            continue
        key, equals, value = pair.partition("=")
        if not equals:
            raise ConfigError(f"{where} {text!r:.80}: {pair!r:.40} has no value; give KEY=VALUE")
        if key in LISTS:
            settings.setdefault(key, []).append(value)
        elif key in settings:
            raise ConfigError(f"{where} {text!r:.80}: {key!r:.40} is given twice")
        else:
            settings[key] = value
    return settings
