"""Guests that share a NIC's core: a course on which what an honest guest gets of it is measured.

The engine is stepped, its turns worth time (`Nic.poll(timed=True)`), and only its own time counts, without
what the kernel gave to other threads: what a guest does on a core of its own costs nobody. Every guest
makes all of its buffers available again after some rounds: it always has something to send, and room for
what comes.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

from cdna.abi import ContextState
from cdna.base.closing import Closing
from cdna.base.units import parse_mac
from cdna.guest_driver.vrings import Buffer, GuestMemory, PackedRing, SplitRing, Vring
from cdna.machine import Machine
from cdna.nic.null_wire import NullWire
from cdna.nic.virtio.device import Region, VirtioDevice
from cdna.settings import ContextSettings
from cdna.virtio import Feature

PAGE = 4096
HEADER = 12  # bytes of the virtio-net header
BUFFERS = 8  # of the honest guest
WARM = 16  # looks of the guests before anything is measured
BUDGET = 64  # frames of a round, as where the engine runs
COLD = 4  # rounds after a look that do not count: the guests had the caches
TOGETHER = 12  # rounds that count: with those, a ring of 1024 lasts for BUDGET frames in each
OUTSIDE = bytes.fromhex("02ff00000001")  # of a station behind the wire
BROADCAST = b"\xff" * 6
ETHERTYPE = b"\x88\xb5"  # for local experiments (IEEE 802)

V1 = 1 << Feature.VIRTIO_F_VERSION_1
PACKED = V1 | 1 << Feature.VIRTIO_F_RING_PACKED
INDIRECT = 1 << Feature.VIRTIO_F_INDIRECT_DESC
MERGEABLE = 1 << Feature.VIRTIO_NET_F_MRG_RXBUF


def frame(to: bytes, source: bytes, size: int) -> bytes:
    return (to + source + ETHERTYPE).ljust(size, b"x")


class Rings:
    """The driver side of a virtio guest: two rings. Each entry is a chain, and comes again when it is used.

    memory: by default one of its own. features: what the driver accepts.
    """

    def __init__(
        self, features: int = V1 | INDIRECT, size: int = 1024, memory: GuestMemory | None = None
    ) -> None:
        self.features, self.size = features, size
        self.memory = memory or GuestMemory()
        self._owns_memory = memory is None
        kind = PackedRing if features & PACKED == PACKED else SplitRing
        self.rx: Vring = kind(self.memory, size)
        self.tx: Vring = kind(self.memory, size)
        self.indirect: dict[Vring, bool] = {}  # of rings with entries
        self.beside: Callable[[], object] | None = None  # what it does before each refill

    @property
    def rings(self) -> tuple[Vring, Vring]:
        """In the order of their numbers."""
        return self.rx, self.tx

    def load(self, ring: Vring, chains: Sequence[Sequence[Buffer]], indirect: bool = False) -> None:
        """Every entry of a ring is one of these chains, in turn, from now on."""
        heads: list[int] = []
        for chain in itertools.cycle(chains) if isinstance(ring, PackedRing) else chains:
            if ring.room() < (1 if indirect else len(chain)):
                break
            heads.append(ring.add(list(chain), indirect))
        if not heads:  # the ring is shorter than any
            return
        self.indirect[ring] = indirect
        if not isinstance(ring, SplitRing):
            return
        ring.avail[2 : 2 + self.size] = [heads[i % len(heads)] for i in range(self.size)]
        ring.avail[1] = self.size

    def send(
        self, frames: Sequence[bytes], pieces: int = 1, indirect: bool = False, header: bytes = b""
    ) -> None:
        """The transmit ring holds these frames, each cut into so many pieces."""
        self.load(
            self.tx, [self._cut(header.ljust(HEADER, b"\0") + data, pieces) for data in frames], indirect
        )

    def _cut(self, data: bytes, pieces: int) -> list[Buffer]:
        addr = self.memory.alloc(len(data))
        self.memory.write(addr, data)
        if pieces == 1:
            return [Buffer(addr, len(data))]
        edges = [HEADER + (len(data) - HEADER) * i // (pieces - 1) for i in range(pieces)]
        return [Buffer(addr, HEADER)] + [
            Buffer(addr + start, end - start) for start, end in itertools.pairwise(edges)
        ]

    def receive(self, room: int = 2048) -> None:
        """The receive ring holds buffers of one piece."""
        buffers = min(self.size, 64)
        self.load(self.rx, [[Buffer(self.memory.alloc(room), room, True)] for _ in range(buffers)])

    def refill(self) -> None:
        """Makes what was used available again."""
        if self.beside is not None:
            self.beside()
        for ring in self.indirect:
            self.refill_ring(ring)

    def refill_ring(self, ring: Vring) -> None:
        if isinstance(ring, SplitRing):
            ring.avail[1] = (int(ring.used[1]) + self.size) & 0xFFFF
        else:
            for used in ring.take():
                ring.add(used.chain, self.indirect[ring])

    def close(self) -> None:
        for ring in self.rings:
            ring.close()
        if self._owns_memory:
            self.memory.close()


class VirtioRival(Rings):
    """A virtio guest of this process's machine. calls: it takes interrupts."""

    def __init__(
        self, course: Course, mac: str, *, calls: bool = True, settings: dict[str, Any], **rings: Any
    ) -> None:
        super().__init__(**rings)
        self.mac = parse_mac(mac)
        self.guest = course.machine.vmm.create_guest(f"rival {mac}", PAGE)  # which it has no use for
        self.context = course.machine.vmm.assign(
            self.guest, ContextSettings(mac=mac, protection="table", **settings)
        )
        self.device = VirtioDevice(course.machine.nic, self.context.index)
        self.set_memory()
        self.device.set_features(self.features)
        for queue, ring in enumerate(self.rings):
            user = self.memory.user
            self.device.set_size(queue, self.size)
            self.device.set_addresses(queue, user(ring.desc), user(ring.driver), user(ring.device))
            self.device.set_base(queue, ring.base)
            if calls:
                self.device.set_call(queue, os.dup(ring.call_fd))
            self.device.start(queue)
            self.device.enable(queue, True)

    def set_memory(self) -> None:
        memory = self.memory
        self.device.set_memory(
            [Region(at, size, user, memory.fd, offset) for at, size, user, offset in memory.regions]
        )

    def set_log(self, fd: int, size: int) -> None:
        self.device.set_log(fd, size, 0)

    def sent(self) -> int:
        return self.context.stats()["tx_frames"]

    def close(self) -> None:
        self.device.close()
        super().close()


