"""The VMM: guests and their pages, contexts assigned and revoked, faults reported, interrupts handed on."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Unpack

import numpy as np

from cdna import abi, logs
from cdna.errors import ConfigError, Refused, ResourceError, known, whole
from cdna.faults import FAULTS_KEPT, FaultReport, refusal_text
from cdna.memory import Memory
from cdna.nic.device import Nic
from cdna.settings import ContextSettings
from cdna.vmm.addresses import AddressBook
from cdna.vmm.domain import PAGE, Context, Guest
from cdna.vmm.interrupts import InterruptThread
from cdna.vmm.policy import Policy, PolicyOptions
from cdna.vmm.server import Server
from cdna.vmm.tables import Tables

log = logs.logger("cdna.vmm")

MAX_MEMORY = 1 << 63  # bytes; what a number of them may be at all, before it is looked at


class Hypervisor:
    """The VMM of one machine and one NIC. `cdna.Machine` makes all three. identity: as of `AddressBook`."""

    def __init__(self, memory: Memory, nic: Nic, identity: str | None = None) -> None:
        self.memory = memory
        self.nic = nic
        self.addresses = AddressBook(identity)
        self.tables = Tables(nic)
        self.guests: dict[str, Guest] = {}
        self.contexts: dict[int, Context] = {}
        self.faults: list[FaultReport] = []
        self._next_domain = 1
        # Guests come and go in the server's thread, faults are collected in the interrupt thread.
        self._lock = threading.RLock()
        self._servers: list[Server] = []
        self._watchers: list[Callable[[Context], None]] = []
        self._interrupts = InterruptThread(nic, self.handle_interrupts)
        self._closed = False

    # --- guests -------------------------------------------------------------------------------------------

    def create_guest(self, name: str, memory: int) -> Guest:
        """A guest with `memory` bytes, rounded up to pages. ConfigError: a name taken, no memory left."""
        self.check_open()
        if not isinstance(name, str) or not name.isprintable() or not 1 <= len(name) <= 64:
            raise ConfigError(f"guest name {name!r:.80}: give 1 to 64 printable characters")
        memory = whole(f"memory of guest {name!r}:", memory, -MAX_MEMORY, MAX_MEMORY)
        if memory <= 0:
            raise ConfigError(f"guest {name!r} with {memory} bytes: give at least {PAGE}")
        pages = -(-memory // PAGE)
        if pages > self.memory.pages:
            raise ConfigError(
                f"guest {name!r} of {memory} bytes: machine memory has {self.memory.size}; "
                f"give the guest less or the machine more"
            )
        with self._lock:
            if name in self.guests:
                raise ConfigError(f"guest {name!r} exists: give another name, or destroy it first")
            first = self.memory.allocate(pages, self._next_domain)
            guest = Guest(self, name, self._next_domain, first, pages)
            self._next_domain += 1
            self.guests[name] = guest
        return guest

    def destroy_guest(self, guest: Guest) -> None:
        """Revokes the guest's contexts and frees every page that it owns."""
        with self._lock:
            for context in list(guest.contexts):
                self.revoke(context)
            self.memory.release(guest.domain)
            if self.guests.get(guest.name) is guest:
                del self.guests[guest.name]

    # --- contexts -----------------------------------------------------------------------------------------

    def assign(
        self,
        guest: Guest,
        settings: ContextSettings | None = None,
        *,
        index: int | None = None,
        event_fd: int | None = None,
    ) -> Context:
        """Gives a free context of the NIC to a guest and starts it. Errors: ConfigError, ResourceError.

        event_fd: written when a virtual interrupt is posted, never waited for; the context closes it when it
        is revoked. None makes an eventfd.
        """
        settings = settings or ContextSettings()
        with self._lock:
            self._check_guest(guest)
            if index is None:
                index = next((i for i in range(self.nic.contexts) if i not in self.contexts), None)
                if index is None:
                    raise ResourceError(
                        f"all {self.nic.contexts} contexts are taken: revoke one, or make a larger NIC"
                    )
            if not 0 <= index < self.nic.contexts:
                raise ConfigError(f"context {index}: this NIC has contexts 0 to {self.nic.contexts - 1}")
            if index in self.contexts:
                raise ConfigError(
                    f"context {index} is assigned to {self.contexts[index].guest.name!r}: revoke it first"
                )
            return self._assign(guest, settings, index, event_fd)

    def _assign(self, guest: Guest, settings: ContextSettings, index: int, event_fd: int | None) -> Context:
        io_pages = 0
        if settings.mode == abi.Protection.PROTECTION_IOMMU:
            io_pages = guest.pages + (settings.tx_ring + settings.rx_ring) * abi.Limits.IO_PAGES_PER_SLOT
        options: dict[str, Any] = settings.options()
        self.nic.configure(
            index,
            owner=guest.domain,
            protection=settings.mode,
            mac=settings.mac_bytes or self._default_mac(guest, index),
            tx_ring=settings.tx_ring,
            rx_ring=settings.rx_ring,
            seq_modulus=settings.seq_modulus,
            io_pages=io_pages,
            polled=settings.remote,
            vnet_header=settings.vnet_header,
            vlan=options["vlan"],
        )
        made_fd = None
        try:
            for name, value in options.items():
                self.nic.set_option(index, name, value)
            if event_fd is None:
                event_fd = made_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            self.tables.open_context(index, guest.domain, event_fd, io_pages)
        except Exception:
            self.nic.release(index)
            if made_fd is not None:
                os.close(made_fd)
            raise
        if settings.strategy == abi.IommuStrategy.IOMMU_DIRECT_MAP and io_pages:
            self.tables.map_guest(index, guest.first_page, guest.pages)
        context = Context(self, guest, index, settings, event_fd)
        context.options["mac"] = self.nic.info(index)["mac"]
        self.contexts[index] = context
        guest.contexts.append(context)
        self._tell_watchers(context)
        self.nic.start(index)
        return context

    # --- who watches the contexts come --------------------------------------------------------------------

    @contextlib.contextmanager
    def contexts_locked(self) -> Iterator[list[Context]]:
        """The contexts that are assigned; none comes or goes while this is entered."""
        with self._lock:
            yield list(self.contexts.values())

    def watch_contexts(self, watcher: Callable[[Context], None]) -> None:
        """Calls `watcher` with each context: now, before another one starts, and when its address changes."""
        with self._lock:
            for context in self.contexts.values():
                watcher(context)
            self._watchers.append(watcher)

    def unwatch_contexts(self, watcher: Callable[[Context], None]) -> None:
        """Calls it no more; one that does not watch is no error."""
        with self._lock, contextlib.suppress(ValueError):
            self._watchers.remove(watcher)

    def _tell_watchers(self, context: Context) -> None:
        for watcher in self._watchers:
            watcher(context)

    def _default_mac(self, guest: Guest, index: int) -> bytes:
        """An address of the context's own, which no guest has chosen before."""
        for mac in self.addresses.candidates(guest.name, len(guest.contexts), index):
            if not self.nic.mac_taken(mac):
                return mac
        raise ResourceError(f"the guests have taken every address for context {index}: give it one")

    def _check_guest(self, guest: Guest) -> None:
        self.check_open()
        if self.guests.get(guest.name) is not guest:
            raise ConfigError(
                f"guest {guest.name!r} is not of this machine, or was destroyed: create it anew"
            )

    def check_open(self) -> None:
        """ConfigError: the machine was closed."""
        if self._closed:
            raise ConfigError("this machine was closed: make another")

    def revoke(self, context: Context) -> None:
        """Takes a context away, at any moment: the NIC stops serving it, then its pins are dropped."""
        with self._lock:
            if context.revoked:
                return
            self._collect_fault(context)
            self.nic.halt(context.index)
            self.tables.close_context(context.index)
            context.end()
            self.nic.release(context.index)
            del self.contexts[context.index]
            context.guest.contexts.remove(context)
            with contextlib.suppress(OSError):  # wakes who sleeps on it, who would sleep for ever
                os.eventfd_write(context.event_fd, 1)
            os.close(context.event_fd)
        if context.on_revoke is not None:
            context.on_revoke()

    def set_options(self, context: Context, options: dict[str, object]) -> None:
        if context.revoked:
            raise ConfigError(f"context {context.index} was revoked: assign it again")
        parsed = ContextSettings.parse_options(options)
        for name, value in parsed.items():
            self.nic.set_option(context.index, name, value)
            context.options[name] = value
        if "mac" in parsed:
            with self._lock:
                self._tell_watchers(context)

    def adopt_options(self, context: Context, options: dict[str, Any]) -> None:
        """As `set_options`, but by the guest's choice. Of a context that was revoked it does nothing."""
        with self._lock, self.nic.quiesced(context.index):
            if context.revoked:
                return
            for name, value in options.items():
                self.nic.set_option(context.index, name, value)
            if "mac" in options:
                self._tell_watchers(context)

    def serve(
        self, path: str | os.PathLike[str], policy: Policy | None = None, **options: Unpack[PolicyOptions]
    ) -> Server:
        """Takes guests of other processes on a Unix socket at `path`. `options` are those of `Policy`.

        The server ends with `Server.close`, or with the VMM. ConfigError, ResourceError: it cannot listen.
        """
        self.check_open()
        known("option of a server", options, PolicyOptions.__annotations__)
        if policy is not None and options:
            raise ConfigError(f"serve: a policy and {', '.join(options)}; give them to the policy")
        server = Server(self, path, policy or Policy(**options))
        self._servers.append(server)
        return server

    # --- pages --------------------------------------------------------------------------------------------

    def transfer(self, pages: Sequence[int], source: Guest, to: Guest) -> None:
        """Gives pages from one guest to another, all or none. Refused: foreign, or pinned by DMA."""
        if self.guests.get(to.name) is not to:
            raise ConfigError(f"guest {to.name!r} was destroyed: give the pages to one that exists")
        self._check_guest(source)
        for context in source.contexts:
            self.tables.reap(context.index)
        pages = [whole("page", page, 0, (1 << 32) - 1) for page in pages]
        for page in pages:
            if self.memory.is_exported(page):
                raise ConfigError(
                    f"page {page} is mapped by the process of {source.name!r}: it cannot be given away"
                )
        done = self.tables.transfer(source.domain, to.domain, np.asarray(pages, np.uint32))
        if done < 0:
            self.raise_refusal(done, f"transfer from {source.name!r} to {to.name!r}")

    def raise_refusal(self, status: int, what: str) -> None:
        """Turns a Refusal of the last hypercall into the exception that says it in words."""
        index, page = self.tables.refused
        raise Refused(f"{what} refused: {refusal_text(status, page)}", status, index, page)

    # --- faults and interrupts ----------------------------------------------------------------------------

    def collect_faults(self) -> list[FaultReport]:
        """Reports of contexts that the NIC stopped since the last call; logged, and kept in `faults`."""
        with self._lock:
            reports = [self._collect_fault(context) for context in self.contexts.values()]
        return [report for report in reports if report is not None]

    def _collect_fault(self, context: Context) -> FaultReport | None:
        info = self.nic.info(context.index)
        faults = self.nic.stats(context.index)["faults"]
        if info["state"] != abi.ContextState.CONTEXT_FAULTED or faults == context.faults_collected:
            return None
        context.faults_collected = faults
        context.fault = FaultReport.of(context.guest.name, context.guest.domain, context.index, info)
        log.warning("%s", context.fault)
        self.faults.append(context.fault)
        del self.faults[:-FAULTS_KEPT]  # a guest that comes back to fault again fills no memory
        return context.fault

    def handle_interrupts(self) -> int:
        """Decodes the interrupt bit vectors into virtual interrupts. Returns vectors read."""
        vectors = self.tables.decode_interrupts()
        if vectors:
            self.collect_faults()
        return vectors

    def start_interrupts(self) -> None:
        """Handles interrupts in a thread of their own."""
        self.check_open()
        self._interrupts.start()

    def close(self) -> None:
        """Ends the servers and the interrupt thread, destroys all guests. Closing twice is harmless."""
        if self._closed:
            return
        for server in self._servers:
            server.close()
        self._servers.clear()
        self._interrupts.stop()
        for guest in list(self.guests.values()):
            self.destroy_guest(guest)
        self._interrupts.close()
        self._closed = True
