"""A VMM with guests in other processes that dies at any step: of starting, serving, and its own work.

Its guests hear of it, and keep nothing: what they mapped was memory that is gone with the last who maps it.
"""

from __future__ import annotations

import contextlib
import gc
import os
import time
from collections.abc import Callable
from pathlib import Path

from cdna import Machine, RemoteDriver
from cdna.base.closing import Closing
from cdna.base.units import parse_mac
from cdna.errors import CdnaError
from cdna.nic.loop import SleepingLoop
from tests.support.frames import frame
from tests.support.kills.nursery import Nursery
from tests.support.kills.steps import NEVER, Board, Points, Steps
from tests.support.kills.tally import Leak, Tally, killed_at
from tests.support.remote_host import descriptors

MACS = {"one": bytes.fromhex("020000000201"), "two": bytes.fromhex("020000000202")}
BATCH = 8
RINGS = {"tx_ring": 16, "rx_ring": 32}
DEADLINE = 20.0


def vmm(steps: Steps, board: Board, path: str) -> None:
    """A machine that runs and serves; work of its own whenever it is told to."""
    steps.begin()
    machine = Machine(2 << 20, wire="null", contexts=6)
    machine.serve(path, macs=[mac.hex(":") for mac in MACS.values()], control_share=1.0)
    loop = SleepingLoop(machine.nic, spin_us=50)
    loop.add_wakers(1)
    machine.vmm.start_interrupts()
    machine.nic.start_engine(loop=loop.run)
    while True:
        if board.go > board.done:
            work(machine)
            board.done += 1
        time.sleep(0.0005)


def work(machine: Machine) -> None:
    """Guests of its own: enqueue, map, transfer, revoke, and all of it given back."""
    vmm, memory = machine.vmm, machine.memory
    drivers = [
        machine.attach("three", tx_ring=8, rx_ring=8),
        machine.attach("four", tx_ring=8, rx_ring=8, protection="iommu:single-use"),
    ]
    three, four = machine.guest("three"), machine.guest("four")
    for driver, to in (drivers, reversed(drivers)):
        driver.send([frame(parse_mac(to.context.mac), b"\x02" * 6, 0, 100)])
    spare, other = vmm.create_guest("spare", 16384), vmm.create_guest("other", 4096)
    vmm.transfer(range(spare.first_page, spare.first_page + 2), spare, other)
    context = vmm.assign(other)
    context.set(weight=2)
    vmm.revoke(three.contexts[0])
    for guest in (spare, other, three, four):
        vmm.destroy_guest(guest)
    del drivers, memory


