"""Campaign "time": guests that may slow a neighbour down, judged by what it has of the NIC's core.

A case is a few guests, drawn from a seed: each a step, so that a case shrinks to the one that does it. They
have virtio or native rings of any size, buffers in any shape, settings, and frames of any length for
anybody; each always has something to send (`rivals.py`). What the honest guest sends in a microsecond of
the engine's own time is compared with what it sends where it is alone, in turns, and the best turn counts:
what other programs do to this machine slows a turn down, and finds nothing. Where that is less than
THRESHOLD of the honest guest's part, by weight, in a first and in a second look that takes longer, it is a
finding.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Sequence
from random import Random
from typing import Any

from cdna.fuzz.arguments import OneOf, Step, Steps, Whole
from cdna.fuzz.campaign import Breach, Case, Journal, Tally, no_journal
from cdna.fuzz.episodes import silent
from cdna.fuzz.rivals import (
    BROADCAST,
    INDIRECT,
    MERGEABLE,
    OUTSIDE,
    PACKED,
    V1,
    Course,
    Rival,
    frame,
    honest,
)
from cdna.guest_driver.vrings import Buffer, GuestMemory
from cdna.nic.virtio.features import GUEST_OFFLOADS
from cdna.virtio import Feature

THRESHOLD = 0.9  # of the honest guest's part
MOST = 4  # guests of a case, beside receivers
CONTEXTS = 64
TURN = 1e6  # nanoseconds of the engine's time
LOOKS = (4, 12)  # turns of the first look, and of the second
MEMORY = 1 << 30  # bytes of a virtio guest, most of them holes
FRAGMENTS = 16  # buffers of a native guest's frame
LOG = 1 << 20  # bytes of a dirty log
MULTICAST = bytes.fromhex("01005e000001")

OFFLOADS = GUEST_OFFLOADS | 1 << Feature.VIRTIO_NET_F_CSUM
LOGGED = 1 << Feature.VHOST_F_LOG_ALL

SETTINGS = {
    "weight": OneOf(1, 1, 1, 2, 8),
    "rate": OneOf(0, 0, 0, 1e6, 1e9),
    "vlan": OneOf(0, 0, 0, 5, "trunk"),
    "anti_spoof": OneOf(True, True, False),
    "promiscuous": OneOf(False),
}
TO = OneOf("outside", "outside", "itself", "neighbour", "broadcast", "multicast", "nobody")
LENGTH = OneOf(2, 14, 14, 60, 128, 1514, 9000)

STEPS = Steps()


class Guests:
    """The honest guest and those of a case. turns: what they are worth, "time" or "bytes".

    refilled: as many guests' rings are looked at in each turn, by guests that send nothing if need be.
    """

    def __init__(self, turns: str, steps: Sequence[Step] = (), refilled: int = 0) -> None:
        self.course = Course(CONTEXTS, timed=turns == "time")
        self.weight = 0  # of those that send
        try:
            self.honest = honest(self.course)
            for step in steps:
                STEPS.do(self, step)
            while len(self.course.refilled) < refilled:
                self.course.virtio(size=64).receive()
            self.course.warm()
        except BaseException:
            self.close()
            raise

    def _frame(self, rival: Rival, to: str, length: int) -> bytes:
        others = [other.mac for other in self.course.rivals if other is not rival]
        addresses = {
            "outside": OUTSIDE,
            "itself": rival.mac,
            "neighbour": others[-1],
            "broadcast": BROADCAST,
            "multicast": MULTICAST,
            "nobody": bytes.fromhex("02eeeeeeeeee"),
        }
        return frame(addresses[to], rival.mac, length)[:length]

    # --- steps --------------------------------------------------------------------------------------------

    @STEPS.step(
        packed=OneOf(False, False, True),
        size=OneOf(64, 256, 1024),
        regions=OneOf(1, 1, 8, 64),
        to=TO,
        length=LENGTH,
        pieces=OneOf(1, 1, 2, 17, 128),
        indirect=OneOf(False, True),
        offload=OneOf(0, 0, 0, 1, 3, 4, 5),
        room=OneOf(64, 256, 2048, 1 << 20),
        rx_pieces=OneOf(1, 1, 8, 128),
        mergeable=OneOf(False, True),
        log=OneOf(False, False, True),
        calls=OneOf(False, True),
        **SETTINGS,
    )
    def virtio(
        self,
        packed: bool,
        size: int,
        regions: int,
        to: str,
        length: int,
        pieces: int,
        indirect: bool,
        offload: int,
        room: int,
        rx_pieces: int,
        mergeable: bool,
        log: bool,
        calls: bool,
        **settings: Any,
    ) -> None:
        """A virtio guest. offload: the segmentation that its header asks for. room: of a receive piece."""
        features = (PACKED if packed else V1) | INDIRECT | OFFLOADS
        features |= (MERGEABLE if mergeable else 0) | (LOGGED if log else 0)
        memory = GuestMemory(MEMORY, regions)
        rival = self.course.virtio(
            calls=calls, settings=settings, features=features, size=size, memory=memory
        )
        self.course.callback(memory.close)
        self.weight += settings["weight"]
        if log:
            fd = os.memfd_create("log", os.MFD_CLOEXEC)
            os.ftruncate(fd, LOG)
            rival.set_log(fd, LOG)
            os.close(fd)
        header = bytes([1, offload, 54, 0, 60, 0, 34, 0, 16, 0]) if offload else b""
        rival.send([self._frame(rival, to, length)], pieces, indirect, header)
        room = min(room, memory.regions[0].size // 2)
        at = [memory.alloc(room, region=i) for i in range(1, regions)] or [memory.alloc(room)]
        chain = [Buffer(at[i % len(at)], room, True) for i in range(rx_pieces)]
        rival.load(rival.rx, [chain], indirect)

    @STEPS.step(
        protection=OneOf("validated", "iommu:shared", "iommu:direct-map"),
        ring=OneOf(256, 1024),
        buffer=OneOf(64, 256, 2048),
        to=TO,
        length=OneOf(14, 60, 1514, 9000),
        **SETTINGS,
    )
    def native(self, protection: str, ring: int, buffer: int, to: str, length: int, **settings: Any) -> None:
        """A native guest. buffer: bytes of each, of which a longer frame takes several."""
        length = min(length, buffer * FRAGMENTS)
        rival = self.course.native(
            tx_ring=ring,
            rx_ring=ring,
            buffer_size=buffer,
            settings={"protection": protection, **settings},
        )
        self.weight += settings["weight"]
        rival.send([self._frame(rival, to, length)])

    @STEPS.step(number=Whole(1, 16), vlan=SETTINGS["vlan"])
    def receivers(self, number: int, vlan: int | str) -> None:
        """Guests that send nothing, and have room for what comes."""
        for _ in range(number):
            self.course.virtio(size=64, settings={"vlan": vlan, "all_multicast": True}).receive()

    def close(self) -> None:
        self.course.close()

    def rate(self) -> float:
        """Frames of the honest guest in a microsecond of the engine's time."""
        return self.course.rate(self.honest, TURN)

    def count(self, tally: Tally) -> None:
        """Adds what all have done."""
        vmm = self.course.machine.vmm
        vmm.collect_faults()
        for fault in vmm.faults:
            tally.faults[fault.reason.name] = tally.faults.get(fault.reason.name, 0) + 1
        tally.frames += self.honest.sent()
        for rival in self.course.rivals[1:]:
            stats = rival.context.stats()
            tally.descriptors += stats["tx_frames"] + stats["rx_frames"]


