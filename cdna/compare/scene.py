"""The scenes of a comparison: the same guests, NIC, wire and load, on CDNA and on the software bridge."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cdna.compare.paths.xen3.xen import XenBridge
from cdna.compare.plan import Case
from cdna.compare.slice import Slice
from cdna.errors import WrongFrame
from cdna.guest_driver.local import LocalQueues
from cdna.guest_driver.queues import memory_needed
from cdna.guest_driver.synthetic import SyntheticGuest
from cdna.machine import Machine
from cdna.nic.generator import GeneratorWire
from cdna.nic.null_wire import NullWire
from cdna.nic.traffic import Load
from cdna.vmm.settings import ContextSettings

PEER = bytes.fromhex("02cdffffffff")  # the station at the other end of the wire

# Descriptors of a CDNA guest's rings. Short ones: what 24 guests have under way should fit the NIC's cache.
# Netfront's rings have the 256 slots that fill a page; the bridge gains nothing from fewer.
TX_RING = 64
RX_RING = 128
DRIVER_DOMAIN_RING = 1024
WINDOW = 256  # frames of one flow under way from the wire, acknowledged or not
COALESCE_US = 250.0  # a guest is interrupted after half a ring or so many microseconds: e1000's bulk setting
WARM_UP = 0.05  # seconds before measuring: page tables filled, rings full, caches warm

BRIDGE_MEMORY = 16 << 20  # bytes for the driver domain, and for each guest behind the bridge
BRIDGE_GUEST_MEMORY = 8 << 20


Scene = tuple[
    Machine, Slice, Callable[[], str | None]
]  # the last says what a receiver complains of, if anything


def guest_mac(number: int) -> bytes:
    return bytes([0x02, 0xCD, 0x01, 0, 0, number])


def buffer_size(longest: int) -> int:
    """Bytes of one buffer: an odd number of cache lines, so that buffers spread over the cache's sets."""
    return ((longest + 63) // 64 * 64) | 64


def run_slice(
    case: Case, load: Load, seconds: float, line_rate: float, stop_fd: int | None = None
) -> dict[str, Any]:
    """Runs one slice of a case and returns what `Slice.result` counts.

    Raises WrongFrame when a receiver got a frame that it should not have.
    """
    receiving = case.direction == "rx"
    rate = line_rate or None
    if receiving:
        wire: NullWire = GeneratorWire(load, max_flows=case.guests, line_rate=rate)
    else:
        wire = NullWire(load, flows=case.guests, line_rate=rate)
    build = _cdna if case.path == "cdna" else _bridge
    machine, piece, bad = build(case, load, wire)
    try:
        if isinstance(wire, GeneratorWire):
            wire.follow(machine.nic)
        result: dict[str, Any] = piece.run(seconds, WARM_UP, stop_fd)
        problem = bad() or wire.first_bad
        if problem:
            raise WrongFrame(f"{case}: {problem}")
        return result
    finally:
        piece.close()
        machine.close()


def _cdna(case: Case, load: Load, wire: NullWire) -> Scene:
    size = buffer_size(load.max_length)
    needed = memory_needed(TX_RING, RX_RING, size)
    machine = Machine(needed * case.guests + (1 << 20), wire=wire, contexts=max(32, case.guests))
    receiving = case.direction == "rx"
    piece = Slice(machine, receiving, case.domains == "inline")
    guests = []
    for number in range(case.guests):
        driver = machine.attach(
            f"guest{number}",
            buffer_size=size,
            protection=case.protection,
            tx_ring=TX_RING,
            rx_ring=RX_RING,
            mac=guest_mac(number).hex(":"),
            coalesce=((RX_RING if receiving else TX_RING) // 2, COALESCE_US),
        )
        guest = SyntheticGuest(driver, load, number, guest_mac(number), PEER)
        if isinstance(wire, GeneratorWire):
            context = driver.context.index
            wire.add_flow(guest_mac(number), PEER, window=WINDOW, context=context, buffer_size=size)
        piece.add_cdna_guest(guest)
        guests.append(guest)
    return machine, piece, lambda: next((g.first_bad for g in guests if g.first_bad), None)


def _bridge(case: Case, load: Load, wire: NullWire) -> Scene:
    memory = BRIDGE_MEMORY + BRIDGE_GUEST_MEMORY * case.guests
    machine = Machine(memory, wire=wire, contexts=max(32, case.guests), max_ring=DRIVER_DOMAIN_RING)
    piece = Slice(machine, case.direction == "rx", case.domains == "inline")
    settings = ContextSettings(
        protection=case.protection,
        tx_ring=DRIVER_DOMAIN_RING,
        rx_ring=DRIVER_DOMAIN_RING,
        promiscuous=True,
        anti_spoof=False,
        vlan="trunk",
    )
    needed = memory_needed(DRIVER_DOMAIN_RING, DRIVER_DOMAIN_RING, 64)
    domain0 = machine.vmm.create_guest("driver domain", needed)
    nic = LocalQueues(machine.vmm.assign(domain0, settings), 64)
    macs = [guest_mac(number) for number in range(case.guests)]
    bridge = XenBridge(
        machine.memory,
        piece.host_address,
        nic,
        load,
        guests=case.guests,
        macs=macs,
        peer=PEER,
        domid=domain0.domain,
        transmit=case.direction == "tx",
        receive=case.receive or "copy",
    )
    if isinstance(wire, GeneratorWire):
        bridge.attach_generator(wire, WINDOW)
    piece.add_bridge(bridge)

    def bad() -> str | None:
        counts = bridge.counts()
        if counts["bad"] or counts["tx_errors"] or counts["dropped"]:
            return f"{counts}, {bridge.bad_frames()}"
        return None

    return machine, piece, bad
