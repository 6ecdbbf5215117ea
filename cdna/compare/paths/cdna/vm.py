"""CDNA between two virtual machines: `cdna serve`."""

from pathlib import Path

from cdna.compare.vm.scene import GUESTS, VmScene
from cdna.vm.network import Nic, VhostUser
from cdna.vm.server import ServeProcess


class CdnaScene(VmScene):
    """A context of one NIC for each guest: `cdna serve`."""

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