class TimeCampaign:
    """turns: what they are worth in the NIC that is judged; "bytes" is one that is not fair."""

    name = "time"

    def __init__(self, seed: int, *, journal: Journal = no_journal, turns: str = "time") -> None:
        self._random = Random(seed)
        self._journal = journal
        self._turns = turns

    def run(self, seconds: float) -> Tally:
        tally, until = Tally(), time.monotonic() + seconds
        with silent():
            while not tally.attempts or time.monotonic() < until:
                seed = self._random.getrandbits(63)
                case: Case = {"campaign": self.name, "seed": seed, "turns": self._turns}
                self._journal(case)
                self._play(self.expand(case), tally)
        return tally

    def close(self) -> None:
        """A case gives everything back itself."""

    @classmethod
    def expand(cls, case: Case) -> Case:
        random = Random(case["seed"])
        return {**case, "steps": [STEPS.draw(random) for _ in range(random.randint(1, MOST))]}

    @classmethod
    def replay(cls, case: Case) -> None:
        with silent():
            cls._play(case, Tally())

    @classmethod
    def _play(cls, case: Case, tally: Tally) -> None:
        turns, steps = case.get("turns", "time"), case["steps"]
        with contextlib.closing(Guests(turns, steps)) as beside:
            with contextlib.closing(Guests(turns, refilled=len(beside.course.refilled))) as alone:
                found = [share(alone, beside, LOOKS[0])]
                if found[0] < THRESHOLD:
                    found.append(share(alone, beside, LOOKS[1]))
            tally.attempts += len(steps)
            beside.count(tally)
        if max(found) < THRESHOLD:
            text = f"a neighbour has {max(found):.2f} of its part of the NIC's core (at least {THRESHOLD})"
            raise Breach("slow", text, case)


def share(alone: Guests, beside: Guests, turns: int) -> float:
    """What the honest guest has of its part: the best of so many turns, or the first that will do."""
    best = 0.0
    for _ in range(turns):
        best = max(best, beside.rate() / alone.rate() * (1 + beside.weight))
        if best >= THRESHOLD:
            break
    return best
