"""The attacks by name: each adds one attacker to a stage, and what it needs beside it.

A stage is a `cdna.fuzz.rivals.Course`, or guests at the sockets of a server (`served.py`). The first line of
an attack's docstring is what the table says of it.
"""

from __future__ import annotations

import ctypes
import itertools
import math
import os
import select
import struct
from collections.abc import Callable
from typing import Any, Protocol

from cdna.abi import VnetFlag, VnetGso
from cdna.fuzz.rivals import BROADCAST, HEADER, INDIRECT, MERGEABLE, OUTSIDE, PAGE, V1, frame
from cdna.guest_driver.vrings import Buffer, GuestMemory, MemoryRegion
from cdna.virtio import Feature

SMALL = 14  # bytes: a frame is no shorter
LARGE = 60000  # bytes of a frame that is to be cut, or summed up
WAITERS = 18000  # of an eventfd
GIB = 1 << 30
REPLACED_EVERY = 50  # refills
NEEDS_CSUM, GSO_TCPV4 = VnetFlag.VNET_F_NEEDS_CSUM, VnetGso.VNET_GSO_TCPV4
CSUM = 1 << Feature.VIRTIO_NET_F_CSUM
TSO = 1 << Feature.VIRTIO_NET_F_HOST_TSO4
FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE = 1, 2  # linux/falloc.h
LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


class Stage(Protocol):
    def virtio(self, **options: Any) -> Any: ...


Settings = dict[str, Any]  # of the attacker's context
Attack = Callable[[Stage, Settings], object]


# --- cost per frame ---------------------------------------------------------------------------------------


def fair(stage: Stage, settings: Settings) -> None:
    """no attack: frames of 1514 B, as the honest guest's"""
    guest = stage.virtio(settings=settings)
    guest.send([frame(OUTSIDE, guest.mac, 1514)])


def small(stage: Stage, settings: Settings) -> None:
    """frames of 14 B"""
    guest = stage.virtio(settings=settings)
    guest.send([frame(OUTSIDE, guest.mac, SMALL)])


def pieces(stage: Stage, settings: Settings) -> None:
    """frames of 256 pieces in an indirect table"""
    guest = stage.virtio(settings=settings)
    guest.send([frame(OUTSIDE, guest.mac, 510)], pieces=256, indirect=True)


def invalid(stage: Stage, settings: Settings) -> None:
    """buffers that hold no frame"""
    guest = stage.virtio(settings=settings)
    guest.send([b"no frame"])


def segments(stage: Stage, settings: Settings) -> None:
    """60 KB of TCP, to be cut into segments of 60 B"""
    guest = stage.virtio(features=V1 | INDIRECT | CSUM | TSO, settings=settings)
    header = struct.pack("<BBHHHH", NEEDS_CSUM, GSO_TCPV4, 54, 60, 34, 16)
    guest.send([tcp(guest.mac, LARGE)], header=header)


def sums(stage: Stage, settings: Settings) -> None:
    """frames of 9000 B whose checksum is to be made"""
    guest = stage.virtio(features=V1 | INDIRECT | CSUM, settings=settings)
    header = struct.pack("<BBHHHH", NEEDS_CSUM, 0, 0, 0, 34, 16)
    guest.send([tcp(guest.mac, 9000)], header=header)


def tcp(source: bytes, size: int) -> bytes:
    """A frame of TCP over IPv4, whose checksums nobody has made."""
    ip = struct.pack(">BBHHHBBH4s4s", 0x45, 0, size - 14, 1, 0, 64, 6, 0, b"\xc6\x12\0\1", b"\xc6\x12\0\2")
    head = struct.pack(">HHIIBBHHH", 1, 2, 3, 4, 5 << 4, 0x10, 1000, 0, 0)
    return (OUTSIDE + source + b"\x08\x00" + ip + head).ljust(size, b"x")


# --- amplification ----------------------------------------------------------------------------------------


def broadcasts(receivers: int) -> Attack:
    def attack(stage: Stage, settings: Settings) -> None:
        guest = stage.virtio(settings=settings)
        guest.send([frame(BROADCAST, guest.mac, SMALL)])
        taking = getattr(stage, "taking", 0)
        for _ in range(receivers - taking):
            stage.virtio().receive()
        stage.taking = max(taking, receivers)

    attack.__doc__ = f"broadcasts of 14 B to {receivers} receivers"
    return attack


def promiscuous(stage: Stage, settings: Settings) -> None:
    """it is promiscuous, which its operator has allowed: a copy of every frame"""
    guest = stage.virtio(settings={**settings, "promiscuous": True})
    guest.receive()


# --- reception --------------------------------------------------------------------------------------------


