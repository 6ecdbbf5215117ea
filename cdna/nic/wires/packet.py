"""The wire packet:INTERFACE: an interface of this host, by an AF_PACKET socket."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from cdna.extend.finding import Finding
from cdna.extend.permits import Permits
from cdna.nic.wires import WireKind, WireText, packet_trial

if TYPE_CHECKING:
    from cdna.extend.host import Host
    from cdna.nic.wire import Wire


def make(text: WireText) -> Wire:
    from cdna.nic.packet_wire import PacketWire

    name, given = text.device("vnet")
    return PacketWire(name, vnet_header=text.switch("vnet", given.get("vnet", "on")))


def permits() -> Permits:
    from cdna.nic.packet_socket import CALLS

    return Permits(CALLS)


def af_packet(host: Host) -> Finding:
    trial = host.trial(packet_trial.af_packet)
    if trial.works:
        return Finding("AF_PACKET", "ok", "opened one", "an interface of the host as a wire: packet:NAME")
    meaning = "no wire packet:NAME"
    if trial.errno in (errno.EPERM, errno.EACCES):
        mend = None if host.uid == 0 else "sudo -s"
        meaning = f"{meaning} for this user; everything inside a lab works"
        return Finding("AF_PACKET", "missing", "no permission", meaning, mend)
    if trial.errno == errno.EAFNOSUPPORT:
        mend = host.as_root("modprobe af_packet")
        return Finding("AF_PACKET", "missing", "not in this kernel", meaning, mend)
    return Finding("AF_PACKET", "missing", trial.reason, meaning)


WIRE = WireKind(
    "packet",
    ("packet:INTERFACE[,vnet=off]",),
    make,
    live=True,
    permits=permits,
    descriptors=lambda text: 4,
    counters={
        "rx_drop_ring": "Frames for which the kernel found no room in the receive ring.",
        "rx_oversize": "Frames that were too long.",
        "rx_bad_offload": "Frames that asked for work that no NIC here does.",
        "tx_oversize": "Of tx_lost, frames longer than the interface's MTU.",
    },
    checks=(af_packet,),
)
