"""The kernel's bridge between two virtual machines."""

from cdna.compare.vm.scene import GUESTS, VmScene
from cdna.vm.network import Nic, Tap


class BridgeScene(VmScene):
    """A tap of the kernel for each guest, ports of a bridge. QEMU reads and writes the taps."""

    def _connect(self) -> list[Nic]:
        self.host.add_bridge()
        return [
            Tap("net0", self.mac(number), fd=self.host.open_tap(name)) for number, name in enumerate(GUESTS)
        ]
