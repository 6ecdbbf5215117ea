"""Scenes in which a class of flaw is tried out: an offender beside honest guests, and memory that is watched.

`unharmed` says what has to hold whatever the offender did: the others exchange frames and lose none, and no
byte has changed that is not the offender's own.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

from cdna import abi
from cdna.abi import ContextState, Fault
from cdna.guest_driver.vhost_frontend import SPLIT, AttachedGuest
from cdna.guest_driver.vrings import SplitRing
from cdna.guests.hostile import Hostile
from cdna.machine import Machine
from cdna.nic.queue_wire import QueueWire
from cdna.vmm.vhost_user import VhostUserGuest
from tests.support.frames import Neighbours
from tests.support.vhost_host import VhostHost, check_traffic, until

NEXT, WRITE, INDIRECT = 1, 2, 4  # of a descriptor (virtio 1.2, 2.7.5)
NOWHERE = 1 << 50  # a guest address that is in no region
WATCHED = 4 << 20  # bytes of an honest guest's memory that it does not use, at the end
PATTERN = 0x5A
MACHINE = 64 << 12  # bytes


class VirtioAttack:
    """Two virtio guests of one NIC: `bad` is the test's to drive, `good` is honest.

    features: what the offender's driver accepts; options: of its `NetDriver`.
    """

    def __init__(self, host: VhostHost, wanted: int = SPLIT, **options: object) -> None:
        self.host = host
        self.offender: VhostUserGuest = host.add("offender", 10)
        self.honest: VhostUserGuest = host.add("honest", 11)
        self.bad: AttachedGuest = host.attach(self.offender, wanted, **options)
        self.good: AttachedGuest = host.attach(self.honest)
        self.memory, self.frontend = self.bad.memory, self.bad.frontend
        self.rx, self.tx = self.bad.rx[0], self.bad.tx[0]
        self.watched = self.good.memory.bytes[-WATCHED:]
        self.watched[:] = PATTERN
        self._own = self._machine_memory()
        check_traffic(host, self.offender, self.bad)
        check_traffic(host, self.honest, self.good)
        self.bad.reclaim()

    def _machine_memory(self) -> int:
        """The part of the VMM's memory that has guests' pages; a virtio guest has one, and never sees it."""
        return zlib.crc32(self.host.machine.memory.view(0, MACHINE))

    # --- what the offender does -----------------------------------------------------------------------------

    def place(self, size: int = 4096, align: int = 64) -> int:
        """Guest address of so many bytes of the offender's."""
        return self.memory.alloc(size, align)

    def table(self, entries: Sequence[tuple[int, int, int, int]]) -> int:
        """Guest address of a table of split descriptors: (address, length, flags, next)."""
        at = self.place(16 * len(entries), 16)
        assert isinstance(self.tx, SplitRing)
        self.memory.view(at, 16 * len(entries), self.tx.table.dtype)[:] = list(entries)
        return at

    def chain(self, *entries: tuple[int, int, int, int], head: int = 0) -> None:
        """Writes descriptors from slot 0 of the split transmit ring on, and makes one available."""
        assert isinstance(self.tx, SplitRing)
        for slot, entry in enumerate(entries):
            self.tx.table[slot] = entry
        self.tx.expose(head)

    def step(self, rounds: int = 4) -> list[bytes]:
        """The NIC moves. Returns what left by the wire."""
        self.host.step(rounds)
        return self.host.wire.get()

    def reconnect(self, wanted: int = SPLIT) -> None:
        """When the offender's frontend was sent away: another one, which has negotiated and no more."""
        assert self.frontend.ended()
        until(lambda: not self.offender.connected)
        self.frontend.close()
        self.frontend = self.host.connect(self.offender, self.memory)
        self.frontend.negotiate(wanted)

    # --- what has become of it ------------------------------------------------------------------------------

    @property
    def fault(self) -> Fault | None:
        """Why the NIC has stopped the offender; None: it has not."""
        self.host.machine.vmm.collect_faults()
        if self.offender.context.state != ContextState.CONTEXT_FAULTED:
            return None
        assert self.offender.context.fault is not None
        return Fault(self.offender.context.fault.reason)

    def stats(self) -> dict[str, int]:
        return dict(self.offender.context.stats())

    def unharmed(self) -> None:
        """The honest guest loses nothing, and nobody's byte but the offender's has changed."""
        lost = self.honest.context.stats()["rx_drop_no_buffer"]
        check_traffic(self.host, self.honest, self.good)
        self.good.reclaim()
        assert self.honest.context.state == ContextState.CONTEXT_RUNNING
        assert self.honest.context.stats()["rx_drop_no_buffer"] == lost
        assert (self.watched == PATTERN).all()
        assert self._machine_memory() == self._own


class NativeAttack:
    """A hostile guest of the native driver beside two honest ones, on a NIC that moves when it is told to.

    victim: a third guest, without a context; its pages are watched. settings: of the offender's context.
    """

    def __init__(self, protection: str = "validated", *, pages: int = 16, **settings: object) -> None:
        self.wire = QueueWire()
        self.machine = Machine(8 << 20, wire=self.wire, contexts=8)
        self.neighbours = Neighbours(self.machine)
        self.victim = self.machine.vmm.create_guest("victim", 16 * abi.PAGE_BYTES)
        self.victim.memory[:] = PATTERN
        self.mallory = Hostile(self.machine, pages=pages, protection=protection, **settings)
        self.neighbours.check()
        self.wire.get()

    def step(self, rounds: int = 4) -> list[bytes]:
        self.machine.step(rounds)
        return self.wire.get()

    @property
    def fault(self) -> Fault | None:
        self.machine.vmm.collect_faults()
        report = self.mallory.context.fault
        return None if report is None else Fault(report.reason)

    def unharmed(self) -> None:
        """The neighbours' frames all arrive, and the victim's pages are as they were, and still its own."""
        self.neighbours.check()
        assert (self.victim.memory == PATTERN).all()
        first = self.victim.first_page
        assert (self.machine.memory.owners()[first : first + 16] == self.victim.domain).all()
        assert not self.machine.memory.pins()[first : first + 16].any()
        for driver in (self.neighbours.alice, self.neighbours.bob):
            assert driver.context.state == ContextState.CONTEXT_RUNNING
            assert driver.context.stats()["rx_drop_no_buffer"] == 0

    def close(self) -> None:
        self.machine.close()