class NativeRival:
    """A native guest of this process's machine, which sends one frame again and again."""

    def __init__(self, course: Course, mac: str, *, settings: dict[str, Any], **driver: Any) -> None:
        self.mac = parse_mac(mac)
        self.driver = course.machine.attach(f"rival {mac}", mac=mac, **driver, **settings)
        self.context = self.driver.context
        self._frame = b""

    def send(self, frames: Sequence[bytes]) -> None:
        self._frame = frames[0]
        self.refill()

    def refill(self) -> None:
        if self.context.state != ContextState.CONTEXT_RUNNING:
            return
        while self.driver.recv():
            pass
        while self._frame and self.driver.send([self._frame] * BUDGET) == BUDGET:
            pass

    def sent(self) -> int:
        return self.context.stats()["tx_frames"]

    def close(self) -> None:
        """The machine gives its context back."""


Rival = VirtioRival | NativeRival


class Course(Closing):
    """A machine on a wire that takes everything, and guests. timed: turns are worth time, else bytes."""

    def __init__(self, contexts: int = 64, memory: int = 64 << 20, *, timed: bool = True) -> None:
        self.exit = contextlib.ExitStack()
        self.machine = Machine(memory, wire=NullWire(), contexts=contexts)
        self.timed = timed
        self.rivals: list[Rival] = []
        self.refilled: list[Rival] = []  # those whose buffers are made available after each round

    def virtio(
        self,
        *,
        calls: bool = True,
        idle: bool = False,
        settings: dict[str, Any] | None = None,
        **rings: Any,
    ) -> VirtioRival:
        """Adds a virtio guest: rings of `Rings`, settings of `ContextSettings`. idle: it is not refilled."""
        rival = VirtioRival(self, self._mac(), calls=calls, settings=settings or {}, **rings)
        self.rivals.append(rival)
        if not idle:
            self.refilled.append(rival)
        return rival

    def native(self, *, settings: dict[str, Any] | None = None, **driver: Any) -> NativeRival:
        """Adds a native guest: what `Machine.attach` takes."""
        rival = NativeRival(self, self._mac(), settings=settings or {}, **driver)
        self.rivals.append(rival)
        self.refilled.append(rival)
        return rival

    def _mac(self) -> str:
        return f"02:00:00:00:{len(self.rivals) >> 8:02x}:{len(self.rivals) & 0xFF:02x}"

    def look(self) -> None:
        """Every guest makes its buffers available; then the rounds that do not count."""
        for rival in self.refilled:
            rival.refill()
        self.poll(COLD)

    def step(self) -> int:
        """Some rounds, as `poll`, after a look of all guests."""
        self.look()
        return self.poll(TOGETHER)

    def poll(self, rounds: int) -> int:
        """Runs so many rounds. Returns their nanoseconds, without what the kernel gave to other threads."""
        begun = time.thread_time_ns()
        self.machine.nic.poll(rounds, BUDGET, timed=self.timed)
        return time.thread_time_ns() - begun

    def rate(self, rival: Rival, nanoseconds: float) -> float:
        """Frames that a guest sends in a microsecond of the core, over so much of its time."""
        frames = spent = 0
        while spent < nanoseconds:
            self.look()
            before = rival.sent()
            spent += self.poll(TOGETHER)
            frames += rival.sent() - before
        return frames / (spent * 1e-3)

    def callback(self, *call: Any) -> None:
        """Called at the end."""
        self.exit.callback(*call)

    def warm(self) -> None:
        for _ in range(WARM):
            self.step()

    def close(self) -> None:
        for rival in self.rivals:
            rival.close()
        self.machine.close()
        self.exit.close()


def honest(course: Course, size: int = 1514) -> VirtioRival:
    """A guest with frames for the wire, each in a buffer of its own."""
    rival = course.virtio()
    rival.send([frame(OUTSIDE, rival.mac, size)] * BUFFERS)
    rival.receive()
    return rival
