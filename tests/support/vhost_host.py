"""A machine with a vhost-user server, and a look at what is held for its frontends."""

from __future__ import annotations

import contextlib
import gc
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cdna import ContextSettings, Machine
from cdna.base.units import parse_mac
from cdna.guest_driver.vhost_frontend import SPLIT, AttachedGuest, Frontend, NetDriver, attach
from cdna.guest_driver.vrings import MAPPED, GuestMemory
from cdna.nic.queue_wire import QueueWire
from cdna.protocol.vhost_user import FLAG_REPLY, HEADER, U64, VERSION, Request
from cdna.vmm.vhost_user import SUPPORTED, VhostUserGuest, VhostUserServer
from tests.support.frames import OUTSIDE, frame
from tests.support.remote_host import descriptors

DEADLINE = 20.0  # seconds


def until(condition: Callable[[], object]) -> None:
    """Waits for a condition, which is looked at again and again."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.001)


def maps() -> int:
    """Memory files that are mapped here, beside those of the drivers."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return sum("memfd:" in line for line in lines) - len(MAPPED)


class Recorder(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


class VhostHost:
    """A NIC on a wire of queues, which moves when it is told to, and guests at sockets of a folder."""

    def __init__(self, folder: Path, **server: Any) -> None:
        self.folder = folder
        self.wire = QueueWire()
        self.machine = Machine(16 << 20, wire=self.wire, contexts=16)
        self.server = VhostUserServer(self.machine.vmm, **server)
        self.recorder = Recorder()
        logging.getLogger("cdna").addHandler(self.recorder)
        self._memories: list[GuestMemory] = []
        self._attached: list[AttachedGuest | Frontend | NetDriver] = []
        gc.collect()
        self.baseline = self.held()

    def add(self, name: str = "guest", number: int = 10, **options: object) -> VhostUserGuest:
        """A guest with the MAC address 02:00:00:00:00:`number`."""
        settings = ContextSettings(protection="table", mac=f"02:00:00:00:00:{number:02x}")
        options.setdefault("settings", settings)
        options.setdefault("features", SUPPORTED)
        return self.server.add(name, self.folder / f"{name}.sock", **options)  # type: ignore[arg-type]

    def memory(self, **options: int) -> GuestMemory:
        memory = GuestMemory(**options)
        self._memories.append(memory)
        return memory

    def attach(self, guest: VhostUserGuest, wanted: int = SPLIT, **options: object) -> AttachedGuest:
        options.setdefault("memory", self.memory())
        attached = attach(guest.path, wanted, **options)  # type: ignore[arg-type]
        self._attached.append(attached)
        return attached

    def connect(self, guest: VhostUserGuest, memory: GuestMemory | None = None) -> Frontend:
        frontend = Frontend.connect(guest.path, memory or self.memory())
        self._attached.append(frontend)
        return frontend

    def driver(self, memory: GuestMemory, accepted: int, **options: object) -> NetDriver:
        """A driver whose rings the test itself starts."""
        driver = NetDriver(memory, accepted, **options)  # type: ignore[arg-type]
        self._attached.append(driver)
        return driver

    def detach(self, guest: VhostUserGuest, attached: AttachedGuest | Frontend) -> None:
        attached.close()
        self._attached.remove(attached)
        until(lambda: not guest.connected)
        with self.server.lock:  # what it had is taken back by then
            pass

    def held(self) -> dict[str, object]:
        vmm = self.machine.vmm
        files = descriptors()
        return {
            "files": [name for name in files if name != "/memfd"],
            "memory files": files.count("/memfd") - len(MAPPED),
            "maps": maps(),
            "free pages": self.machine.memory.free_pages,
            "guests": sorted(vmm.guests),
            "contexts": sorted(vmm.contexts),
        }

    def lines(self, level: int = logging.WARNING) -> list[str]:
        """What was logged so far, from a level on."""
        return [record.getMessage() for record in self.recorder.records if record.levelno >= level]

    def step(self, rounds: int = 4) -> None:
        self.machine.step(rounds)

    def clear(self) -> None:
        """Frontends and guests go, and nothing of them may be held any more."""
        while self._attached:
            self._attached.pop().close()
        for guest in self.server.guests:
            self.server.remove(guest)
        while self._memories:
            self._memories.pop().close()
        self.settle(self.baseline)

    def settle(self, wanted: dict[str, object]) -> None:
        """Waits until nothing else is held: some of what frontends sent is closed in a thread (`Discard`)."""
        if self.held() != wanted:
            gc.collect()
        with contextlib.suppress(AssertionError):  # the one below says what is too much
            until(lambda: self.held() == wanted)
        assert self.held() == wanted

    def close(self) -> None:
        logging.getLogger("cdna").removeHandler(self.recorder)
        self.server.close()
        self.machine.close()


def refused(frontend: Frontend) -> bool:
    """Whether the backend hangs up at what was sent: a question behind it gets no answer."""
    frontend.send(Request.GET_FEATURES)
    answer, said = HEADER.pack(Request.GET_FEATURES, VERSION | FLAG_REPLY, U64.size), b""
    with contextlib.suppress(ConnectionResetError):
        while piece := frontend.sock.recv(4096):
            said += piece
            if answer in said:
                return False
    return True


def mac(guest: VhostUserGuest) -> bytes:
    return parse_mac(guest.context.mac)


def outgoing(guest: VhostUserGuest, count: int = 10, size: int = 60, start: int = 0) -> list[bytes]:
    """Frames from a guest to somebody on the wire."""
    return [frame(OUTSIDE, mac(guest), start + i, size) for i in range(count)]


def incoming(guest: VhostUserGuest, count: int = 10, size: int = 60, start: int = 0) -> list[bytes]:
    """Frames from somebody on the wire to a guest."""
    return [frame(mac(guest), OUTSIDE, start + i, size) for i in range(count)]


def check_traffic(
    host: VhostHost, guest: VhostUserGuest, driver: AttachedGuest | NetDriver, pairs: Sequence[int] = (0,)
) -> None:
    """Frames go out by each pair and come in, all and unchanged."""
    for pair in pairs:
        sent = outgoing(guest, start=100 * pair)
        assert driver.send(sent, pair) == len(sent)
        host.step()
        assert host.wire.get() == sent
    there = incoming(guest, size=1000)
    host.wire.put(there)
    host.step()
    assert sorted(driver.recv()) == sorted(there)


def less(wanted: int, *features: int) -> int:
    """Without these features."""
    for feature in features:
        wanted &= ~(1 << feature)
    return wanted
