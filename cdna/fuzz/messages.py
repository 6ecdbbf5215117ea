"""Campaign "messages": hostile vhost-user frontends beside an honest one, the engine running.

Messages of every kind, most of them nearly right, with descriptors that fit, others, or too many; rings in
memory that changes, shrinks and goes. The server and the engine run in threads of this process.
"""

from __future__ import annotations

import contextlib
import gc
import os
import socket
import struct
import tempfile
import time
from pathlib import Path
from random import Random
from typing import Any

from cdna.base.units import parse_mac
from cdna.fuzz.arguments import Step
from cdna.fuzz.campaign import Breach, Case, Tally
from cdna.fuzz.message_steps import MEMORY, message_steps
from cdna.fuzz.neighbours import Harm, Scene, Turns
from cdna.fuzz.schedules import ScheduleCampaign
from cdna.guest_driver.vhost_frontend import SPLIT, Frontend, NetDriver, attach
from cdna.guest_driver.vrings import GuestMemory
from cdna.nic.queue_wire import QueueWire
from cdna.settings import ContextSettings
from cdna.virtio import Feature
from cdna.vmm.vhost_user import SUPPORTED, VhostUserGuest, VhostUserServer

NEIGHBOURS: dict[str, Any] = {
    "vlan": 7,
    "rx_ring": 256,
}  # hostile guests have none, so whatever they send must not arrive
PATIENCE = 20.0  # seconds until a frontend that has gone is taken back
SECRET_BYTES = 1 << 16  # of the honest virtual machine's memory
REPLY = 0.2  # seconds that a hostile frontend waits: the backend may wait for the rest of a message
EVERY = 8  # steps between two looks at the neighbours


