"""The pump beside an interface that takes frames more slowly than they come."""

import contextlib
import socket
from pathlib import Path

import pytest

from cdna.nic.packet_wire import PacketWire
from tests.guests.test_pump import HEADER, Lab
from tests.support.frames import OUTSIDE, frame, mac
from tests.support.namespace import host_end, in_namespace, make_veth

WIRE, FAR = "cdna-test0", "cdna-test1"


def slow_down(name):
    """Gives an interface a queue of 8 Mbit/s, which holds what waits."""
    from pyroute2 import IPRoute, NetlinkError

    with IPRoute() as netlink:
        index = socket.if_nametoindex(name)
        try:
            netlink.tc("add", "tbf", index=index, handle="1:", rate="8mbit", burst=3000, limit=1 << 20)
        except NetlinkError as error:
            pytest.skip(f"no token bucket filter: {error}")


def test_what_waits_in_the_ring_is_sent_though_nothing_else_happens():
    """The kernel takes a few frames at a time: no descriptor says when it takes more."""

    def run():
        with contextlib.suppress(OSError):  # or its own frames, now and then, would wake the loop
            Path("/proc/sys/net/ipv6/conf/default/disable_ipv6").write_text("1")
        make_veth(WIRE, FAR)
        slow_down(WIRE)
        wire = PacketWire(WIRE)
        lab = Lab(spin_us=0.0, wire=wire)
        with socket.socket(fileno=socket.dup(wire.fileno())) as sender, host_end(FAR) as far:
            sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)  # the least that there is
            alice, stack = lab.guest("alice")
            lab.start()
            frames = [frame(OUTSIDE, mac(alice), number, 1000) for number in range(40)]
            try:
                for data in frames:
                    stack.send(HEADER + data)
                assert [far.recv(2000) for _ in frames] == frames
            finally:
                lab.close()

    in_namespace(run)
