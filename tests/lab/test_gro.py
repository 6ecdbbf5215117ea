"""UDP datagrams in front of a guest's packet sockets: as they were sent, unless its device joins them."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import TypeVar

import pytest

from cdna.errors import ConfigError, ResourceError
from cdna.lab.gro import GRO, JOINS_UDP
from cdna.lab.lab import Lab
from cdna.lab.namespace import in_thread
from tests.lab.test_lab import plan, reaches, sock_in
from tests.support.lab import DEADLINE, needs_namespaces

pytestmark = needs_namespaces

COUNT, SIZE = 200, 100
ETH_P_IP = 0x0800
HEADERS = 14 + 20 + 8
Result = TypeVar("Result")


def inside(lab: Lab, guest: str, function: Callable[[], Result]) -> Result:
    """What `function` returns in a thread inside the guest."""

    def run() -> Result:
        from pyroute2.netns import setns

        setns(lab.member(guest).namespace.fd)
        return function()

    return in_thread(run)


def packet_socket() -> socket.socket:
    sniffer = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    sniffer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    sniffer.bind(("eth0", ETH_P_IP))
    sniffer.settimeout(DEADLINE)
    return sniffer


def seen(lab: Lab) -> list[int]:
    """Bytes of UDP payload in each frame that a packet socket of g2 sees of COUNT datagrams from g1."""
    assert reaches(lab, "g1", "g2")  # and each knows the other's address
    with (
        inside(lab, "g2", packet_socket) as sniffer,
        sock_in(lab, "g2") as receiver,
        sock_in(lab, "g1") as sender,
    ):
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        sender.connect(receiver.getsockname())
        with lab.machine.nic.quiesced():  # they wait in the tap, and are there all at once
            for number in range(COUNT):
                sender.send(bytes([number]) * SIZE)
        sizes: list[int] = []
        while sum(sizes) < COUNT * SIZE:
            frame = sniffer.recv(70000)
            if frame[23] == socket.IPPROTO_UDP and frame[36:38] == receiver.getsockname()[1].to_bytes(
                2, "big"
            ):
                sizes.append(len(frame) - HEADERS)
        assert [receiver.recv(1000) for _ in range(COUNT)] == [bytes([n]) * SIZE for n in range(COUNT)]
    return sizes


def ethtool(lab: Lab, guest: str, name: str, on: bool) -> None:
    """As ethtool -K eth0 inside the guest."""

    def switch() -> None:
        from pyroute2.ethtool.ioctl import IoctlEthtool

        device = IoctlEthtool("eth0")
        features = device.get_features()
        features[name] = on
        device.set_features(features)
        device.close()

    inside(lab, guest, switch)


def test_datagrams_stay_apart_unless_somebody_asks() -> None:
    with Lab(plan(2)) as lab:
        assert seen(lab) == [SIZE] * COUNT
        assert lab.detail("g2")["gro"] is False


def test_the_setting_joins_them() -> None:
    with Lab(plan(2, gro="on")) as lab:
        assert lab.detail("g2")["gro"] is True
        assert max(seen(lab)) > SIZE


def test_the_setting_changes_while_the_guest_runs() -> None:
    with Lab(plan(2)) as lab:
        lab.change("g2", {"gro": "on"})
        assert max(seen(lab)) > SIZE
        lab.change("g2", {"protection": "none"})  # a context of another kind, the same device
        assert max(seen(lab)) > SIZE
        lab.change("g2", {"gro": "off"})
        assert seen(lab) == [SIZE] * COUNT


def test_the_device_says_so_too() -> None:
    """What programs inside change by ethtool -K is noticed with the next sample, one a second."""
    with Lab(plan(2)) as lab:
        ethtool(lab, "g2", JOINS_UDP, True)
        lab.sample()
        assert max(seen(lab)) > SIZE
        ethtool(lab, "g2", GRO, False)
        lab.sample()
        assert seen(lab) == [SIZE] * COUNT
        assert lab.detail("g2")["gro"] is False


def test_a_guest_without_its_device_joins_nothing() -> None:
    with Lab(plan(1)) as lab:
        namespace = lab.member("g1").namespace
        namespace.set_gro(True)
        namespace.run(
            lambda netlink: netlink.link("set", index=netlink.link_lookup(ifname="eth0")[0], ifname="e")
        )
        assert not namespace.gro
        with pytest.raises(ResourceError, match="eth0 with gro on: the device is gone"):
            lab.change("g1", {"gro": "on"})
        lab.sample()


def test_only_on_or_off() -> None:
    with pytest.raises(ConfigError, match="gro maybe: give one of on, off"):
        plan(1, gro="maybe")