class VirtualMachine:
    """An honest neighbour behind vhost-user, with a secret in its memory."""

    def __init__(self, guest: VhostUserGuest, secret: bytes) -> None:
        self.context = guest.context
        self._memory = GuestMemory(4 << 20)
        self._kept = self._memory.view(self._memory.alloc(SECRET_BYTES), SECRET_BYTES)
        self._secret = secret * (SECRET_BYTES // len(secret))
        self._kept[:] = memoryview(self._secret)
        self._attached = attach(guest.path, SPLIT, memory=self._memory, size=256)

    def send(self, frames: list[bytes]) -> int:
        return self._attached.send(frames)

    def recv(self, most: int) -> list[bytes]:
        return self._attached.recv()

    def check(self) -> None:
        if self._kept.tobytes() != self._secret:
            raise Harm("outside", "the memory of another virtual machine was written")

    def close(self) -> None:
        self._attached.close()
        self._memory.close()


class Attacker:
    """A frontend without scruples, and the memory and rings that it may lend."""

    def __init__(self, guest: VhostUserGuest, tally: Tally) -> None:
        self._guest = guest
        self._tally = tally
        self.memory = GuestMemory(MEMORY)
        self._event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._file = os.memfd_create("other", os.MFD_CLOEXEC)
        os.ftruncate(self._file, 4096)
        self._frontend: Frontend | None = None
        self._driver: NetDriver | None = None
        self.said = b""  # what the backend has replied

    def do(self, step: Step) -> None:
        self._tally.attempts += 1
        # The backend has hung up, or answers otherwise; or its own rings are garbage by now.
        with contextlib.suppress(OSError, AssertionError, LookupError, ValueError):
            getattr(self, step[0])(**step[1])
        self._drain()

    # --- the connection -------------------------------------------------------------------------------------

    def connect(self) -> None:
        self.hang_up()
        self._frontend = Frontend.connect(self._guest.path, self.memory)

    def hang_up(self) -> None:
        if self._driver is not None:
            self._driver.close()
            self._driver = None
        if self._frontend is not None:
            self._frontend.close()
            self._frontend = None

    def _drain(self) -> None:
        """Takes what the backend says, and counts a connection that it has ended."""
        frontend = self._frontend
        if frontend is None:
            return
        frontend.sock.settimeout(0)
        try:
            while True:
                data, fds, _, _ = socket.recv_fds(frontend.sock, 4096, 8)
                for fd in fds:
                    os.close(fd)
                if not data:
                    break
                self.said += data
        except BlockingIOError:
            return
        except OSError:
            pass
        self._tally.refusals["SENT_AWAY"] = self._tally.refusals.get("SENT_AWAY", 0) + 1
        self.hang_up()

    def close(self) -> None:
        self.hang_up()
        os.close(self._event)
        os.close(self._file)
        self.memory.close()

    # --- steps ----------------------------------------------------------------------------------------------

    def message(self, request: int, payload: str, fds: str, flags: int, size: int | None) -> None:
        """Any message; fds: a letter each of "m"emory, "e"ventfd, another "f"ile, "s"tandard input."""
        if self._frontend is not None:
            kinds = {"m": self.memory.fd, "e": self._event, "f": self._file, "s": 0}
            self._frontend.sock.settimeout(REPLY)
            self._frontend.send(request, bytes.fromhex(payload), [kinds[kind] for kind in fds], flags, size)

    def raw(self, data: str) -> None:
        if self._frontend is not None:
            self._frontend.sock.settimeout(REPLY)
            self._frontend.send_raw(bytes.fromhex(data))

    def negotiate(self, features: int) -> None:
        if self._frontend is not None:
            self._frontend.sock.settimeout(REPLY)
            self._frontend.negotiate(features)

    def start(self, pairs: int, size: int) -> None:
        """Gives memory and starts rings, as an honest frontend does."""
        frontend = self._frontend
        if frontend is None or not frontend.features >> Feature.VHOST_USER_F_PROTOCOL_FEATURES & 1:
            return
        if self._driver is not None:
            self._driver.close()
        self.memory._next = [0]  # what an earlier driver had is overwritten
        self._driver = NetDriver(self.memory, frontend.features, pairs=pairs, size=size, rx_room=256)
        frontend.give_memory()
        for queue, ring in enumerate(self._driver.queues):
            frontend.start(queue, ring)

    def frames(self, count: int, size: int, to: str) -> None:
        if self._driver is not None:
            source = parse_mac(self._guest.context.mac)
            frame = (bytes.fromhex(to) + source + b"\x88\xb5").ljust(size, b"\xbd")
            self._tally.descriptors += self._driver.send([frame] * count)

    def chain(self, queue: int, rows: list[list[int]]) -> None:
        """Descriptors of [address, length, flags, next], and the first of them made available."""
        if self._driver is None:
            return
        ring = self._driver.queues[queue % len(self._driver.queues)]
        for at, (address, length, flags, following) in enumerate(rows):
            data = struct.pack("<QIHH", address, length, flags, following)
            self.memory.write(ring.desc + 16 * (at % ring.size), data)
        self._tally.descriptors += len(rows)
        if hasattr(ring, "expose"):
            ring.expose(0)
        ring.kick(True)

    def garbage(self, seed: int, offset: int, size: int) -> None:
        """Random bytes over a part of its memory, rings included."""
        offset %= MEMORY
        size = min(size, MEMORY - offset)
        self.memory.bytes[offset : offset + size] = memoryview(Random(seed).randbytes(size))
        for ring in self._driver.queues if self._driver is not None else ():
            first = self.memory.offset(ring.desc)
            hit = min(offset + size, first + 16 * ring.size) - max(offset, first)
            self._tally.descriptors += max(0, hit) // 16
            ring.kick(True)

    def shrink_memory(self, size: int) -> None:
        """Its memory file loses its pages while the engine uses it, and gets others."""
        os.ftruncate(self.memory.fd, size)
        if self._driver is not None:
            for ring in self._driver.queues:
                os.eventfd_write(ring.kick_fd, 1)
        time.sleep(0.001)
        os.ftruncate(self.memory.fd, MEMORY)


class MessagesCampaign(ScheduleCampaign):
    name = "messages"

    def __init__(self, seed: int, **options: Any) -> None:
        super().__init__(seed, **options)
        self._folder = tempfile.TemporaryDirectory(prefix="cdna-fuzz-")
        self._turns = Turns()
        self._wire = QueueWire(4096)
        self._scene = Scene(seed, self._wire, room=16, contexts=16, **NEIGHBOURS)
        self._server = VhostUserServer(self._scene.machine.vmm, control_share=1.0)
        honest = self._add("honest", 2, vlan=NEIGHBOURS["vlan"])
        self._hostile = self._add("mallory", 3)
        self._scene.baseline = self._scene.held()
        self._scene.machine.start()
        self._vm = VirtualMachine(honest, self._scene.secret)
        scene = self._scene
        scene.pairs += [(scene.alice, self._vm), (self._vm, scene.alice)]
        self._files = _settled_files()

    def _add(self, name: str, number: int, **settings: Any) -> VhostUserGuest:
        settings = {"protection": "table", "mac": f"02:00:00:00:00:{number:02x}", **settings}
        path = Path(self._folder.name) / name
        return self._server.add(name, path, settings=ContextSettings(**settings), features=SUPPORTED)

    def close(self) -> None:
        self._turns.close()
        self._vm.close()
        self._server.close()
        self._scene.close()
        self._folder.cleanup()

    @classmethod
    def expand(cls, case: Case) -> Case:
        return {**case, "steps": message_steps(Random(case["seed"]))}

    def play(self, case: Case, tally: Tally) -> None:
        try:
            self._attack(case["steps"], tally)
            self._settle()
            self._look(tally)
            self._scene.check_held()
        except Harm as harm:
            raise Breach(harm.kind, harm.text, case) from None
        vmm = self._scene.machine.vmm
        vmm.collect_faults()
        for fault in vmm.faults:
            tally.faults[fault.reason.name] = tally.faults.get(fault.reason.name, 0) + 1
        vmm.faults.clear()

    def _attack(self, steps: list[Step], tally: Tally) -> None:
        attacker = Attacker(self._hostile, tally)  # what it maps goes with it
        try:
            for n, step in enumerate(steps):
                attacker.do(step)
                if n % EVERY == 0:
                    self._look(tally)
            self._look(tally)
            self._scene.look_for_secret("a reply", attacker.said)
            self._scene.look_for_secret("the hostile frontend's memory", attacker.memory.bytes.tobytes())
        finally:
            attacker.close()

    def _look(self, tally: Tally) -> None:
        self._scene.talk(tally, None, 4, strangers=False)
        self._scene.check(tally)
        self._vm.check()
        self._scene.look_for_secret("a frame on the wire", *self._wire.get())

    def _settle(self) -> None:
        """Returns when nothing of the frontend is held any more; some files are closed in a thread."""
        until = time.monotonic() + PATIENCE
        if _files() > self._files:
            gc.collect()  # views of the frontend's memory
        while self._hostile.connected or _files() > self._files:
            if time.monotonic() > until:
                raise Harm("pin", f"{_files()} files are open where {self._files} were")
            time.sleep(0.001)


def _files() -> int:
    return len(os.listdir("/proc/self/fd"))


def _settled_files() -> int:
    """Open files when none was closed for a while: what the server does not keep is closed in a thread."""
    gc.collect()
    counts = [_files()]
    while len(counts) < 20 or len({*counts[-20:]}) > 1:
        time.sleep(0.001)
        counts.append(_files())
    return counts[-1]
