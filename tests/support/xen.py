"""A whole Xen bridge that moves one step at a time, on a NIC and a wire that nobody else runs."""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from tests.support.xen_parts import SteppedBridge, constants

from cdna.compare.slice import Slice
from cdna.guest_driver.queues import memory_needed
from cdna.guests.local import LocalQueues
from cdna.machine import Machine
from cdna.nic.generator import GeneratorWire
from cdna.nic.null_wire import NullWire
from cdna.nic.traffic import Load
from cdna.settings import ContextSettings

xen = SimpleNamespace(**constants)

ALICE, BOB = 7, 9  # domain ids
RING = 256
PEER = bytes([2, 0, 0, 0, 2, 0])


def guest_mac(guest: int) -> bytes:
    return bytes([2, 0, 0, 0, 1, guest])


@dataclass
class Bench:
    """A bridge with guests; what moves is moved by `steps`."""

    machine: Machine
    wire: Any
    bridge: SteppedBridge
    slice: Slice

    def steps(self, n: int) -> None:
        for _ in range(n):
            self.bridge.run_once()
            self.machine.nic.poll(4)

    def settle(self) -> None:
        """No new load; what is under way arrives."""
        self.bridge.hold_phase(1)
        self.steps(60)

    def close(self) -> None:
        self.machine.nic.release(0)
        self.bridge.close()


def build_bench(
    direction: str,
    guests: int = 2,
    size: int | str = 1514,
    *,
    frames: int = 200,
    window: int = 64,
    macs: list[bytes] | None = None,
    **options: Any,
) -> Bench:
    """direction: "tx" or "rx", from the guests; frames: of each flow from the wire; options: of XenBridge."""
    load = Load.parse(str(size), verify=True)
    wire = GeneratorWire(load, limit=frames) if direction == "rx" else NullWire(load, flows=guests)
    machine = Machine((24 + 8 * guests) << 20, wire=wire, contexts=1)
    settings = ContextSettings(
        protection="none", tx_ring=RING, rx_ring=RING, anti_spoof=False, promiscuous=True
    )
    domain = machine.vmm.create_guest("driver domain", memory_needed(RING, RING, 2048))
    queues = LocalQueues(machine.vmm.assign(domain, settings), 2048)
    slice_ = Slice(machine, True)
    bridge = SteppedBridge(
        machine.memory,
        slice_.host,
        queues,
        load,
        guests=guests,
        macs=macs or [guest_mac(i) for i in range(guests)],
        peer=PEER,
        domid=domain.domain,
        transmit=direction == "tx",
        **options,
    )
    if direction == "rx":
        wire.follow(machine.nic)
        bridge.attach_generator(wire, window)
    bridge.hold_phase(0)
    return Bench(machine, wire, bridge, slice_)
