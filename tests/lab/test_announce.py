"""Guests that come, are plugged in again or change their MAC address tell their neighbours."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import replace

import pytest

from cdna.base.units import parse_mac
from cdna.lab.kinds.namespace.member import NamespaceMember
from cdna.lab.lab import Lab
from cdna.lab.namespace import in_thread
from tests.lab.test_lab import plan, reaches
from tests.support.lab import DEADLINE, needs_namespaces, wait_for

pytestmark = needs_namespaces
ETH_P_ARP, ETH_P_IPV6 = 0x0806, 0x86DD
NEIGHBOUR_ADVERTISEMENT = 136


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab(plan(2)) as lab:
        yield lab


def known_at(lab: Lab, guest: str, address: str) -> str | None:
    """The MAC address that a guest believes another address to be at."""
    for entry in lab.member(guest).namespace.run(lambda netlink: netlink.get_neighbours()):
        if entry.get("dst") == address:
            mac: str | None = entry.get("lladdr")
            return mac
    return None


def listen(lab: Lab, guest: str, ethertype: int) -> socket.socket:
    """A packet socket of a guest."""

    def make() -> socket.socket:
        from pyroute2.netns import setns

        setns(lab.member(guest).namespace.fd)
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        sock.bind(("eth0", ethertype))
        sock.settimeout(DEADLINE)
        return sock

    return in_thread(make)


def hears(sock: socket.socket, mac: str, *words: bytes) -> None:
    """Waits for a frame of this source address that contains these bytes."""
    source = parse_mac(mac)
    while True:
        frame = sock.recv(2000)
        if frame[6:12] == source and all(word in frame for word in words):
            return


def test_an_address_of_another_guest_now(lab: Lab) -> None:
    assert reaches(lab, "g1", "g2")
    assert reaches(lab, "g1", "g2", 6)
    before = lab.member("g2").context.mac
    assert known_at(lab, "g1", "10.77.0.2") == known_at(lab, "g1", "fd77::2") == before
    lab.remove("g2")
    lab.add({"name": "filler", "address": "10.77.0.50"})  # on g2's context
    lab.add({"name": "heir", "address": ["10.77.0.2", "fd77::2"]})
    now = lab.member("heir").context.mac
    assert now != before
    # Nobody sends anything: without an announcement g1 would believe the old address.
    wait_for(lambda: known_at(lab, "g1", "10.77.0.2") == now)
    wait_for(lambda: known_at(lab, "g1", "fd77::2") == now)


def test_a_cable_that_is_plugged_in_again(lab: Lab) -> None:
    mac = lab.member("g2").context.mac
    lab.set_link("g2", False)
    with listen(lab, "g1", ETH_P_ARP) as arp, listen(lab, "g1", ETH_P_IPV6) as ndp:
        lab.set_link("g2", True)
        hears(arp, mac, socket.inet_aton("10.77.0.2") + bytes(6) + socket.inet_aton("10.77.0.2"))
        target = socket.inet_pton(socket.AF_INET6, "fd77::2")
        hears(ndp, mac, bytes([NEIGHBOUR_ADVERTISEMENT, 0]), target)


def test_another_mac_address_inside() -> None:
    before = plan(2)
    guests = (before.guests[0], replace(before.guests[1], anti_spoof=False))
    with Lab(replace(before, guests=guests)) as lab:
        assert reaches(lab, "g1", "g2")
        member = lab.member("g2")
        assert isinstance(member, NamespaceMember)
        other = "02:00:00:00:00:99"
        member.namespace.run(lambda netlink: netlink.link("set", index=eth0(netlink), address=other))
        wait_for(lambda: known_at(lab, "g1", "10.77.0.2") == other)


def eth0(netlink: object) -> int:
    index: int = netlink.link_lookup(ifname="eth0")[0]  # type: ignore[attr-defined]
    return index


def test_a_guest_without_its_device_hinders_nobody(lab: Lab) -> None:
    lab.set_link("g2", False)
    lab.member("g2").namespace.run(lambda netlink: netlink.link("del", index=eth0(netlink)))
    lab.set_link("g2", True)
    assert [row["guest"] for row in lab.describe()] == ["g1", "g2"]
