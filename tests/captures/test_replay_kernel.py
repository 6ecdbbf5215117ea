"""The corpus through wires that end in the kernel: a tap, and AF_PACKET on one end of a veth."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

import cdna
from tests.captures.replay import (
    KERNEL_LOSES,
    KERNEL_RECEIVES_NONE,
    MARK,
    VLANS,
    from_a_wire,
    tagged,
    to_a_wire,
)
from tests.support.namespace import host_end, in_namespace, make_veth

SOL_PACKET, PACKET_AUXDATA, ETH_P_ALL = 263, 8, 3
TP_STATUS_VLAN_VALID = 1 << 4


class Host:
    """A raw socket on a device: frames as they were, with the tag that the kernel has taken off."""

    def __init__(self, device: str) -> None:
        self.socket = host_end(device, ETH_P_ALL)
        self.socket.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)

    def recv(self) -> bytes:
        data, ancillary, _, address = self.socket.recvmsg(65536, 256)
        if address[2] == socket.PACKET_OUTGOING:
            return b""
        for _, _, payload in ancillary:
            status, *_, tci, tpid = struct.unpack("=IIIHHHH", payload)
            if status & TP_STATUS_VLAN_VALID:
                data = data[:12] + struct.pack("!HH", tpid, tci) + data[12:]
        return data

    def until_mark(self, mark: bytes) -> list[bytes]:
        frames: list[bytes] = []
        while not frames or frames[-1] != mark:
            frame = self.recv()
            if frame[6:12] == mark[6:12]:  # the kernel sends some of its own
                frames.append(frame)
        return frames[:-1]

    def close(self) -> None:
        self.socket.close()


def quiet() -> None:
    """No neighbour discovery on the devices of this namespace."""
    for which in ("default", "all"):
        with contextlib.suppress(OSError):
            Path(f"/proc/sys/net/ipv6/conf/{which}/disable_ipv6").write_text("1")


def set_mtu(name: str) -> None:
    from pyroute2 import IPRoute

    with IPRoute() as netlink:
        netlink.link("set", index=socket.if_nametoindex(name), mtu=9004)


@contextlib.contextmanager
def kernel_wire(kind: str) -> Iterator[tuple[cdna.Machine, Host]]:
    """A machine on a wire of the kernel's, and the other end of that."""
    quiet()
    if kind.startswith("tap"):
        machine = cdna.Machine(16 << 20, wire=kind.format("cdna-cap0"))
        set_mtu("cdna-cap0")
        host = Host("cdna-cap0")
    else:
        make_veth("cdna-cap0", "cdna-cap1")
        for name in ("cdna-cap0", "cdna-cap1"):
            set_mtu(name)
        machine = cdna.Machine(16 << 20, wire=kind.format("cdna-cap0"))
        host = Host("cdna-cap1")
    try:
        yield machine, host
    finally:
        host.close()
        machine.close()


needs_tun = pytest.mark.skipif(not os.path.exists("/dev/net/tun"), reason="no /dev/net/tun")
KERNEL_WIRES = [
    pytest.param("tap:{}", marks=needs_tun),
    pytest.param("tap:{},vnet=off", marks=needs_tun),
    "packet:{}",
    "packet:{},vnet=off",
]


@pytest.mark.parametrize("vlan", VLANS)
@pytest.mark.parametrize("kind", KERNEL_WIRES)
def test_to_a_wire_of_the_kernels(kind, vlan):
    def replay() -> None:
        with kernel_wire(kind) as (machine, host):
            marker = machine.attach("marker", vlan="trunk", anti_spoof=False)

            def take() -> list[bytes]:
                assert marker.send([MARK]) == 1
                while machine.step(2):
                    pass
                return host.until_mark(MARK)

            to_a_wire(machine, vlan, take, KERNEL_LOSES[vlan])

    in_namespace(replay)


@pytest.mark.parametrize("vlan", VLANS)
@pytest.mark.parametrize("kind", KERNEL_WIRES)
def test_from_a_wire_of_the_kernels(kind, vlan):
    def replay() -> None:
        with kernel_wire(kind) as (machine, host):
            mark = tagged(MARK, 7) if vlan == 7 else MARK

            def give(frame: bytes) -> None:
                host.socket.send(mark if frame == MARK else frame)

            lost = KERNEL_RECEIVES_NONE if kind.startswith("packet") else ()  # a tap gives what it was given
            from_a_wire(machine, vlan, give, MARK, lost)

    in_namespace(replay)
