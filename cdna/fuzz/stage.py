"""The machine that attacks happen in: three honest neighbours, memory full of secrets, a wire that looks."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from cdna.abi import PAGE_BYTES
from cdna.fuzz.arena import FuzzWire, mac_text
from cdna.guest_driver.queues import memory_needed
from cdna.guests.driver import Driver
from cdna.machine import Machine
from cdna.nic.traffic import Load
from cdna.vmm.domain import Guest

NEIGHBOURS = ("alice", "bob", "carol")
NEIGHBOUR_KIND, STRICT_KIND, LOOSE_KIND = 0x0A, 0x0B, 0x0C  # in addresses
LOOSE_VLAN = 100
BUFFER = 512  # bytes
TX_RING, RX_RING = 32, 512  # of a neighbour: room for all that attackers can send it in one round
LENGTHS = (60, 64, 60, 97, 60, 128, 60, 509)  # bytes of neighbours' frames
FREE = 0xFFFFFFFF  # the owner of pages that nobody has
DOMAIN_VMM = 0


class Stage:
    """Build attackers' guests with `guest`, each between pages of secrets; then ask for `foreign`.

    protections: of the three neighbours.
    """

    def __init__(
        self,
        pages: int,
        contexts: int,
        protections: tuple[str, str, str] = ("validated", "iommu:persistent", "none"),
    ) -> None:
        needed = memory_needed(TX_RING, RX_RING, BUFFER) // PAGE_BYTES + 1
        self.wire = FuzzWire()
        self.load = Load(LENGTHS, verify=True)
        self.machine = Machine(
            (pages + 3 * needed + 16) * PAGE_BYTES,
            wire=self.wire,
            contexts=contexts + 3,
            max_ring=RX_RING,
            interrupt_frames=8,
        )
        self._secret: list[int] = []
        self._canaries = (f"canary {i}" for i in itertools.count())
        self.drivers = list(self._neighbours(protections, needed))
        first = self.machine.memory.allocate(2, DOMAIN_VMM)
        self._secret += range(first, first + 2)
        self.victim = self.canary(1)

    def _neighbours(self, protections: tuple[str, str, str], pages: int) -> Iterator[Driver]:
        for i, (name, protection) in enumerate(zip(NEIGHBOURS, protections, strict=True)):
            yield self.machine.attach(
                name,
                memory=pages * PAGE_BYTES,
                buffer_size=BUFFER,
                tx_ring=TX_RING,
                rx_ring=RX_RING,
                mac=mac_text(NEIGHBOUR_KIND, i),
                protection=protection,
                multicast=("01:00:5e:00:00:01",),
            )
            guest = self.machine.guest(name)
            self._secret.append(guest.first_page + guest.pages - 1)  # which its driver does not use

    def canary(self, pages: int) -> Guest:
        """A guest that does nothing, with memory full of secrets."""
        guest = self.machine.vmm.create_guest(next(self._canaries), pages * PAGE_BYTES)
        self._secret += range(guest.first_page, guest.first_page + pages)
        return guest

    def guest(self, name: str, pages: int) -> Guest:
        """An attacker's memory, with secrets before and behind it."""
        guest = self.machine.vmm.create_guest(name, pages * PAGE_BYTES)
        self.canary(2)
        return guest

    def foreign(self) -> list[int]:
        """The pages that hold secrets: those of canaries, of the VMM, and of nobody."""
        free = [page for page, owner in enumerate(self.machine.memory.owners()) if owner == FREE]
        return [*self._secret, *free]

    def close(self) -> None:
        self.machine.close()
