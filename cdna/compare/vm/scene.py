"""Two virtual machines; what is between them is a path's, all else is the same."""

from __future__ import annotations

import contextlib
from abc import abstractmethod
from typing import TYPE_CHECKING

from cdna.base.closing import Closing
from cdna.vm.host import HostNetwork
from cdna.vm.machine import VirtualMachine

if TYPE_CHECKING:
    from cdna.vm.network import Nic

GUESTS = ("alice", "bob")
DEVICE = "eth0"


class VmScene(Closing):
    """Two guests that boot when this is made; `wait_ready` returns when they have addresses.

    path: the name of the path, for messages.
    """

    def __init__(self, path: str) -> None:
        self.path = path
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

    def close(self) -> None:
        self._undo.close()
