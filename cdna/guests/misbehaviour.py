"""What a hostile neighbour does, by name, and a guest that does it again and again.

    mallory = HostileGuest(machine, "spoof", "sequence")
    mallory.act()                       # the next of them; a guest that was stopped comes back first

None of it may cost another guest a frame, but for `broadcast` and `flood-wire`: their frames fill everybody's
receive buffers, and the wire, as they should.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import cycle
from typing import TYPE_CHECKING, Unpack

from cdna import abi
from cdna.base.units import parse_mac
from cdna.errors import ConfigError
from cdna.faults import FAULTS_KEPT
from cdna.guests.hostile import EOP, PRODUCER, RX, TX, Desc, Hostile, HostileSettings

if TYPE_CHECKING:
    from cdna.faults import FaultReport
    from cdna.machine import Machine

EVERYBODY = b"\xff" * 6
NOBODY = bytes.fromhex("02fdfdfdfdfd")  # no guest's: frames to it leave by the wire
ETHERTYPE = b"\x88\xb5"  # IEEE 802, for local experiments

FRAME_PAGE = 1  # of the guest: where it writes what it sends


def _frame(hostile: Hostile, to: bytes, source: bytes, size: int = 64) -> Desc:
    """Writes a frame; returns the descriptor for it."""
    data = (to + source + ETHERTYPE).ljust(size, b"\xbd")
    return hostile.write(data, FRAME_PAGE), size, int(EOP)


def _neighbours(hostile: Hostile) -> list[tuple[bytes, int]]:
    """Address and first machine page of every other guest's memory."""
    contexts = hostile.machine.vmm.contexts.values()
    return [
        (parse_mac(context.mac), context.guest.first_page)
        for context in contexts
        if context.guest is not hostile.guest
    ]


def _room(hostile: Hostile) -> int:
    used = (hostile.posted[TX] - hostile.consumer(TX)) & 0xFFFFFFFF
    return max(0, hostile.size[TX] - used)


def spoof(hostile: Hostile) -> None:
    """Sends in the name of every neighbour, to all of them."""
    for mac, _ in _neighbours(hostile)[: _room(hostile)]:
        hostile.post(TX, [_frame(hostile, EVERYBODY, mac)])


def foreign_pages(hostile: Hostile) -> None:
    """Asks for DMA from and to pages of its neighbours, pages of nobody, and addresses outside memory."""
    end = hostile.machine.memory.size
    pages = [page * abi.PAGE_BYTES for _, page in _neighbours(hostile)]
    for addr in (*pages, (hostile.maddr() - 1) % 2**64, end - 60, end, 2**64 - 1):
        hostile.enqueue(TX, [(addr, 60, int(EOP))])
        hostile.enqueue(RX, [(addr, 2048, 0)])


def sequence(hostile: Hostile) -> None:
    """Announces a descriptor that it never enqueued: its sequence number is an old one."""
    hostile.ring_doorbell(PRODUCER[TX], hostile.posted[TX] + 1)


def producer(hostile: Hostile) -> None:
    """Announces more descriptors than its ring has."""
    hostile.ring_doorbell(PRODUCER[TX], hostile.posted[TX] + 0x7FFFFFFF)


def length(hostile: Hostile) -> None:
    """Sends a frame that is shorter than its header."""
    if _room(hostile):
        hostile.post(TX, [(hostile.maddr(FRAME_PAGE), 13, int(EOP))])


def scribble(hostile: Hostile) -> None:
    """Overwrites what the NIC tells it in its context page."""
    for field in ("tx_consumer", "rx_consumer", "state", "fault", "link"):
        hostile.page[field] = 0xFFFFFFFF
    hostile.page["doorbell"] = 0xFFFFFFFF


def flood(hostile: Hostile) -> None:
    """Fills its ring with frames to itself."""
    hostile.post(TX, [_frame(hostile, hostile.mac, hostile.mac, 60)] * _room(hostile))


def flood_wire(hostile: Hostile) -> None:
    """Fills its ring with frames for the wire."""
    hostile.post(TX, [_frame(hostile, NOBODY, hostile.mac, 60)] * _room(hostile))


def broadcast(hostile: Hostile) -> None:
    """Fills its ring with frames to everybody."""
    hostile.post(TX, [_frame(hostile, EVERYBODY, hostile.mac, 60)] * _room(hostile))


MISBEHAVIOURS: dict[str, Callable[[Hostile], None]] = {
    "spoof": spoof,
    "foreign-pages": foreign_pages,
    "sequence": sequence,
    "producer": producer,
    "length": length,
    "scribble": scribble,
    "flood": flood,
    "flood-wire": flood_wire,
    "broadcast": broadcast,
}
HARMLESS = tuple(name for name in MISBEHAVIOURS if name not in ("broadcast", "flood-wire"))


class HostileGuest:
    """A guest that misbehaves in the given ways, in turn; none given: in all that others must not notice.

    acts: how often it did what. faults: why the NIC stopped it, time after time. ConfigError: no such way.
    """

    def __init__(
        self, machine: Machine, *ways: str, name: str = "mallory", **settings: Unpack[HostileSettings]
    ) -> None:
        for way in ways:
            if way not in MISBEHAVIOURS:
                raise ConfigError(f"misbehaviour {way!r}: give some of {', '.join(MISBEHAVIOURS)}")
        self.machine = machine
        self.name = name
        self.ways = ways or HARMLESS
        self.acts: Counter[str] = Counter()
        self.faults: list[FaultReport] = []
        self._settings = settings
        self._turns: Iterator[str] = cycle(self.ways)
        self.hostile = Hostile(machine, name, **settings)

    @property
    def context(self) -> object:
        """The context that it has now: another one after each fault."""
        return self.hostile.context

    def act(self) -> str:
        """Does the next thing; returns its name."""
        self._come_back()
        way = next(self._turns)
        MISBEHAVIOURS[way](self.hostile)
        self.acts[way] += 1
        return way

    def _come_back(self) -> None:
        """A guest whose context was stopped is destroyed and attached anew."""
        context = self.hostile.context
        if context.state != abi.ContextState.CONTEXT_FAULTED:
            return
        self.machine.vmm.collect_faults()
        if context.fault is not None:
            self.faults.append(context.fault)
            del self.faults[:-FAULTS_KEPT]
        self.machine.vmm.destroy_guest(self.hostile.guest)
        self.hostile = Hostile(self.machine, self.name, **self._settings)

    def close(self) -> None:
        """Ends the guest. Harmless where the machine was closed before."""
        self._turns = iter(())
        if not self.hostile.context.revoked:
            self.machine.vmm.destroy_guest(self.hostile.guest)
