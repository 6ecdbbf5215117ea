"""Honest guests of every kind; most of them come and go all the time.

A part has `turn`, some tens of milliseconds of its work; `rest`, after which it holds no more than when it
was made, so that samples can be compared; and `close`.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cdna import Machine
from cdna.base.units import parse_mac
from cdna.guest_driver.vhost_frontend import PACKED, SPLIT, AttachedGuest, attach
from cdna.guest_driver.vrings import GuestMemory
from cdna.guests.synthetic import SyntheticGuest
from cdna.nic.traffic import Load
from cdna.settings import ContextSettings
from cdna.vmm.vhost_user import VhostUserServer

from .frames import PATIENCE, Counts, Frames, Wrong, drops_of, exchange, mac

VLAN = 7  # of the honest; hostile guests have none, and nothing that they send may arrive there
RINGS = {"tx_ring": 256, "rx_ring": 256}
BURST = 64  # frames, fewer than a ring holds
ECHO = Path(__file__).with_name("echo.py")


def until(what: str, condition: Callable[[], object]) -> None:
    """Waits for a condition. Wrong: in vain."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise Wrong(f"{what}: waited {PATIENCE:.0f} seconds in vain")
        time.sleep(0.001)


class Part:
    name = ""

    def __init__(self, machine: Machine, seed: int) -> None:
        self.machine = machine
        self.counts = Counts()
        self.frames = Frames(seed)

    def turn(self) -> None: ...

    def rest(self) -> None: ...

    def close(self) -> None: ...


class Natives(Part):
    """Two native guests that are always there, both ways at once as fast as they can, every byte checked."""

    name = "native"
    SECONDS = 0.1  # of a turn

    def __init__(self, machine: Machine, seed: int) -> None:
        super().__init__(machine, seed)
        ends = [machine.attach(name, vlan=VLAN, **RINGS) for name in ("alice", "bob")]
        load = Load.imix(verify=True)
        self.flows = []
        for flow, (sender, receiver) in enumerate([ends, ends[::-1]]):
            addresses = mac(sender), mac(receiver)
            source = SyntheticGuest(sender, load, flow, *addresses)
            self.flows.append((source, SyntheticGuest(receiver, load, flow, *addresses[::-1]), receiver))

    def turn(self) -> None:
        end = time.monotonic() + self.SECONDS
        while time.monotonic() < end:
            for source, sink, _ in self.flows:
                if source.sent - sink.received <= BURST:  # no more under way than there are buffers
                    source.offer(BURST)
                sink.take(BURST)
        for source, sink, receiver in self.flows:
            drops = drops_of(receiver.context)
            self._wait(source, sink, drops)
        self.counts.sent = sum(source.sent for source, _, _ in self.flows)
        self.counts.received = sum(sink.received for _, sink, _ in self.flows)
        for _, sink, receiver in self.flows:
            if sink.bad:
                raise Wrong(f"{receiver.context.guest.name}: {sink.first_bad}")

    def _wait(
        self, source: SyntheticGuest, sink: SyntheticGuest, drops: Callable[[], dict[str, int]]
    ) -> None:
        deadline = time.monotonic() + PATIENCE
        while sink.received < source.sent:
            if not sink.take(BURST) and time.monotonic() > deadline:
                raise Wrong(f"{source.sent - sink.received} frames are missing; drops: {drops()}")


class Visitors(Part):
    """A native guest that comes, talks and goes, in each mode, sometimes in the middle of a sentence."""

    name = "visitors"
    MODES = ("validated", "iommu:single-use", "iommu:shared", "iommu:persistent", "iommu:direct-map")

    def __init__(self, machine: Machine, seed: int) -> None:
        super().__init__(machine, seed)
        self.host = machine.attach("host", vlan=VLAN, **RINGS)

    def turn(self) -> None:
        mode = self.MODES[self.counts.comings % len(self.MODES)]
        visitor = self.machine.attach("visitor", vlan=VLAN, protection=mode, **RINGS)
        try:
            ends = [(visitor, self.host), (self.host, visitor)]
            for sender, receiver in ends:
                frames = self.frames.make(BURST, mac(receiver), mac(sender))
                exchange(frames, sender, receiver, self.counts, drops=drops_of(receiver.context))
            if self.counts.comings % 2:  # frames that nobody will ask for are under way when it ends
                visitor.send(self.frames.make(BURST, mac(visitor), mac(visitor)))
        finally:
            self.machine.vmm.destroy_guest(visitor.context.guest)
        self.counts.comings += 1


