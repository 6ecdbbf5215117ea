"""Wrong settings are type errors. Only mypy reads this file; it reports an `ignore` that is not needed."""

from cdna import Machine, RemoteDriver, scapy_guests
from cdna.guests.hostile import Hostile
from cdna.guests.misbehaviour import HostileGuest
from cdna.pytest_plugin import AttachGuest, AttachHostile


def right(machine: Machine, guest: AttachGuest, hostile: AttachHostile) -> None:
    machine.attach("a", weight=3, vlan="trunk", rate=1e9, memory=1 << 20, coalesce=(8, 20.0))
    machine.serve("/run/cdna.sock", uids=[1000])
    guest("a", ip="10.0.0.1", buffer_size=4096)
    hostile("spoof", name="mallory", pages=32)
    scapy_guests("a", protection="iommu:shared", buffer_size=4096)


def wrong(machine: Machine, guest: AttachGuest, hostile: AttachHostile) -> None:
    machine.attach("a", weight="x")  # type: ignore[arg-type]
    machine.attach("a", foo=1)  # type: ignore[call-arg]
    machine.serve("/run/cdna.sock", uids=1000)  # type: ignore[arg-type]
    Machine(max_ring="x")  # type: ignore[arg-type]
    Machine(foo=1)  # type: ignore[call-arg]
    RemoteDriver("/run/cdna.sock", name="a", tx_ring="x")  # type: ignore[arg-type]
    Hostile(machine, anti_spoof="off")  # type: ignore[arg-type]
    HostileGuest(machine, protection=None)  # type: ignore[arg-type]
    guest("a", weight="x")  # type: ignore[arg-type]
    hostile("spoof", foo=1)  # type: ignore[call-arg]
    scapy_guests("a", foo=1)  # type: ignore[call-arg]
