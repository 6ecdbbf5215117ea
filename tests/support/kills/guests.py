"""Guests that die at any step, of a machine that runs: a native one, and one behind a vhost-user socket.

Two neighbours send each other numbered frames all the time; each has to arrive, once, in order, unchanged.
"""

from __future__ import annotations

import contextlib
import gc
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from cdna import ContextSettings, Machine, RemoteDriver
from cdna.base.closing import Closing
from cdna.base.units import PROTECTIONS
from cdna.errors import CdnaError
from cdna.guest_driver.vhost_frontend import ALL_PACKED, SPLIT, AttachedGuest, attach
from cdna.guests.driver import Driver
from cdna.protocol.vhost_user import Request
from cdna.vmm.vhost_user import VhostUserServer
from tests.support.frames import frame, mac
from tests.support.kills.nursery import Nursery
from tests.support.kills.steps import NEVER, Board, Steps
from tests.support.kills.tally import Leak, Tally, killed_at
from tests.support.remote_host import descriptors

NATIVE, FRONTEND = bytes.fromhex("0200000000aa"), bytes.fromhex("0200000000bb")  # who die
LARGE = 1514  # bytes
SEND = 4  # frames of one life
BATCH = 8  # frames of a neighbour at a time
RX_RING = 128
DEADLINE = 20.0  # seconds

# --- those who die ------------------------------------------------------------------------------------------


def native(steps: Steps, board: Board, path: str, to: str, protection: str, revoked: bool) -> None:
    """Attaches, sends, receives, is interrupted, asks, ends. revoked: its context is taken away meanwhile."""
    steps.begin()
    options = {"tx_ring": 16, "rx_ring": 16, "mac": NATIVE.hex(":"), "protection": protection}
    ends = contextlib.suppress(CdnaError if revoked else ())
    with ends, RemoteDriver(path, name="guest", **options) as driver:  # type: ignore[arg-type]
        frames = [frame(bytes.fromhex(to), NATIVE, i, LARGE) for i in range(SEND)]
        assert driver.send(frames) == SEND
        board.go = 1
        assert driver.wait(DEADLINE)
        driver.recv()
        assert driver.context.fault is None
        driver.send(frames[:1])
        while revoked:
            driver.wait(DEADLINE)
            driver.recv()
    steps.end()


def frontend(steps: Steps, board: Board, path: str, to: str, packed: bool) -> None:
    """Connects, negotiates, gives memory, starts rings, sends, receives, stops, resets, begins anew, goes."""
    steps.begin()
    with attach(path, ALL_PACKED if packed else SPLIT, size=4) as guest:
        frames = [frame(bytes.fromhex(to), FRONTEND, i, LARGE) for i in range(2)]
        assert guest.send(frames) == 2
        board.go = 1
        deadline = time.monotonic() + DEADLINE
        steps.end()
        while not guest.recv():
            assert time.monotonic() < deadline
            time.sleep(0.0005)
        steps.begin()
        guest.reclaim()
        guest.stop()
        guest.start()
        guest.send(frames[:1])
        guest.frontend.put(Request.SET_STATUS, 0)
        guest.frontend.add_region((1 << 40, 4096, 1 << 40, 0))
        guest.frontend.remove_region((1 << 40, 4096, 1 << 40, 0))
        guest.frontend.sync()
    steps.end()


# --- those who stay -----------------------------------------------------------------------------------------