class Remotes(Part):
    """A guest in a process of its own, which sends back what it gets. It ends by SIGTERM or SIGKILL."""

    name = "remote"
    TURNS = 8  # of one process

    def __init__(self, machine: Machine, seed: int, folder: Path) -> None:
        super().__init__(machine, seed)
        self.path = folder / "honest"
        self.server = machine.serve(self.path, settings={"vlan": VLAN}, control_share=1.0)
        self.peer = machine.attach("peer", vlan=VLAN, **RINGS)
        self.process: subprocess.Popen[str] | None = None
        self.mac, self.turns = b"", 0

    def turn(self) -> None:
        if self.process is None:
            self._start()
        frames = self.frames.make(BURST, self.mac, mac(self.peer))
        back = [frame[6:12] + frame[:6] + frame[12:] for frame in frames]
        try:
            exchange(frames, self.peer, self.peer, self.counts, expect=back, drops=self._drops)
        except Wrong as wrong:
            raise Wrong(f"{wrong}; its process: {self.process and self.process.poll()}") from None
        self.turns += 1
        if self.turns == self.TURNS:
            self.rest()

    def _start(self) -> None:
        command = [sys.executable, str(ECHO), str(self.path)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        told = self.process.stdout.readline().strip()
        if not told:
            raise Wrong("a guest of another process has not come")
        self.mac, self.turns = parse_mac(told), 0

    def _drops(self) -> dict[str, int]:
        """On both ways."""
        both = dict(drops_of(self.peer.context)())
        guest = self.machine.vmm.guests.get("echo")
        for context in guest.contexts if guest else ():
            for name, count in drops_of(context)().items():
                both[name] += count
        return both

    def rest(self) -> None:
        if self.process is None:
            return
        self.process.send_signal(signal.SIGKILL if self.counts.comings % 2 else signal.SIGTERM)
        self.process.communicate()
        self.process = None
        until("a guest whose process has ended", lambda: "echo" not in self.machine.vmm.guests)
        self.counts.comings += 1

    def close(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.communicate()


class VirtualMachines(Part):
    """A vhost-user guest, with split and with packed rings by turns; its frontend goes and comes back."""

    name = "vhost-user"
    TURNS = 4  # of one frontend

    def __init__(self, machine: Machine, seed: int, folder: Path, server: VhostUserServer) -> None:
        super().__init__(machine, seed)
        settings = ContextSettings(protection="table", mac="02:00:00:00:00:10", vlan=VLAN)
        self.guest = server.add("vm", folder / "vm.sock", settings=settings)
        self.peer = machine.attach("vm-peer", vlan=VLAN, **RINGS)
        self.attached: AttachedGuest | None = None
        self.memory: GuestMemory | None = None
        self.turns = 0

    def turn(self) -> None:
        if self.attached is None:
            self.memory, self.turns = GuestMemory(4 << 20), 0
            wanted = SPLIT | 1 << PACKED if self.counts.comings % 2 else SPLIT
            self.attached = attach(self.guest.path, wanted, memory=self.memory, size=256)
        ends: list[tuple[Any, Any, Any]] = [
            (self.attached, self.peer, self.peer.context),
            (self.peer, self.attached, self.guest.context),
        ]
        for sender, receiver, context in ends:
            addresses = [parse_mac(self.guest.context.mac), mac(self.peer)]
            to, source = addresses if receiver is self.attached else addresses[::-1]
            exchange(
                self.frames.make(BURST, to, source), sender, receiver, self.counts, drops=drops_of(context)
            )
        self.turns += 1
        if self.turns == self.TURNS:
            self.rest()

    def rest(self) -> None:
        if self.attached is None or self.memory is None:
            return
        if self.counts.comings % 2:
            self.attached.stop()
        self.attached.close()
        self.memory.close()
        self.attached = self.memory = None
        until("a frontend that has gone", lambda: not self.guest.connected)
        self.counts.comings += 1

    def close(self) -> None:
        if self.attached is not None and self.memory is not None:
            self.attached.close()
            self.memory.close()
