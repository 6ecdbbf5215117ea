"""The VMM: guests and their pages, contexts assigned and revoked, faults reported, interrupts handed on."""

from __future__ import annotations

import logging
import os
import select
import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cdna import abi
from cdna.errors import ConfigError, Refused, ResourceError
from cdna.memory import Memory
from cdna.nic.device import Nic
from cdna.vmm.settings import ContextSettings
from cdna.vmm.tables import Tables

log = logging.getLogger("cdna.vmm")

_REFUSAL_TEXT = {
    abi.Refusal.REFUSED_CONTEXT: "not a running context of this guest",
    abi.Refusal.REFUSED_OWNER: "page {page} belongs to another domain; a guest may name its own pages only",
    abi.Refusal.REFUSED_ADDRESS: "page {page} is outside the memory; see Guest.maddr and Guest.size",
    abi.Refusal.REFUSED_LENGTH: "a buffer has 1 to 65535 bytes",
    abi.Refusal.REFUSED_FLAGS: "unknown descriptor flags; see cdna.abi.DescFlag",
    abi.Refusal.REFUSED_RING_FULL: "the ring is full; wait for completions",
    abi.Refusal.REFUSED_PINNED: "page {page} is pinned by outstanding DMA; wait for its completion",
    abi.Refusal.REFUSED_MODE: "this hypercall does not belong to the context's protection mode",
    abi.Refusal.REFUSED_MAPPED: "an I/O page that is mapped already, or is not mapped (page {page})",
}

PAGE = abi.PAGE_BYTES
SINGLE_USE_PAGES = 4  # I/O pages for each descriptor, as in guest_driver/queues.pxd


@dataclass(frozen=True)
class FaultReport:
    """Why the NIC stopped a context: which check failed, where, and by what."""

    guest: str
    domain: int
    context: int
    reason: abi.Fault
    ring: abi.Ring
    index: int  # descriptor index, free-running
    expected: int
    found: int

    def __str__(self) -> str:
        return (
            f"guest {self.guest!r}, context {self.context}: {self.reason.name} in {self.ring.name} "
            f"at index {self.index}, expected {self.expected}, found {self.found}"
        )


class Guest:
    """A domain: a run of pages of its own, and the contexts that were assigned to it."""

    def __init__(self, vmm: Hypervisor, name: str, domain: int, first_page: int, pages: int) -> None:
        self.vmm = vmm
        self.name = name
        self.domain = domain
        self.first_page = first_page
        self.pages = pages
        self.contexts: list[Context] = []

    @property
    def maddr(self) -> int:
        """Machine address of the guest's first byte."""
        return self.first_page * PAGE

    @property
    def size(self) -> int:
        return self.pages * PAGE

    @property
    def memory(self) -> np.ndarray:
        """The guest's memory, bytes without a copy."""
        return self.vmm.memory.view(self.maddr, self.size)

    def __repr__(self) -> str:
        return f"<Guest {self.name!r} domain {self.domain}, {self.pages} pages>"


class Context:
    """A context of the NIC while it is assigned to a guest."""

    def __init__(self, vmm: Hypervisor, guest: Guest, index: int, settings: ContextSettings) -> None:
        self.vmm = vmm
        self.guest = guest
        self.index = index
        self.settings = settings
        self.event_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.revoked = False
        self.fault: FaultReport | None = None

    @property
    def state(self) -> abi.ContextState:
        if self.revoked:
            return abi.ContextState.CONTEXT_FREE
        return abi.ContextState(self.vmm.nic.info(self.index)["state"])

    @property
    def mac(self) -> str:
        return str(self.vmm.nic.info(self.index)["mac"].hex(":"))

    def stats(self) -> dict[str, int]:
        """Counters since the assignment: frames, bytes, drops by reason, interrupts, doorbells, faults."""
        return self.vmm.nic.stats(self.index)

    def set(self, **options: object) -> None:
        """Changes settings while running: vlan, weight, rate, anti_spoof, promiscuous, all_multicast, multicast, mac."""
        self.vmm.set_options(self, options)

    def __repr__(self) -> str:
        return f"<Context {self.index} of {self.guest.name!r}, {self.state.name}>"