class Guests(Closing):
    """Two guests of other processes' VMMs, one after the other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = os.fspath(folder / "vmm")
        self.nursery = Nursery({"vmm": vmm})
        self.guests: dict[str, RemoteDriver] = {}
        gc.collect()
        self.baseline = self.held()
        self._shm = os.listdir("/dev/shm")
        self._number = 0

    def close(self) -> None:
        self.leave()
        self.nursery.kill()
        self.nursery.close()

    def held(self) -> list[str]:
        lines = Path("/proc/self/maps").read_text().splitlines()
        return descriptors() + [line.split(maxsplit=5)[5] for line in lines if "memfd:" in line]

    def start(self, kill_at: int = 0) -> None:
        """A VMM; returns at once."""
        self.nursery.start("vmm", self.path, kill_at=kill_at)

    def attach(self) -> bool:
        """Both attach, as soon as there is a VMM. False: it has died."""
        deadline = time.monotonic() + DEADLINE
        for name, mac in MACS.items():
            while True:
                try:
                    self.guests[name] = RemoteDriver(self.path, name=name, mac=mac.hex(":"), **RINGS)
                    break
                except CdnaError:
                    if self.nursery.ended(0.0005):
                        return False
                    if time.monotonic() > deadline:
                        raise
        return True

    def talk(self) -> bool:
        """A batch each way; each arrives, once, unchanged. False: the VMM has died. Leak: one does not."""
        expected = {}
        try:
            for (name, mac), (to, to_mac) in (list(MACS.items()), list(MACS.items())[::-1]):
                frames = [frame(to_mac, mac, self._number + i, 300) for i in range(BATCH)]
                sent = self.guests[name].send(frames)
                expected[to] = frames[:sent]
            self._number += BATCH
            deadline = time.monotonic() + DEADLINE
            for name, frames in expected.items():
                got: list[bytes] = []
                while len(got) < len(frames):
                    got += self.guests[name].recv()
                    if self.nursery.ended():
                        return False
                    if time.monotonic() > deadline:
                        raise Leak(f"of {len(frames)} frames a guest got {len(got)}")
                if got != frames:
                    raise Leak("a guest got frames that were not sent to it so")
        except CdnaError:
            if not self.nursery.ended(DEADLINE):
                raise
            return False
        return True

    def leave(self) -> None:
        """Both guests end; those of a dead VMM hear of it."""
        while self.guests:
            self.guests.popitem()[1].close()

    def hear(self) -> None:
        """Leak: a guest waits on although its VMM has died."""
        for guest in self.guests.values():
            try:
                while guest.wait(DEADLINE):
                    guest.recv()
            except CdnaError:
                continue
            raise Leak("a guest does not hear that its VMM has died")

    def life(self, kill_at: int, points: bool = False) -> float | None:
        """A VMM that dies at a step of its life. Returns milliseconds until frames passed again."""
        board = self.nursery.board
        self.start(0 if points else kill_at)
        if points and kill_at != NEVER:
            self._arm(kill_at)
        alive = self.attach() and self.talk()
        while alive and board.go < 1:
            board.go += 1
            while alive and board.done < board.go:
                alive = self.talk() and not self.nursery.ended()
        if alive:
            RemoteDriver(self.path, name="third", **RINGS).close() if kill_at == NEVER else self._third()
            self.leave()
        self.steps = board.steps
        if points and kill_at == NEVER:
            with Points(board.pid) as passed:
                self.steps = passed.passed - board.points_before
        self.nursery.kill()
        died_at = board.died_at
        self.hear()
        self.leave()
        gc.collect(0)
        if self.held() != self.baseline:
            raise Leak(f"held: {self.held()}, and before: {self.baseline}")
        if os.listdir(self.folder) not in ([], ["vmm"]) or os.listdir("/dev/shm") != self._shm:
            raise Leak("files are left")
        if died_at <= 0:
            return None
        self.start()
        if not self.attach() or not self.talk():
            raise Leak("the next VMM does not serve")
        arrived = time.monotonic()
        self.leave()
        self.nursery.kill()
        return arrived * 1e3 - died_at / 1e6

    def _arm(self, kill_at: int) -> None:
        while not self.nursery.board.pid:
            time.sleep(0.0002)
        with contextlib.suppress(OSError), Points(self.nursery.board.pid) as passed:
            passed.arm(kill_at)

    def _third(self) -> None:
        """One more comes and goes, whether the VMM dies of it or not."""
        try:
            RemoteDriver(self.path, name="third", **RINGS).close()
        except (CdnaError, OSError):
            assert self.nursery.ended(DEADLINE)


def run(
    folder: Path,
    points: bool,
    kills: Callable[[int], list[int]],
    progress: Callable[[Tally], None] = lambda tally: None,
) -> Tally:
    """Kills VMMs at steps, or at the points of compiled code. kills: which, of so many."""
    tally = Tally("vmm", "life, compiled" if points else "life")
    with Guests(folder) as guests:
        guests.life(NEVER, points)
        tally.steps = guests.steps
        for step in kills(tally.steps):
            with killed_at(step, tally.scenario):
                milliseconds = guests.life(step, points)
            if milliseconds is not None:
                tally.kills += 1
                tally.reconnects.append(milliseconds)
            progress(tally)
    return tally
