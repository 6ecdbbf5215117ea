"""Tests that need network devices of their own: they run in a network namespace that ends with them."""

from __future__ import annotations

import ctypes
import fcntl
import logging
import os
import socket
import struct
import threading
import time
import traceback
from collections.abc import Callable

import pytest

from cdna.guests.driver import Driver
from cdna.machine import Machine
from cdna.nic.tap import IFF_MULTI_QUEUE, IFF_NO_PI, IFF_TAP, TUNSETIFF
from tests.support.frames import frame, mac

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000  # linux/sched.h
SOL_PACKET, PACKET_VNET_HDR = 263, 15  # linux/if_packet.h
SO_RCVBUFFORCE = 33
TUNSETPERSIST = 0x400454CB  # linux/if_tun.h
ETHERTYPE = 0x88B5  # IEEE local experimental: the kernel sends none of these itself
ETH_P_ALL = 3
VNET = struct.Struct("<BBHHHH")  # a virtio-net header on a packet socket
DEADLINE = 20.0  # seconds; far more than anything here takes


def unshare(flags: int) -> str | None:
    """Enters new namespaces; returns what the kernel has against it."""
    libc = ctypes.CDLL(None, use_errno=True)
    return None if libc.unshare(flags) == 0 else os.strerror(ctypes.get_errno())


def in_namespace(function: Callable[[], None]) -> None:
    """Runs `function` in a network namespace of its own: as root in a thread, else in a user namespace."""
    if os.geteuid() == 0:
        _in_thread(function)
    else:
        _in_user_namespace(function)


def _in_thread(function: Callable[[], None]) -> None:
    outcome: list[BaseException | str | None] = []

    def run() -> None:
        problem = unshare(CLONE_NEWNET)
        if problem is not None:
            outcome.append(problem)
            return
        try:
            function()
            outcome.append(None)
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if isinstance(outcome[0], str):
        pytest.skip(f"no network namespace of its own: {outcome[0]}")
    if outcome[0] is not None:
        raise outcome[0]


def _in_user_namespace(function: Callable[[], None]) -> None:
    """In a child: a user namespace is for a process of one thread only."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        text = ""
        try:
            problem = unshare(CLONE_NEWUSER | CLONE_NEWNET)
            if problem is None:
                function()
            else:
                text = f"skip {problem}"
        except pytest.skip.Exception as skipped:
            text = f"skip {skipped.msg}"
        except BaseException:
            text = traceback.format_exc()
        os.write(write, text.encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as report:
        text = report.read()
    os.waitpid(child, 0)
    if text.startswith("skip "):
        pytest.skip(f"no network namespace of its own: {text[5:]}")
    assert not text, text


def until(condition: Callable[[], object]) -> None:
    """Waits until `condition()` holds."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        os.sched_yield()


def set_link(name: str, *, up: bool) -> None:
    from pyroute2 import IPRoute

    with IPRoute() as netlink:
        netlink.link("set", index=socket.if_nametoindex(name), state="up" if up else "down")


def delete_link(name: str) -> None:
    from pyroute2 import IPRoute

    with IPRoute() as netlink:
        netlink.link("del", index=socket.if_nametoindex(name))


def make_tap(name: str, *, multi_queue: bool = False) -> None:
    """A tap that persists, and is up; as ip tuntap add makes it."""
    flags = IFF_TAP | IFF_NO_PI | (IFF_MULTI_QUEUE if multi_queue else 0)
    fd = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
    fcntl.ioctl(fd, TUNSETPERSIST, 1)
    os.close(fd)
    set_link(name, up=True)


def make_veth(name: str, peer: str) -> None:
    """A pair of devices, both up."""
    from pyroute2 import IPRoute

    with IPRoute() as netlink:
        netlink.link("add", ifname=name, kind="veth", peer=peer)
    set_link(name, up=True)
    set_link(peer, up=True)


def host_end(name: str, ethertype: int = ETHERTYPE, *, vnet: bool = False) -> socket.socket:
    """A raw socket on a device. vnet: frames stand behind a header, `VNET`, and may be large."""
    host = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    host.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 20)
    if os.geteuid() == 0:
        host.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 64 << 20)
    if vnet:
        host.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    host.bind((name, ethertype))
    host.settimeout(DEADLINE)
    return host


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the NIC has logged, in order."""
    return [
        record.getMessage()
        for record in caplog.records
        if record.name == "cdna.nic" and record.levelno >= logging.INFO
    ]


def comes_and_goes(
    machine: Machine,
    guest: Driver,
    far: str,
    nothing: type[OSError],
    remove: Callable[[], None],
    make: Callable[[], None],
) -> None:
    """While the engine runs, the wire's device goes and comes again: frames arrive at `far`, or are counted.

    nothing: what the far end's socket says when no frame is there.
    """
    data = frame(b"\xff" * 6, mac(guest))

    def arrives() -> bool:
        with host_end(far) as host:
            host.settimeout(0.01)
            guest.send([data])
            try:
                return host.recv(2000) == data
            except nothing:
                return False

    def is_lost() -> bool:
        guest.send([data])
        return not machine.wire.link and guest.context.stats()["tx_drop_link"] > 0

    until(arrives)
    for _ in range(3):
        remove()
        until(is_lost)
        make()
        until(arrives)
        assert machine.wire.link
