"""Network devices of a guest, as QEMU's monitor takes them: what is behind one, and its properties."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

from cdna.lab.kinds.vhost_user.qemu import RECONNECT_MS, installed_version

# QEMU 7.2 under TCG dies of a segmentation fault when a vhost-user device has MSI-X: it asks for a KVM
# irqfd. Without vectors the device interrupts by INTx. A tap gets none either, so that both have the same.
VECTORS = 0


@dataclass(frozen=True)
class Nic:
    """A virtio-net device. properties: of QEMU's virtio-net-pci, such as packed=True or csum=False."""

    name: str
    mac: str
    queues: int = 1
    properties: dict[str, Any] = field(default_factory=dict)

    def device(self, port: str) -> dict[str, Any]:
        """The arguments of device_add, for a device in this slot."""
        several = {"mq": True} if self.queues > 1 else {}
        return {
            "driver": "virtio-net-pci",
            "id": self.name,
            "netdev": f"{self.name}-net",
            "bus": port,
            "mac": self.mac,
            "vectors": VECTORS,
            "romfile": "",
            **several,
            **self.properties,
        }

    def netdev(self) -> dict[str, Any]:
        """The arguments of netdev_add."""
        raise NotImplementedError

    def chardev(self) -> dict[str, Any] | None:
        """The arguments of chardev-add, if the device needs one."""
        return None

    def fds(self) -> dict[str, int]:
        """Descriptors that QEMU gets before netdev_add, by name."""
        return {}


@dataclass(frozen=True)
class VhostUser(Nic):
    """A device whose other end is a vhost-user backend at the socket `path`, which QEMU connects to.

    listen: QEMU listens and the backend connects.
    """

    path: str = ""
    listen: bool = False

    def chardev(self) -> dict[str, Any]:
        address = {"type": "unix", "data": {"path": os.fspath(self.path)}}
        data: dict[str, Any] = {"addr": address, "server": self.listen}
        if self.listen:
            data["wait"] = False
        elif installed_version() >= RECONNECT_MS:
            data["reconnect-ms"] = 1000
        else:
            data["reconnect"] = 1
        return {"id": f"{self.name}-char", "backend": {"type": "socket", "data": data}}

    def netdev(self) -> dict[str, Any]:
        several = {"queues": self.queues} if self.queues > 1 else {}
        return {"type": "vhost-user", "id": f"{self.name}-net", "chardev": f"{self.name}-char", **several}


@dataclass(frozen=True)
class Tap(Nic):
    """A device whose other end is a tap of the kernel, by the descriptor of its only queue."""

    fd: int = -1

    def netdev(self) -> dict[str, Any]:
        return {"type": "tap", "id": f"{self.name}-net", "fd": f"{self.name}-fd", "vhost": False}

    def fds(self) -> dict[str, int]:
        return {f"{self.name}-fd": self.fd}
