"""One hostile guest, for tests, fuzzers and benchmarks: it maps what a guest maps and writes what it likes.

It has its context page, its rings where the protection mode lets a guest write them, its own memory, and the
hypercalls with any arguments. It has no driver, and nothing of the NIC's or the VMM's. Its context is a
remote one: the NIC finds its doorbells by looking at the page, as with a guest in another process.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import Unpack

import numpy as np

from cdna import abi
from cdna.abi import DescFlag, Mailbox, Refusal, Ring
from cdna.base.units import parse_mac
from cdna.errors import Refused
from cdna.machine import Machine
from cdna.settings import ContextSettings, Settings
from cdna.vmm.domain import Context, Guest

EOP = DescFlag.DESC_F_EOP
TX, RX = Ring.RING_TX, Ring.RING_RX
PRODUCER = {TX: Mailbox.MAILBOX_TX_PRODUCER, RX: Mailbox.MAILBOX_RX_PRODUCER}

ETHERTYPE = b"\x88\xb5"  # IEEE 802, for local experiments

Desc = tuple[int, int, int]  # address, length, flags


def descriptors(requests: Iterable[Desc], first_seq: int = 0) -> np.ndarray:
    """Descriptors as they lie in memory, numbered from `first_seq`."""
    rows = [(addr, length, flags, first_seq + i) for i, (addr, length, flags) in enumerate(requests)]
    return np.array(rows, abi.DESC_DTYPE)


class HostileSettings(Settings, total=False):
    """The arguments of `Hostile`, for a function that hands them on."""

    pages: int


class Hostile:
    """A guest of `pages` pages with one context of `settings` (`ContextSettings`), which it drives raw."""

    def __init__(
        self, machine: Machine, name: str = "mallory", *, pages: int = 16, **settings: Unpack[Settings]
    ) -> None:
        settings = {"tx_ring": 8, "rx_ring": 8, **settings}
        wanted = replace(ContextSettings.of(**settings), remote=True)
        self.machine = machine
        self.guest: Guest = machine.vmm.create_guest(name, pages * abi.PAGE_BYTES)
        try:
            self.context: Context = machine.vmm.assign(self.guest, wanted)
        except Exception:
            machine.vmm.destroy_guest(self.guest)
            raise
        self.memory = self.guest.memory
        self.size = {TX: self.context.settings.tx_ring, RX: self.context.settings.rx_ring}
        self.posted = {TX: 0, RX: 0}  # what an honest driver would announce
        self.heir: Guest | None = None  # who gets what it gives away
        self.descriptors = 0  # that it has asked for, granted or not
        self.refusals: Counter[str] = Counter()  # by reason

    @property
    def mac(self) -> bytes:
        return parse_mac(self.context.mac)

    # --- memory that it maps ------------------------------------------------------------------------------

    @property
    def page(self) -> np.ndarray:
        """The context page, one record of CONTEXT_PAGE_DTYPE, writable."""
        return self.machine.nic.page_view(self.context.index).view(abi.CONTEXT_PAGE_DTYPE)

    def ring(self, ring: Ring) -> np.ndarray:
        """A descriptor ring; a guest can write it in the modes iommu and none."""
        step = self.machine.nic.max_ring * abi.DESC_DTYPE.itemsize
        start = step * int(ring)
        view = self.machine.nic.rings_view(self.context.index)[start : start + step]
        return view.view(abi.DESC_DTYPE)[: self.size[ring]]

    @property
    def completions(self) -> np.ndarray:
        start = self.machine.nic.max_ring * 2 * abi.DESC_DTYPE.itemsize
        step = self.machine.nic.max_ring * abi.COMPLETION_DTYPE.itemsize
        view = self.machine.nic.rings_view(self.context.index)[start : start + step]
        return view.view(abi.COMPLETION_DTYPE)[: self.size[RX]]

    def maddr(self, page: int = 0, offset: int = 0) -> int:
        """Machine address of a byte of the guest's own memory."""
        return self.guest.maddr + page * abi.PAGE_BYTES + offset

    def write(self, data: bytes, page: int = 0, offset: int = 0) -> int:
        """Puts bytes into the guest's memory; returns their machine address."""
        at = page * abi.PAGE_BYTES + offset
        self.memory[at : at + len(data)] = np.frombuffer(data, np.uint8)
        return self.guest.maddr + at

    def consumer(self, ring: Ring) -> int:
        """The consumer index that the NIC published."""
        return int(self.page["tx_consumer" if ring == TX else "rx_consumer"][0])

    # --- what an attacker wants to know -------------------------------------------------------------------

    def own_pages(self) -> list[int]:
        """Machine pages that are its own, those that it has given away left out."""
        return np.flatnonzero(self.machine.memory.owners() == self.guest.domain).tolist()

    def foreign_pages(self) -> list[int]:
        """Machine pages of others and of nobody, and the first one behind the end of memory."""
        owners = self.machine.memory.owners()
        return [*np.flatnonzero(owners != self.guest.domain).tolist(), len(owners)]

    def foreign_contexts(self) -> list[int]:
        """Indices of the contexts of others, and of one that nobody has."""
        contexts = self.machine.vmm.contexts
        free = next(i for i in range(len(contexts) + 1) if i not in contexts)
        return [*(index for index in contexts if index != self.context.index), free]

    def neighbours(self) -> list[bytes]:
        """MAC addresses of the others."""
        contexts = self.machine.vmm.contexts.values()
        return [parse_mac(c.mac) for c in contexts if c.guest is not self.guest]

    def frame(self, to: bytes, source: bytes | None = None, size: int = 60, page: int = 1) -> Desc:
        """Writes a frame into a page of its own; returns the descriptor for it. source: None for its own."""
        data = (to + (source or self.mac) + ETHERTYPE).ljust(size, b"\xbd")[:size]
        return self.address(self.write(data, page)), size, int(EOP)

    def address(self, maddr: int) -> int:
        """What a descriptor of this guest says for a byte of its own: in the mode iommu an I/O address."""
        iommu = self.context.settings.mode == abi.Protection.PROTECTION_IOMMU
        return maddr - self.guest.maddr if iommu else maddr

    # --- the ways out -------------------------------------------------------------------------------------

    def ring_doorbell(self, mailbox: int, value: int) -> None:
        """Writes a mailbox and rings its doorbell."""
        self.page["mailbox"][0, mailbox] = value & 0xFFFFFFFF
        self.page["doorbell"][0] |= 1 << mailbox

    def enqueue(
        self, ring: int, requests: Iterable[Desc], *, domain: int | None = None, context: int | None = None
    ) -> int:
        """The hypercall, under its own name or another's. Returns how many were taken, or a Refusal."""
        rows = descriptors(requests)
        self.descriptors += len(rows)
        status = self.machine.vmm.tables.enqueue(
            self.guest.domain if domain is None else domain,
            self.context.index if context is None else context,
            ring,
            rows.view(np.uint8),
        )
        return self._counted(status)

    def iommu_map(self, io_pages: Iterable[int], pages: Iterable[int], *, context: int | None = None) -> int:
        """Maps machine pages at I/O pages."""
        index = self.context.index if context is None else context
        status = self.machine.vmm.tables.iommu_map(
            self.guest.domain, index, np.array([*io_pages], np.uint32), np.array([*pages], np.uint32)
        )
        return self._counted(status)

    def iommu_unmap(self, io_pages: Iterable[int], *, context: int | None = None) -> int:
        index = self.context.index if context is None else context
        status = self.machine.vmm.tables.iommu_unmap(
            self.guest.domain, index, np.array([*io_pages], np.uint32)
        )
        return self._counted(status)

    def give_away(self, *pages: int, to: Guest | None = None) -> int:
        """Hands machine pages to another guest, also while DMA to them is under way. As `enqueue` returns.

        to: None for `heir`, or where there is none for the first of the others.
        """
        others = (guest for guest in self.machine.vmm.guests.values() if guest is not self.guest)
        to = to or self.heir or next(others)
        try:
            self.machine.vmm.transfer(pages, self.guest, to)
        except Refused as refused:
            return self._counted(refused.reason)
        return len(pages)

    def announce(self, ring: Ring, ahead: int) -> None:
        """Announces so many more descriptors than it has posted: what lies in the ring is from before."""
        self.descriptors += max(0, ahead)
        self.ring_doorbell(PRODUCER[Ring(ring)], self.posted[Ring(ring)] + ahead)

    def renew(self) -> None:
        """Has its context taken away, whatever is outstanding, and gets it anew."""
        self.machine.vmm.revoke(self.context)
        settings = self.context.settings
        self.context = self.machine.vmm.assign(self.guest, settings, index=self.context.index)
        self.posted = {TX: 0, RX: 0}

    def _counted(self, status: int) -> int:
        if status < 0:
            self.refusals[Refusal(status).name] += 1
        return status

    # --- what a driver would do, for a start from good behaviour --------------------------------------------

    def post(self, ring: Ring, requests: Iterable[Desc]) -> int:
        """Puts descriptors on a ring, as the mode wants it, and rings the doorbell. Returns how many."""
        requests = list(requests)
        if self.context.settings.protection == "validated":
            taken = self.enqueue(ring, requests)
        else:
            taken = len(requests)
            self.descriptors += taken
            for i, row in enumerate(descriptors(requests)):
                self.ring(ring)[(self.posted[ring] + i) % self.size[ring]] = row
        if taken > 0:
            self.posted[ring] += taken
            self.ring_doorbell(PRODUCER[ring], self.posted[ring])
        return taken