class Host(Closing):
    """A machine whose engine runs, both servers, two neighbours, and the nursery of those who die."""

    def __init__(self, folder: Path) -> None:
        self.nursery = Nursery({"native": native, "frontend": frontend})
        self.machine = Machine(16 << 20, wire="null", contexts=8)
        self.native_path = os.fspath(folder / "native")
        # Each life costs the server some milliseconds, and there is one after the other.
        self.native = self.machine.serve(
            self.native_path, protections=PROTECTIONS, macs=[NATIVE.hex(":")], control_share=1.0
        )
        self.server = VhostUserServer(self.machine.vmm, control_share=1.0)
        settings = ContextSettings(protection="table", mac=FRONTEND.hex(":"))
        self.guest = self.server.add("frontend", folder / "frontend", settings=settings)
        self.alice = self.machine.attach("alice", tx_ring=32, rx_ring=RX_RING)
        self.bob = self.machine.attach("bob", tx_ring=32, rx_ring=RX_RING)
        self.machine.start()
        self._number = 0
        self._returning: AttachedGuest | None = None
        self.arrived = 0  # frames of the guest, at alice
        self.talk()
        gc.collect()
        self.baseline = self.held()

    def close(self) -> None:
        if self._returning is not None:
            self._returning.close()
        self.nursery.close()
        self.server.close()
        self.machine.close()

    # --- the neighbours -------------------------------------------------------------------------------------

    def talk(self) -> int:
        """A batch of frames each way. Returns how many. Leak: one did not arrive as it was sent."""
        pairs = ((self.alice, self.bob), (self.bob, self.alice))
        expected = {}
        for source, to in pairs:
            frames = [frame(mac(to), mac(source), self._number + i, 200) for i in range(BATCH)]
            assert source.send(frames) == BATCH
            expected[to] = frames
        self._number += BATCH
        for guest in (NATIVE, FRONTEND):  # what they wait for
            self.bob.send([frame(guest, mac(self.bob), self._number, 100)])
        deadline = time.monotonic() + DEADLINE
        for to, frames in expected.items():
            got: list[bytes] = []
            while len(got) < len(frames):
                time.sleep(0)  # the server's thread, too, wants this interpreter
                got += [f for f in self._receive(to) if f[6:12] not in (NATIVE, FRONTEND)]
                if time.monotonic() > deadline:
                    raise Leak(f"of {len(frames)} frames a neighbour got {len(got)}")
            if got != frames:
                raise Leak("a neighbour got frames that were not sent to it so")
        return 2 * BATCH

    def _receive(self, driver: Driver) -> list[bytes]:
        frames = driver.recv()
        for received in frames:
            if received[6:12] in (NATIVE, FRONTEND):
                if received not in [frame(mac(self.alice), received[6:12], i, LARGE) for i in range(SEND)]:
                    raise Leak("a frame of the guest that it has not sent")
                self.arrived += 1
        return frames

    # --- what is held ---------------------------------------------------------------------------------------

    def held(self) -> dict[str, object]:
        """Descriptors, mappings, pages, pins, guests, contexts: of everybody who is left."""
        memory, vmm = self.machine.memory, self.machine.vmm
        for driver in (self.alice, self.bob):
            vmm.tables.reap(driver.context.index)
        lines = Path("/proc/self/maps").read_text().splitlines()
        stay = [vmm.guests[name].domain for name in ("alice", "bob")]
        pins = memory.pins()
        theirs = np.isin(memory.owners(), stay)
        return {
            "files": descriptors(),
            "maps": sorted(line.split(maxsplit=5)[5] for line in lines if "memfd:" in line),
            "free pages": memory.free_pages,
            "pins": int(pins[~theirs].sum()),
            "neighbours have pins of buffers that they posted": int(pins[theirs].sum()) <= 2 * RX_RING,
            "guests": sorted(vmm.guests),
            "contexts": sorted(vmm.contexts),
            "connected": self.guest.connected or bool(self.native.guests),
        }

    def settle(self) -> None:
        """Waits until the dead are gone. Leak: something of them stays."""
        deadline = time.monotonic() + DEADLINE
        while (held := self.held()) != self.baseline:
            if time.monotonic() > deadline:
                surplus = {key: (was, held[key]) for key, was in self.baseline.items() if held[key] != was}
                raise Leak(f"still held: {surplus}")
            time.sleep(0.0005)

    # --- lives and deaths -----------------------------------------------------------------------------------

    def life(
        self, party: str, *args: object, kill_at: int = NEVER, point: int = 0, revoke: bool = False
    ) -> int:
        """One life, to its end or to a step. Returns how many frames the neighbours exchanged meanwhile."""
        path = self.native_path if party == "native" else self.guest.path
        self.nursery.start(party, path, mac(self.alice).hex(), *args, kill_at=kill_at, point=point)
        frames = 0
        while not self.nursery.ended(0.001):
            frames += self.talk()
            if revoke and self.nursery.board.go:
                for domain in self.native.guests:
                    for context in list(domain.contexts):
                        self.machine.vmm.revoke(context)
        frames += self.talk()
        self.settle()
        return frames

    def reconnect(self, party: str) -> float:
        """Another life of the same guest, in this process. Returns when its first frame had arrived."""
        first = frame(mac(self.alice), NATIVE if party == "native" else FRONTEND, 0, LARGE)
        before = self.arrived
        with self._native() if party == "native" else self._frontend() as guest:
            assert guest.send([first]) == 1
            deadline = time.monotonic() + DEADLINE
            while self.arrived == before:
                self._receive(self.alice)
                time.sleep(0)
                if time.monotonic() > deadline:
                    raise Leak("the guest has no network any more")
            arrived = time.monotonic()
        return arrived

    @contextlib.contextmanager
    def _native(self) -> Iterator[RemoteDriver]:
        with RemoteDriver(
            self.native_path, name="guest", tx_ring=16, rx_ring=16, mac=NATIVE.hex(":")
        ) as guest:
            yield guest
        del guest

    @contextlib.contextmanager
    def _frontend(self) -> Iterator[AttachedGuest]:
        """The rings of this process's guest go on from life to life."""
        if self._returning is None:
            self._returning = attach(self.guest.path, size=8)
            self._returning.frontend.sock.close()
            self.settle_with_returning()
        self._returning.reconnect(self.guest.path)
        self._returning.recv()
        yield self._returning
        self._returning.frontend.sock.close()

    def settle_with_returning(self) -> None:
        """What the returning guest holds is no leak."""
        while self.guest.connected:
            time.sleep(0.0005)
        with self.server.lock:
            self.baseline = self.held()


SCENARIOS: dict[str, list[tuple[str, tuple[object, ...]]]] = {
    "guest": [(name, (name, False)) for name in PROTECTIONS] + [("revoked", ("validated", True))],
    "frontend": [("split", (False,)), ("packed", (True,))],
}


def run(
    host: Host,
    party: str,
    scenario: str,
    args: tuple[object, ...],
    points: bool,
    kills: Callable[[int], list[int]],
    progress: Callable[[Tally], None] = lambda tally: None,
) -> Tally:
    """Kills a guest at steps of one scenario, or at the points of compiled code. kills: which, of so many."""
    name = "native" if party == "guest" else party
    revoke = scenario == "revoked"
    tally = Tally(party, f"{scenario}, compiled" if points else scenario)
    if name == "frontend" and host._returning is None:
        host.reconnect(name)
        host.settle()
    host.life(name, *args, revoke=revoke, kill_at=0 if points else NEVER)
    tally.steps = host.nursery.board.points if points else host.nursery.board.steps
    for step in kills(tally.steps):
        where = {"kill_at": 0, "point": step} if points else {"kill_at": step}
        with killed_at(step, tally.scenario):
            tally.frames += host.life(name, *args, revoke=revoke, **where)
            died_at = host.nursery.board.died_at
            if died_at > 0:
                tally.kills += 1
                tally.reconnects.append(host.reconnect(name) * 1e3 - died_at / 1e6)
                host.settle()
        progress(tally)
    return tally
