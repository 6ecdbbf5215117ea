"""Guests that are Linux network namespaces, in which real programs run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_interface
from typing import TYPE_CHECKING, Any, ClassVar

from cdna.base import readers
from cdna.extend import trial
from cdna.extend.finding import Finding
from cdna.extend.permits import TUN, Access, Call, Capability, Permits, one_of
from cdna.extend.setting import Setting
from cdna.lab import resolver, values
from cdna.lab.kinds import CONTEXT, MTU, PROTECTION, Given, GuestKind, GuestPlan

if TYPE_CHECKING:
    from cdna.extend.host import Host
    from cdna.lab.kinds.base import Shared
    from cdna.lab.kinds.namespace.member import NamespaceMember
    from cdna.lab.namespace import Address
    from cdna.lab.values import Network

CLONE_NEWNET = 0x40000000  # linux/sched.h
# Of the network namespace of the thread that looks. Landlock goes by inode, and all below, such as ipv4/conf,
# are other inodes in another namespace: no narrower rule holds in a guest's.
SYSCTLS = {"/proc/sys/net": Access.WRITE_FILE}


@dataclass(frozen=True)
class NamespacePlan(GuestPlan):
    """A namespace. dns: name servers; none: the host's."""

    kind: ClassVar[str] = "namespace"

    gateways: tuple[Address, ...] = ()
    dns: tuple[str, ...] = ()
    gro: bool = False  # the device takes UDP datagrams that are joined


def _networked(given: Given, net: Sequence[Network]) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    if "address" in given:
        changes["addresses"] = values.addresses(*given["address"], net)
    if "gateway" in given:
        near = changes.get("addresses") or tuple(ip_interface(f"{n[1]}/{n.prefixlen}") for n in net)
        changes["gateways"] = values.gateways(*given["gateway"], near)
    return changes


def _member(shared: Shared, plan: NamespacePlan) -> NamespaceMember:
    from cdna.lab.kinds.namespace.member import NamespaceMember

    return NamespaceMember(shared, plan)


def _memory() -> int:
    from cdna.lab.kinds.namespace.member import MEMORY

    return MEMORY


def _permits() -> Permits:
    """Namespaces come and go while the server runs."""
    from cdna.nic import tap

    calls = (
        *tap.CALLS,
        Call("ioctl", (one_of(1, ("SIOCETHTOOL", tap.SIOCETHTOOL)),)),
        Call("unshare", (one_of(0, ("CLONE_NEWNET", CLONE_NEWNET)),)),
        Call("setns", (one_of(1, ("CLONE_NEWNET", CLONE_NEWNET)),)),
        Call("pidfd_open"),
    )
    return Permits(
        calls,
        {**TUN, **SYSCTLS},
        frozenset({Capability.CAP_SYS_ADMIN, Capability.CAP_NET_ADMIN}),
        modules=(
            "cdna.lab.kinds.namespace.member",
            "cdna.nic.tap",
            "pyroute2",
            "pyroute2.netns",
            "pyroute2.ethtool.ioctl",
        ),
    )


def _notes(plans: Sequence[NamespacePlan]) -> list[str]:
    """Says so where guests have a way out, and names outside do not resolve for them."""
    routed = [plan for plan in plans if plan.gateways and not plan.dns]
    if not routed or not resolver.is_stub():
        return []
    return [
        f"guests cannot reach this machine's name servers, which are on its loopback device "
        f"({resolver.RESOLV_CONF}): give theirs, such as --dns {routed[0].gateways[0]}"
    ]


def _state(guest: Mapping[str, Any]) -> str | None:
    """No device: a program inside the namespace has deleted it."""
    return "no device" if guest.get("device") is False and guest["state"] == "running" else None


def _remark(guest: Mapping[str, Any]) -> str | None:
    if guest.get("device") is not False:
        return None
    return f"{guest['guest']} has deleted its device: cdna ctl reset {guest['guest']} makes it anew"


# What keeps an ordinary user from a user namespace, where the kernel or the distribution says so.
_USERNS_SWITCHES = (
    (
        "proc/sys/kernel/apparmor_restrict_unprivileged_userns",
        "kernel.apparmor_restrict_unprivileged_userns=0",
    ),
    ("proc/sys/kernel/unprivileged_userns_clone", "kernel.unprivileged_userns_clone=1"),
    ("proc/sys/user/max_user_namespaces", "user.max_user_namespaces=15000"),
)


def network_namespaces(host: Host) -> Finding:
    """As root. For others see `user_namespaces`."""
    if host.uid != 0:
        return Finding(
            "network namespaces",
            "ok",
            "not root",
            "guests get theirs through user namespaces; a wire that uses the host's network wants sudo",
        )
    tried = host.trial(trial.network_namespace)
    if tried.works:
        return Finding("network namespaces", "ok", "as root", "guests that run real programs: cdna up")
    return Finding(
        "network namespaces",
        "missing",
        tried.reason,
        "no cdna up as root here; in a container, add the capability SYS_ADMIN",
    )


def user_namespaces(host: Host) -> Finding:
    tried = host.trial(trial.user_namespace)
    if tried.works:
        return Finding("user namespaces", "ok", "for every user", "cdna up without root")
    switch = next((text for path, text in _USERNS_SWITCHES if _stands_in_the_way(host, path)), None)
    return Finding(
        "user namespaces",
        "missing",
        tried.reason,
        "cdna up and pytest guests with a network of their own need root",
        None if switch is None else host.as_root(f"sysctl -w {switch}"),
    )


def _stands_in_the_way(host: Host, path: str) -> bool:
    value = host.integer(path)
    return value is not None and (value != 0) == path.endswith("restrict_unprivileged_userns")


ADDRESS, GATEWAY = "Default: the next that is free.", "Default routes of a guest."
DNS, GRO = "A guest's name servers. Default: the host's.", "Join UDP datagrams on arrival: off."

KIND = GuestKind(
    "namespace",
    NamespacePlan,
    (
        *CONTEXT,
        PROTECTION,
        MTU,
        Setting("dns", values.servers, "ADDRESS,...", DNS, shared=True, several=True),
        Setting("gro", readers.switch, "on|off", GRO, live=True, shared=True),
    ),
    _member,
    networked=(
        Setting("address", readers.words, "ADDRESS,...", ADDRESS, several=True),
        Setting("gateway", readers.words, "ADDRESS,...", GATEWAY, shared=True, several=True),
    ),
    read_networked=_networked,
    memory=_memory,
    descriptors=5,  # itself, its tap, two sockets inside, its interrupt
    pumped=True,
    spin_us=1000.0,  # its programs give their core back when they wait; a virtual machine's do not
    privileged=True,
    permits=_permits,
    drops={"tap_drop_tx": ("tx", "tap"), "tap_drop_rx": ("rx", "tap")},  # between context and namespace
    notes=_notes,
    state=_state,
    remark=_remark,
    checks={"network": (network_namespaces, user_namespaces)},
)
