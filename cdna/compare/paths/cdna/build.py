"""Builds CDNA's guests for one slice."""

from cdna.compare.path import PEER, WINDOW, Scene, guest_mac
from cdna.compare.paths.cdna.guest import CdnaGuest
from cdna.compare.plan import Case
from cdna.compare.slice import Slice
from cdna.guest_driver.queues import memory_needed
from cdna.guests.synthetic import SyntheticGuest
from cdna.machine import Machine
from cdna.nic.generator import GeneratorWire
from cdna.nic.null_wire import NullWire
from cdna.nic.traffic import Load

# Descriptors of a guest's rings. Short ones: what 24 guests have under way should fit the NIC's cache. Xen's
# netfront has the 256 slots that fill a page, and gains nothing from fewer.
TX_RING = 64
RX_RING = 128
COALESCE_US = 250.0  # a guest is interrupted after half a ring or so many microseconds: e1000's bulk setting


def build(case: Case, load: Load, wire: NullWire, tx_ring: int = TX_RING, rx_ring: int = RX_RING) -> Scene:
    """A slice of `case.guests` guests that drive a context each; the contract is `cdna.compare.path`'s."""
    size = ((load.max_length + 63) // 64 * 64) | 64  # odd cache lines: buffers spread over the cache's sets
    needed = memory_needed(tx_ring, rx_ring, size)
    machine = Machine(needed * case.guests + (1 << 20), wire=wire, contexts=max(32, case.guests))
    slice_ = Slice(machine, case.domains == "inline")
    generator = wire if isinstance(wire, GeneratorWire) else None
    guests = []
    for number in range(case.guests):
        driver = machine.attach(
            f"guest{number}",
            buffer_size=size,
            protection=case.protection,
            tx_ring=tx_ring,
            rx_ring=rx_ring,
            mac=guest_mac(number).hex(":"),
            coalesce=((tx_ring if generator is None else rx_ring) // 2, COALESCE_US),
        )
        flow = 0
        if generator is not None:
            context = driver.context.index
            flow = generator.add_flow(
                guest_mac(number), PEER, window=WINDOW, context=context, buffer_size=size
            )
        synthetic = SyntheticGuest(driver, load, number, guest_mac(number), PEER)
        guests.append(CdnaGuest(slice_.host, synthetic, generator, flow))
    return Scene(slice_, lambda: next((g.synthetic.first_bad for g in guests if g.synthetic.first_bad), None))
