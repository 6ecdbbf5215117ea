"""A vhost-user server that dies at any step, and the frontends that go on with the next one.

Four guests, in pairs. Between two batches nothing of theirs is on its way; what was sent while the server
dies may be lost or come twice, but no more than that; what is sent while there is no server comes once.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from cdna import ContextSettings, Machine
from cdna.base.closing import Closing
from cdna.guest_driver.vhost_frontend import ALL_PACKED, SPLIT, AttachedGuest, attach
from cdna.nic.loop import SleepingLoop
from cdna.protocol.vhost_user import Request
from cdna.vmm.vhost_user import VhostUserServer
from tests.support.frames import frame
from tests.support.kills.nursery import Nursery
from tests.support.kills.steps import NEVER, Board, Points, Steps
from tests.support.kills.tally import Leak, Tally, killed_at
from tests.support.remote_host import descriptors

NAMES = ("one", "two", "three", "four")
MACS = {name: bytes([2, 0, 0, 0, 1, number]) for number, name in enumerate(NAMES)}
PAIRS = (("one", "two"), ("three", "four"))
BATCH = 4  # frames at a time
ON_THEIR_WAY = 2 * BATCH  # at most, while a server dies
DEADLINE = 20.0


def server(steps: Steps, board: Board, folder: str) -> None:
    """As `cdna serve`: a machine that runs, and a socket a guest."""
    steps.begin()
    machine = Machine(1 << 20, wire="null", contexts=len(NAMES))
    served = VhostUserServer(machine.vmm, control_share=1.0)
    for name, mac in MACS.items():
        settings = ContextSettings(protection="table", mac=mac.hex(":"))
        served.add(name, f"{folder}/{name}", settings=settings, pairs=1)
    machine.vmm.start_interrupts()
    machine.nic.start_engine(loop=SleepingLoop(machine.nic, spin_us=50).run)
    board.go = 1
    signal.pause()


class Frontends(Closing):
    """Four guests whose memory and rings outlive every server."""

    def __init__(self, folder: Path, packed: bool) -> None:
        self.folder = folder
        self.nursery = Nursery({"server": server})
        self.guests: dict[str, AttachedGuest] = {}
        self.sent: dict[str, list[bytes]] = {name: [] for name in NAMES}
        self.received: dict[str, list[bytes]] = {name: [] for name in NAMES}
        self._number = 0
        self.start()
        wanted = ALL_PACKED if packed else SPLIT
        for name in NAMES:
            self.guests[name] = attach(folder / name, wanted, size=16)
        self.check()
        self.baseline = self.held()

    def start(self, kill_at: int = 0) -> None:
        """A server that dies at this step of its own; 0: at none. Returns when it listens, or is dead."""
        self.nursery.start("server", os.fspath(self.folder), kill_at=kill_at)
        while not self.nursery.board.go and not self.nursery.ended(0.0005):
            pass

    def close(self) -> None:
        for guest in self.guests.values():
            guest.close()
        self.nursery.kill()
        self.nursery.close()

    def held(self) -> list[str]:
        """Of this process, which maps what the guests have, and lends it to each server."""
        lines = Path("/proc/self/maps").read_text().splitlines()
        return descriptors() + [line.split(maxsplit=5)[5] for line in lines if "memfd:" in line]

    # --- frames ---------------------------------------------------------------------------------------------

    def send(self) -> None:
        """A batch in each pair."""
        for source, to in PAIRS:
            frames = [frame(MACS[to], MACS[source], self._number + i, 200) for i in range(BATCH)]
            if self.guests[source].send(frames) != BATCH:
                raise Leak("descriptors of a ring did not come back")
            self.sent[to] += frames
        self._number += BATCH

    def receive(self) -> None:
        for name, guest in self.guests.items():
            self.received[name] += guest.recv()

    def all_there(self) -> bool:
        """Whether the last frame of each pair has arrived."""
        self.receive()
        return all(self.received[to][-1:] == self.sent[to][-1:] for _, to in PAIRS)

    def await_frames(self, until_dead: bool = False) -> None:
        """Until all are there, or the server is dead. Leak: they never come."""
        deadline = time.monotonic() + DEADLINE
        while not self.all_there():
            if until_dead and self.nursery.ended():
                return
            if time.monotonic() > deadline:
                raise Leak("frames do not arrive any more")
            time.sleep(0.0002)

    def check(self) -> int:
        """Frames of a quiet moment arrive: all, once, in order. Returns how many."""
        for name in NAMES:
            self.sent[name].clear()
            self.received[name].clear()
        self.send()
        self.await_frames()
        if self.sent != self.received:
            raise Leak("frames were lost, doubled, changed or reordered while no server died")
        return 2 * BATCH

    def forget(self) -> tuple[int, int]:
        """(lost, doubled) of what was sent through a server that died. Leak: more than was on its way."""
        lost = doubled = 0
        for _, to in PAIRS:
            sent, received = self.sent[to], self.received[to]
            if strangers := set(received) - set(sent):
                raise Leak(f"{len(strangers)} frames that nobody has sent")
            missing, twice = len(set(sent) - set(received)), len(received) - len(set(received))
            if missing > ON_THEIR_WAY or twice > ON_THEIR_WAY:
                raise Leak(f"of {ON_THEIR_WAY} frames on their way {missing} were lost, {twice} came twice")
            lost, doubled = lost + missing, doubled + twice
        return lost, doubled

    # --- what a server does for its frontends ---------------------------------------------------------------

    def connect(self) -> None:
        """Each frontend connects anew. OSError: the server has died."""
        for name in ("two", "four", "one", "three"):
            self.guests[name].reconnect(self.folder / name)

    def serve(self) -> None:
        """A ring stopped and started, an address added, a device reset, a frontend that goes and comes."""
        self.send()
        one = self.guests["one"]
        one.frontend.stop(1)
        one.frontend.start(1, one.tx[0])
        one.tx[0].kick(True)
        self.send()
        frontend = self.guests["three"].frontend
        frontend.add_region((1 << 40, 4096, 1 << 40, 0))
        frontend.remove_region((1 << 40, 4096, 1 << 40, 0))
        frontend.put(Request.SET_STATUS, 4)
        frontend.sync()
        self.guests["three"].reconnect(self.folder / "three")

    def life(
        self, kill_at: int, starting: bool = False, points: bool = False
    ) -> tuple[int, int, float | None]:
        """The server that runs dies at a step. (frames lost, doubled, milliseconds until one passed again)"""
        board = self.nursery.board
        if starting:
            self.nursery.kill()
            self.start(kill_at)
            self.nursery.kill()
        else:
            self.sent = {name: [] for name in NAMES}
            self.received = {name: [] for name in NAMES}
            with Points(board.pid) if points else contextlib.nullcontext() as passed:
                if passed is None:
                    board.arm(kill_at)
                else:
                    begun = passed.passed
                    passed.arm(kill_at)
                with contextlib.suppress(OSError):
                    self.serve()
                self.await_frames(until_dead=True)
                self.steps = board.steps
                if passed is not None and kill_at == NEVER:
                    self.steps = passed.passed - begun
            self.nursery.kill()
        died_at = board.died_at
        self.receive()
        if starting:
            self.sent = {name: [] for name in NAMES}
            self.received = {name: [] for name in NAMES}
        else:
            self.sent = {name: self.sent[name][-3 * BATCH :] for name in NAMES}
        late = self._number
        self.send()  # there is no server
        self.start()
        self.connect()
        self.await_frames()
        arrived = time.monotonic()
        lost, doubled = self.forget()
        for name, frames in self.received.items():
            again = [f for f in frames if int.from_bytes(f[14:18], "big") >= late]
            if again != [f for f in self.sent[name] if int.from_bytes(f[14:18], "big") >= late]:
                raise Leak("frames that were sent while no server was there did not come once, in order")
        self.check()
        for guest in self.guests.values():
            guest.reclaim()
        if self.held() != self.baseline:
            raise Leak(f"held: {self.held()}, and before: {self.baseline}")
        return lost, doubled, arrived * 1e3 - died_at / 1e6 if died_at > 0 else None


def run(
    folder: Path,
    scenario: str,
    starting: bool,
    points: bool,
    kills: Callable[[int], list[int]],
    progress: Callable[[Tally], None] = lambda tally: None,
) -> Tally:
    """Kills servers at steps, or at the points of compiled code. kills: which, of so many."""
    tally = Tally("server", f"{scenario}, compiled" if points else scenario)
    with Frontends(folder, scenario == "packed") as frontends:
        if starting:
            frontends.nursery.kill()
            frontends.start(NEVER)
            tally.steps = frontends.nursery.board.steps
            frontends.connect()
        else:
            frontends.life(NEVER, points=points)
            tally.steps = frontends.steps
        for step in kills(tally.steps):
            with killed_at(step, tally.scenario):
                lost, doubled, milliseconds = frontends.life(step, starting, points)
            tally.lost += lost
            tally.doubled += doubled
            tally.frames += 2 * BATCH
            if milliseconds is not None:
                tally.kills += 1
                tally.reconnects.append(milliseconds)
            progress(tally)
    return tally