def chains(stage: Stage, settings: Settings) -> None:
    """receive chains of 256 pieces over 64 regions, for frames of its own"""
    memory = GuestMemory(64 << 20, regions=64)
    guest = stage.virtio(memory=memory, settings=settings)
    guest.send([frame(guest.mac, guest.mac, SMALL)])
    chain = [Buffer(memory.alloc(2048), 2048, True)]
    chain += [Buffer(memory.alloc(64, region=1 + 37 * i % 63), 1, True) for i in range(255)]
    guest.load(guest.rx, [chain], indirect=True)


def merged(stage: Stage, settings: Settings) -> None:
    """frames of its own of 9000 B, merged from buffers of 256 B"""
    guest = stage.virtio(features=V1 | INDIRECT | MERGEABLE, settings=settings)
    guest.send([frame(guest.mac, guest.mac, 9000)])
    guest.receive(256)


def dirty_log(stage: Stage, settings: Settings) -> None:
    """a dirty log, and receive descriptors of 1 GiB for frames of its own of 14 B"""
    memory = GuestMemory(2 * GIB)
    guest = stage.virtio(
        features=V1 | INDIRECT | 1 << Feature.VHOST_F_LOG_ALL, memory=memory, settings=settings
    )
    log = os.memfd_create("log", os.MFD_CLOEXEC)
    os.ftruncate(log, 1 << 20)
    guest.set_log(log, 1 << 20)
    os.close(log)
    guest.send([frame(guest.mac, guest.mac, SMALL)])
    guest.load(guest.rx, [[Buffer(memory.alloc(GIB), GIB, True)]])


def waiters(stage: Stage, settings: Settings) -> None:
    """18,000 epoll entries that wait for its call descriptor"""
    guest = stage.virtio(settings=settings)
    guest.send([frame(OUTSIDE, guest.mac, SMALL)])
    side = math.isqrt(WAITERS)
    copies = [os.dup(guest.tx.call_fd) for _ in range(side)]  # an entry for each number of the same file
    for _ in range(side):
        epoll = select.epoll()
        for copy in copies:
            epoll.register(copy, select.EPOLLIN | select.EPOLLET)
        stage.callback(epoll.close)
    for copy in copies:
        stage.callback(os.close, copy)


# --- memory -----------------------------------------------------------------------------------------------


def table(stage: Stage, settings: Settings) -> None:
    """its memory table is replaced again and again: 60 regions of 1 GiB"""
    memory = GuestMemory(GIB)
    first = memory.regions[0]
    memory.regions += [
        MemoryRegion(first.guest_addr + 2 * i * GIB, GIB, first.user_addr + 2 * i * GIB, 0)
        for i in range(1, 60)
    ]
    guest = stage.virtio(memory=memory, settings=settings)
    guest.send([frame(OUTSIDE, guest.mac, SMALL)])
    every = itertools.cycle(range(REPLACED_EVERY))
    guest.beside = lambda: next(every) or guest.set_memory()


def holes(stage: Stage, settings: Settings) -> None:
    """its buffers are holes of its memory again, each time: the NIC makes the pages"""
    memory = GuestMemory(64 << 20)
    guest = stage.virtio(memory=memory, settings=settings)
    buffers = [Buffer(memory.alloc(PAGE, PAGE), HEADER + 1514) for _ in range(guest.size)]
    guest.load(guest.tx, [[buffer] for buffer in buffers])
    start = memory.offset(buffers[0].addr)
    guest.beside = lambda: punch_hole(memory.fd, start, PAGE * guest.size)


def punch_hole(fd: int, start: int, size: int) -> None:
    """Gives pages of a memory file back (fallocate(2))."""
    if LIBC.fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, start, size):
        raise OSError(ctypes.get_errno(), "fallocate")


ATTACKS: dict[str, Attack] = {
    "fair": fair,
    "small": small,
    "pieces": pieces,
    "invalid": invalid,
    "segments": segments,
    "sums": sums,
    "broadcasts-24": broadcasts(24),
    "broadcasts-200": broadcasts(200),
    "promiscuous": promiscuous,
    "chains": chains,
    "merged": merged,
    "dirty-log": dirty_log,
    "waiters": waiters,
    "table": table,
    "holes": holes,
}

CONTEXTS = {"broadcasts-200": 256}  # that an attack needs at least
RECEIVERS = {"broadcasts-24": 24}  # of attacks that are served, beside the honest ones
# Those that need nothing but rings and memory.
SERVED = (
    "fair",
    "small",
    "pieces",
    "invalid",
    "segments",
    "broadcasts-24",
    "chains",
    "merged",
    "dirty-log",
)
FORWARDED = ("fair", "small", "pieces", "invalid", "segments")  # attacks that need no switch: DPDK, too
