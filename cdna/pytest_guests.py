"""What the fixtures of `cdna.pytest_plugin` hand out."""

from __future__ import annotations

import select
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Unpack

from cdna.base.closing import Closing
from cdna.base.units import parse_mac
from cdna.guests import stepping
from cdna.guests.misbehaviour import HostileGuest
from cdna.guests.shared_driver import Inbox, SharedDriver
from cdna.machine import GuestSettings, Machine
from cdna.nic.queue_wire import QueueWire

if TYPE_CHECKING:
    from cdna.guests.driver import Driver
    from cdna.guests.hostile import HostileSettings
    from cdna.guests.scapy_socket import ScapySocket
    from cdna.vmm.domain import Context

PATIENCE = 5.0  # seconds that `recv` waits where the NIC runs in a thread
BETWEEN_ACTS = 0.0005  # seconds between two acts of a hostile guest there


class _Machine(Machine):
    """A machine whose hostile guests act before each step."""

    def step(self, rounds: int = 1) -> int:
        stepping.act(self.vmm)
        return super().step(rounds)


def open_machine(args: tuple[object, ...], options: Mapping[str, Any]) -> Machine:
    """The machine that a marker describes. ConfigError, TypeError: it describes none."""
    if args:
        raise TypeError(
            f"{args[0]!r} has no name: give wire=, contexts=, memory=, start= or options of cdna.Nic"
        )
    options = {"wire": "queue", **options}
    start, wire = options.pop("start", False), options.pop("wire")
    if wire == "queue":
        wire = QueueWire()
    elif callable(wire):
        wire = wire()
    machine = _Machine(wire=wire, **options)
    if start:
        machine.start()
    return machine


class NicGuest:
    """A guest of the machine under test: frames as bytes, and a scapy socket beside them.

    Each of `recv` and `socket` sees every frame from its first use on.
    """

    def __init__(self, machine: Machine, name: str, ip: str | None, settings: GuestSettings) -> None:
        self.name = name
        self.ip = ip
        self.driver: Driver = machine.attach(name, **settings)
        self._shared = SharedDriver.of(self.driver)
        self._inbox: Inbox | None = None
        self._socket: ScapySocket | None = None

    @property
    def context(self) -> Context:
        return self.driver.context

    @property
    def mac(self) -> str:
        return self.context.mac

    @property
    def mac_bytes(self) -> bytes:
        return parse_mac(self.mac)

    @property
    def socket(self) -> ScapySocket:
        """A scapy socket of this guest."""
        if self._socket is None:
            from cdna.guests.scapy_socket import ScapySocket

            self._socket = ScapySocket(self._shared, ip=self.ip)
        return self._socket

    def stats(self) -> dict[str, int]:
        """The context's counters: frames, bytes, drops by reason."""
        return self.context.stats()

    def send(self, *frames: Any) -> None:
        """Sends frames, each of bytes or whatever bytes() makes one of, such as scapy's packets."""
        for frame in frames:
            self._shared.send(frame if isinstance(frame, bytes) else bytes(frame))

    def recv(self, timeout: float = PATIENCE) -> list[bytes]:
        """All frames that have arrived. A NIC that runs in a thread has `timeout` s for the first one."""
        if self._inbox is None:
            self._inbox = self._shared.open()
        deadline = time.monotonic() + timeout
        while not self._inbox.poll() and not self._shared.stepped and time.monotonic() < deadline:
            select.select([self._inbox], [], [], max(0.0, deadline - time.monotonic()))
        frames = []
        while taken := self._inbox.take(step=False):
            frames.append(taken[0])
        return frames

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
        if self._inbox is not None:
            self._shared.close(self._inbox)
            self._inbox = None


class Mischief(Closing):
    """The hostile guests of a machine. Where it is stepped, each acts before it moves; else in a thread."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.guests: list[HostileGuest] = []
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def attach(
        self, *ways: str, name: str | None = None, **settings: Unpack[HostileSettings]
    ) -> HostileGuest:
        guest = HostileGuest(self.machine, *ways, name=name or f"mallory{len(self.guests)}", **settings)
        self.guests.append(guest)
        if not stepping.runs(self.machine.vmm):
            stepping.before_each_step(self.machine.vmm, guest.act)
        elif self._thread is None:
            self._thread = threading.Thread(target=self._act, name="cdna-hostile", daemon=True)
            self._thread.start()
        return guest

    def _act(self) -> None:
        while not self._over.wait(BETWEEN_ACTS):
            for guest in tuple(self.guests):
                guest.act()

    def close(self) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()
        stepping.forget(self.machine.vmm)
        for guest in self.guests:
            guest.close()
