"""The stepped stage: a machine of so many contexts, an honest guest, a pair that talks, attackers."""

from __future__ import annotations

import time

from cdna.base.descriptors import make_room
from cdna.fuzz.rivals import Course, Rival, VirtioRival, frame, honest
from cdna.guest_driver.vrings import GuestMemory, SplitRing

from .attacks import Attack

PING = 64  # bytes
LIMIT_NS = 2e6  # of the engine's time, to find out how much of it a second has here
LIMIT = 1000  # rounds until a frame of the pair counts as lost
LEAST_RATE = 8000  # bits a second
DESCRIPTORS = 12  # for each guest with its context


class Pair:
    """Two guests that send one frame back and forth."""

    def __init__(self, course: Course) -> None:
        self.guests = [course.virtio(idle=True) for _ in range(2)]
        for guest, other in zip(self.guests, reversed(self.guests), strict=True):
            guest.send([frame(other.mac, guest.mac, PING)])
            guest.tx.avail[1] = 0
            guest.receive()

    @staticmethod
    def start(guest: VirtioRival) -> None:
        """Makes one frame available."""
        assert isinstance(guest.tx, SplitRing)
        guest.tx.avail[1] += 1

    @staticmethod
    def has(guest: VirtioRival) -> bool:
        """Whether a frame has arrived since the last look; its buffer is available again."""
        assert isinstance(guest.rx, SplitRing)
        used = int(guest.rx.used[1])
        arrived = (used + guest.size) & 0xFFFF != int(guest.rx.avail[1])
        guest.refill_ring(guest.rx)
        return arrived


class Stage(Course):
    """`attack`: mounted `attackers` times; `rate`: bits a second that each of these may send.

    Contexts that are left over have guests that do nothing. refilled: so many guests' rings are looked at, by
    some that send nothing if need be: what these looks leave of the caches is the same then.
    """

    def __init__(
        self,
        contexts: int,
        attack: Attack | None = None,
        attackers: int = 0,
        *,
        rate: float = 0,
        refilled: int = 0,
    ) -> None:
        make_room(contexts * DESCRIPTORS, f"a stage of {contexts} contexts")
        super().__init__(contexts)
        try:
            self.honest = honest(self)
            self.pair = Pair(self)
            self.attackers = self._mount(attack, attackers, rate) if attack else []
            while len(self.refilled) < refilled:
                self.virtio().receive()
            memory = GuestMemory(16 << 20)
            self.callback(memory.close)
            for _ in range(contexts - len(self.rivals)):
                self.virtio(idle=True, calls=False, size=64, memory=memory)
            self.warm()
        except BaseException:
            self.close()
            raise

    def _mount(self, attack: Attack, attackers: int, rate: float) -> list[Rival]:
        """The attackers: of what an attack adds, the first guest."""
        mounted = []
        for _ in range(attackers):
            mounted.append(len(self.rivals))
            attack(self, {"rate": rate})
        return [self.rivals[number] for number in mounted]

    def limit(self, rate: float) -> None:
        """Attackers may send so many bits in a second of the engine's time, which takes longer here."""
        begun, spent = time.monotonic_ns(), 0
        while spent < LIMIT_NS:
            spent += self.step()
        part = spent / (time.monotonic_ns() - begun)
        for attacker in self.attackers:
            attacker.context.set(rate=max(LEAST_RATE, rate * part))

    def timed_round(self) -> int:
        """One round after a look of all guests. Returns its nanoseconds."""
        for rival in self.refilled:
            rival.refill()
        return self.poll(1)

    def round_trips(self, n: int) -> tuple[list[int], list[int]]:
        """(the nanoseconds of n round trips of the pair, those of every round meanwhile)"""
        trips, rounds = [], []
        one, other = self.pair.guests
        for _ in range(n):
            first = len(rounds)
            for sender, receiver in ((one, other), (other, one)):
                self.pair.start(sender)
                until = len(rounds) + LIMIT
                rounds.append(self.timed_round())
                while not self.pair.has(receiver) and len(rounds) < until:
                    rounds.append(self.timed_round())
            trips.append(sum(rounds[first:]))
        return trips, rounds
