"""The wire tap:NAME: a network device of this host, the other side of which is the NIC's port."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from cdna.extend.finding import Finding
from cdna.extend.permits import TUN, Call, Capability, Permits
from cdna.nic.wires import WireKind, WireText, tap_trial

if TYPE_CHECKING:
    from cdna.extend.host import Host
    from cdna.nic.wire import Wire


def make(text: WireText) -> Wire:
    from cdna.nic.tap_wire import TapWire

    name, given = text.device("queues", "vnet")
    return TapWire(name, queues=_queues(text), vnet_header=text.switch("vnet", given.get("vnet", "on")))


def _queues(text: WireText) -> int:
    _, given = text.device("queues", "vnet")
    return text.number("queues", given.get("queues", "1"), "1 or more")


def permits() -> Permits:
    """It is opened anew when it has gone."""
    from cdna.nic.tap import CALLS

    return Permits((*CALLS, Call("dup3")), TUN, frozenset({Capability.CAP_NET_ADMIN}), modules=("pyroute2",))


def taps(host: Host) -> Finding:
    meaning = "no guest with a network stack and no tap wire"
    trial = host.trial(tap_trial.tap)
    if trial.works:
        return Finding("taps", "ok", "made one", "guests' devices, and the wire tap:NAME")
    if not host.exists("dev/net/tun") or trial.errno in (errno.ENODEV, errno.ENXIO):
        return Finding("taps", "missing", "no /dev/net/tun", meaning, host.as_root("modprobe tun"))
    mend = host.as_root("chmod 0666 /dev/net/tun") if trial.step == "opening /dev/net/tun" else None
    return Finding("taps", "missing", trial.reason, meaning, mend)


def tap_offloads(host: Host) -> Finding:
    trial = host.trial(tap_trial.tap_offloads)
    if trial.works:
        return Finding(
            "tap offloads", "ok", "checksum, TSO, queues", "TCP passes in pieces of 64 KiB with one checksum"
        )
    if not host.trial(tap_trial.tap).works:
        return Finding("tap offloads", "missing", "no taps", "see taps")
    return Finding(
        "tap offloads", "slower", trial.reason, "every TCP segment passes alone: many times slower"
    )


WIRE = WireKind(
    "tap",
    ("tap:NAME[,queues=N][,vnet=off]",),
    make,
    live=True,
    host_device=lambda text: text.device("queues", "vnet")[0],
    permits=permits,
    descriptors=lambda text: _queues(text) + 4,
    counters={
        "rx_drop_device": "Frames of the host's for which the tap's queue had no room.",
        "rx_oversize": "Frames that were too long.",
        "rx_bad_offload": "Frames that asked for work that no NIC here does.",
    },
    checks=(taps, tap_offloads),
)
