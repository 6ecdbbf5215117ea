"""Builds Xen 3's driver domain and the guests behind it for one slice."""

from cdna.compare.path import PEER, WINDOW, Scene, guest_mac
from cdna.compare.paths.xen3.xen import XenBridge
from cdna.compare.plan import Case
from cdna.compare.slice import Slice
from cdna.guest_driver.queues import memory_needed
from cdna.guests.local import LocalQueues
from cdna.machine import Machine
from cdna.nic.generator import GeneratorWire
from cdna.nic.null_wire import NullWire
from cdna.nic.traffic import Load
from cdna.settings import ContextSettings

RING = 1024  # descriptors of the driver domain's rings
DRIVER_DOMAIN_MEMORY = 16 << 20  # bytes
GUEST_MEMORY = 8 << 20


def build(case: Case, load: Load, wire: NullWire) -> Scene:
    """A slice of `case.guests` guests behind the bridge; the contract is `cdna.compare.path`'s."""
    memory = DRIVER_DOMAIN_MEMORY + GUEST_MEMORY * case.guests
    machine = Machine(memory, wire=wire, contexts=max(32, case.guests), max_ring=RING)
    slice_ = Slice(machine, case.domains == "inline")
    settings = ContextSettings(
        protection=case.protection,
        tx_ring=RING,
        rx_ring=RING,
        promiscuous=True,
        anti_spoof=False,
        vlan="trunk",
    )
    domain0 = machine.vmm.create_guest("driver domain", memory_needed(RING, RING, 64))
    bridge = XenBridge(
        machine.memory,
        slice_.host,
        LocalQueues(machine.vmm.assign(domain0, settings), 64),
        load,
        guests=case.guests,
        macs=[guest_mac(number) for number in range(case.guests)],
        peer=PEER,
        domid=domain0.domain,
        transmit=case.direction == "tx",
        receive=case.receive or "copy",
    )
    if isinstance(wire, GeneratorWire):
        bridge.attach_generator(wire, WINDOW)

    def complaint() -> str | None:
        counts = bridge.counts()
        if counts["bad"] or counts["tx_errors"] or counts["dropped"]:
            return f"{counts}, {bridge.bad_frames()}"
        return None

    return Scene(slice_, complaint, bridge.close)
