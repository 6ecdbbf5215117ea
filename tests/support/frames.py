"""Frames, and two honest neighbours whose traffic has to go on whatever a third guest does."""

from __future__ import annotations

from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from cdna.base.units import parse_mac
from cdna.guests.driver import Driver
from cdna.machine import Machine

OUTSIDE = bytes.fromhex("02ffffffff01")  # somebody on the wire
BROADCAST = b"\xff" * 6


def mac(driver: Driver) -> bytes:
    return parse_mac(driver.context.mac)


def frame(to: bytes, source: bytes, number: int = 0, size: int = 60, tag: bytes = b"") -> bytes:
    """A frame of `size` bytes (tag included) that no other frame with another number is equal to."""
    head = to + source + tag + b"\x88\xb5" + number.to_bytes(4, "big")
    filler = bytes((number + i) & 0xFF for i in range(256)) * (size // 256 + 1)
    return (head + filler)[:size]


def vlan_tag(vid: int) -> bytes:
    return b"\x81\x00" + vid.to_bytes(2, "big")


def receive_all(driver: Driver) -> list[bytes]:
    frames: list[bytes] = []
    while batch := driver.recv():
        frames += batch
    return frames


class Neighbours:
    """Alice and Bob, who send each other numbered frames and miss none."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.alice = machine.attach("alice", tx_ring=32, rx_ring=64)
        self.bob = machine.attach("bob", tx_ring=32, rx_ring=64)
        self.number = 0

    def check(self, frames: int = 20) -> None:
        """Sends `frames` each way and sees that they arrive: all, unchanged, in order, nothing else."""
        for source, to in ((self.alice, self.bob), (self.bob, self.alice)):
            expected = [frame(mac(to), mac(source), self.number + i) for i in range(frames)]
            self.number += frames
            assert source.send(expected) == frames
            self.machine.step(3)
            assert receive_all(to) == expected


def flows(to: bytes, source: bytes, count: int) -> list[bytes]:
    """Datagrams, each of a flow of its own."""
    head = Ether(dst=to.hex(":"), src=source.hex(":"), type=0x800)
    return [
        bytes(head / IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=1000 + i, dport=2000) / Raw(bytes(20)))
        for i in range(count)
    ]