class Hypervisor:
    """The VMM of one machine and one NIC. `cdna.Machine` makes all three."""

    def __init__(self, memory: Memory, nic: Nic) -> None:
        self.memory = memory
        self.nic = nic
        self.tables = Tables(nic)
        self.guests: dict[str, Guest] = {}
        self.contexts: dict[int, Context] = {}
        self.faults: list[FaultReport] = []
        self._next_domain = 1
        self._irq_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        nic.set_interrupt_fd(self._irq_fd)
        self._interrupt_thread: threading.Thread | None = None

    # --- guests -------------------------------------------------------------------------------------------

    def create_guest(self, name: str, memory: int) -> Guest:
        """A guest with `memory` bytes, rounded up to pages. ConfigError: the name is taken, no memory left."""
        if name in self.guests:
            raise ConfigError(f"guest {name!r} exists: give another name, or destroy it first")
        if memory <= 0:
            raise ConfigError(f"guest {name!r} with {memory} bytes: give at least {PAGE}")
        pages = -(-memory // PAGE)
        if pages > self.memory.pages:
            raise ConfigError(
                f"guest {name!r} of {memory} bytes: machine memory has {self.memory.size}; "
                f"give the guest less or the machine more"
            )
        first = self.memory.allocate(pages, self._next_domain)
        guest = Guest(self, name, self._next_domain, first, pages)
        self._next_domain += 1
        self.guests[name] = guest
        return guest

    def destroy_guest(self, guest: Guest) -> None:
        """Revokes the guest's contexts and frees every page that it owns."""
        for context in list(guest.contexts):
            self.revoke(context)
        self.memory.release(guest.domain)
        self.guests.pop(guest.name, None)

    # --- contexts -----------------------------------------------------------------------------------------

    def assign(self, guest: Guest, settings: ContextSettings | None = None, *, index: int | None = None) -> Context:
        """Gives a free context of the NIC to a guest and starts it. Errors: ConfigError, ResourceError."""
        settings = settings or ContextSettings()
        if index is None:
            index = next((i for i in range(self.nic.contexts) if i not in self.contexts), None)
            if index is None:
                raise ResourceError(f"all {self.nic.contexts} contexts are taken: revoke one, or make a larger NIC")
        if index in self.contexts:
            raise ConfigError(f"context {index} is assigned to {self.contexts[index].guest.name!r}: revoke it first")
        io_pages = 0
        if settings.mode == abi.Protection.PROTECTION_IOMMU:
            io_pages = guest.pages + (settings.tx_ring + settings.rx_ring) * SINGLE_USE_PAGES
        self.nic.configure(
            index,
            owner=guest.domain,
            protection=settings.mode,
            mac=settings.mac_bytes or self._default_mac(index),
            tx_ring=settings.tx_ring,
            rx_ring=settings.rx_ring,
            seq_modulus=settings.seq_modulus,
            io_pages=io_pages,
            polled=settings.remote,
        )
        context = Context(self, guest, index, settings)
        try:
            for name, value in settings.options().items():
                self.nic.set_option(index, name, value)
        except ConfigError:
            self.nic.release(index)
            os.close(context.event_fd)
            raise
        self.tables.open_context(index, guest.domain, context.event_fd, io_pages)
        if settings.strategy == abi.IommuStrategy.IOMMU_DIRECT_MAP and io_pages:
            self.tables.map_guest(index, guest.first_page, guest.pages)
        self.contexts[index] = context
        guest.contexts.append(context)
        self.nic.start(index)
        return context

    def _default_mac(self, index: int) -> bytes:
        return bytes([0x02, 0xCD, 0x0A, 0, index >> 8, index & 0xFF])

    def revoke(self, context: Context) -> None:
        """Takes a context away, at any moment: the NIC stops serving it, then its pins are dropped."""
        if context.revoked:
            return
        self.collect_faults()
        self.nic.halt(context.index)
        self.tables.close_context(context.index)
        self.nic.release(context.index)
        context.revoked = True
        del self.contexts[context.index]
        context.guest.contexts.remove(context)
        os.close(context.event_fd)

    def set_options(self, context: Context, options: dict[str, object]) -> None:
        if context.revoked:
            raise ConfigError(f"context {context.index} was revoked: assign it again")
        for name, value in ContextSettings.parse_options(options).items():
            self.nic.set_option(context.index, name, value)

    # --- pages --------------------------------------------------------------------------------------------

    def transfer(self, pages: Sequence[int], source: Guest, to: Guest) -> None:
        """Gives pages from one guest to another, all or none. Refused: foreign, or pinned by outstanding DMA."""
        for context in source.contexts:
            self.tables.reap(context.index)
        for page in pages:
            if self.memory.is_exported(page):
                raise ConfigError(f"page {page} is mapped by the process of {source.name!r}: it cannot be given away")
        done = self.tables.transfer(source.domain, to.domain, np.asarray(pages, np.uint32))
        if done < 0:
            self.raise_refusal(done, f"transfer from {source.name!r} to {to.name!r}")

    def raise_refusal(self, status: int, what: str) -> None:
        """Turns a Refusal of the last hypercall into the exception that says it in words."""
        reason = abi.Refusal(status)
        index, page = self.tables.refused
        raise Refused(f"{what} refused: {reason.name}, {_REFUSAL_TEXT[reason].format(page=page)}", status, index, page)

    # --- faults and interrupts ----------------------------------------------------------------------------

    def collect_faults(self) -> list[FaultReport]:
        """Reports of contexts that the NIC has stopped since the last call; they are logged and kept in `faults`."""
        reports = []
        for index, context in self.contexts.items():
            info = self.nic.info(index)
            if info["state"] != abi.ContextState.CONTEXT_FAULTED or context.fault is not None:
                continue
            context.fault = FaultReport(
                context.guest.name,
                context.guest.domain,
                index,
                abi.Fault(info["fault"]),
                abi.Ring(info["fault_ring"]),
                info["fault_index"],
                info["fault_expected"],
                info["fault_found"],
            )
            reports.append(context.fault)
            log.warning("%s", context.fault)
        self.faults += reports
        return reports

    def handle_interrupts(self) -> int:
        """Decodes the interrupt bit vectors into virtual interrupts. Returns vectors read."""
        vectors = self.tables.decode_interrupts()
        if vectors:
            self.collect_faults()
        return vectors

    def start_interrupts(self) -> None:
        """Handles interrupts in a thread of their own, which sleeps while there are none."""
        if self._interrupt_thread is None:
            self._interrupt_thread = threading.Thread(target=self._serve_interrupts, name="cdna-vmm", daemon=True)
            self._interrupt_thread.start()

    def _serve_interrupts(self) -> None:
        poller = select.poll()
        for fd in (self._irq_fd, self._wake_fd):
            poller.register(fd, select.POLLIN)
        while True:
            if self.nic.arm_interrupt():
                ready = {fd for fd, _ in poller.poll()}
                if self._wake_fd in ready:
                    return
                os.eventfd_read(self._irq_fd)
            self.handle_interrupts()

    def close(self) -> None:
        """Destroys all guests and ends the interrupt thread."""
        if self._interrupt_thread is not None:
            os.eventfd_write(self._wake_fd, 1)
            self._interrupt_thread.join()
            self._interrupt_thread = None
        for guest in list(self.guests.values()):
            self.destroy_guest(guest)
        self.nic.set_interrupt_fd(-1)
        for fd in (self._irq_fd, self._wake_fd):
            os.close(fd)
