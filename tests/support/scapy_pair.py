"""Two guests as scapy sockets on one machine, which runs, or is stepped, or serves them from outside."""

from __future__ import annotations

import select
import time
from collections.abc import Callable
from typing import Any

from scapy.all import (
    Ether,
    Raw,
)

import cdna
from cdna.guests.scapy_socket import ScapySocket
from cdna.nic.queue_wire import QueueWire

EVERYBODY = "ff:ff:ff:ff:ff:ff"
ALICE_IP, BOB_IP = "10.9.0.1", "10.9.0.2"
QUIET = {"verbose": 0, "timeout": 20}

KINDS = ["stepped", "running", "remote"]


class Pair:
    """Two guests' sockets on one machine."""

    def __init__(self, kind: str, tmp_path: Any, **settings: Any) -> None:
        self.kind = kind
        self.machine = cdna.Machine(16 << 20, wire=QueueWire(256), contexts=8)
        self.drivers: list[Any] = []
        if kind == "remote":
            self.machine.serve(tmp_path / "vmm")
            self.drivers = [
                cdna.RemoteDriver(tmp_path / "vmm", name=name, **settings) for name in ("alice", "bob")
            ]
        else:
            self.drivers = [self.machine.attach(name, **settings) for name in ("alice", "bob")]
        if kind != "stepped":
            self.machine.start()
        self.alice = ScapySocket(self.drivers[0], ip=ALICE_IP)
        self.bob = ScapySocket(self.drivers[1], ip=BOB_IP)

    def close(self) -> None:
        self.alice.close()
        self.bob.close()
        if self.kind == "remote":
            for driver in self.drivers:
                driver.close()
        self.machine.close()


def wait_for(condition: Callable[[], object], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        select.select([], [], [], 0.001)


def data_to(sock: ScapySocket, number: int = 0, size: int = 64) -> Any:
    head = Ether(dst=sock.mac, type=0x88B5)
    return head / Raw(number.to_bytes(4, "big").ljust(size - 14, b"\xaa"))


def numbers(packets: Any) -> list[int]:
    return [int.from_bytes(bytes(packet)[14:18], "big") for packet in packets]


class Answering:
    """An answering machine in the background, on a socket of its own."""

    def __init__(self, machine: Any, sock: ScapySocket, **options: Any) -> None:
        self.sock = ScapySocket(sock.shared, ip=sock.ip)
        self.sniffer = self.sock.am(machine, verbose=0, **options).bg()
        wait_for(lambda: hasattr(self.sniffer, "continue_sniff"))

    def __enter__(self) -> None:
        pass

    def __exit__(self, *exc: object) -> None:
        self.sniffer.stop()
        self.sock.close()
