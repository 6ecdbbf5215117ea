"""Two virtual machines, and CDNA or the kernel's bridge between them; all else is the same."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING

from cdna.vm.host import HostNetwork
from cdna.vm.machine import VirtualMachine
from cdna.vm.network import Nic, Tap, VhostUser
from cdna.vm.server import ServeProcess

if TYPE_CHECKING:
    from types import TracebackType

GUESTS = ("alice", "bob")
DEVICE = "eth0"


class Scene(ABC):
    """Two guests that boot when this is made; `wait_ready` returns when they have addresses."""

    path: str

    def __init__(self) -> None:
        self._undo = contextlib.ExitStack()
        try:
            self.host = self._undo.enter_context(HostNetwork())
            nics = self._connect()
            self.guests = [
                self._undo.enter_context(VirtualMachine(name, [nic]))
                for name, nic in zip(GUESTS, nics, strict=True)
            ]
        except BaseException:
            self._undo.close()
            raise

    @abstractmethod
    def _connect(self) -> list[Nic]:
        """Builds what is between the guests. Returns their devices."""

    @property
    def server(self) -> int | None:
        """The process id of the server, if there is one."""
        return None

    @staticmethod
    def mac(guest: int) -> str:
        return f"02:cd:be:00:00:{guest + 1:02x}"

    @staticmethod
    def address(guest: int) -> str:
        return f"10.88.0.{guest + 1}"

    def wait_ready(self) -> None:
        for number, guest in enumerate(self.guests):
            guest.run(f"ip addr add {self.address(number)}/24 dev {DEVICE} && ip link set {DEVICE} up")
        self.guests[1].run("iperf3 -s -D")
        self.guests[0].run(f"/bin/ping -c 1 -w 20 {self.address(1)}")

    def __enter__(self) -> Scene:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._undo.close()


class Cdna(Scene):
    """A context of one NIC for each guest: `cdna serve`."""

    path = "cdna"

    def _connect(self) -> list[Nic]:
        contexts = [
            f"vhost-user:{{place}}/{name},name={name},mac={self.mac(number)}"
            for number, name in enumerate(GUESTS)
        ]
        self._server = self._undo.enter_context(ServeProcess(self.host, contexts))
        return [
            VhostUser("net0", self.mac(number), path=str(self._server.place / name))
            for number, name in enumerate(GUESTS)
        ]

    @property
    def server(self) -> int:
        return self._server.pid

    @property
    def control(self) -> Path:
        """The server's control socket."""
        return self._server.control


class Bridge(Scene):
    """A tap of the kernel for each guest, ports of a bridge. QEMU reads and writes the taps."""

    path = "bridge"

    def _connect(self) -> list[Nic]:
        self.host.add_bridge()
        return [
            Tap("net0", self.mac(number), fd=self.host.open_tap(name)) for number, name in enumerate(GUESTS)
        ]


SCENES: dict[str, type[Scene]] = {scene.path: scene for scene in (Cdna, Bridge)}
