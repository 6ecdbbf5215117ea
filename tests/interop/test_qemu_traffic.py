"""Two QEMU guests with a stock kernel on one `cdna serve`, whose wire is a tap of the host's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pytest

from cdna.vm.machine import VirtualMachine
from tests.support.vm import (
    DEADLINE,
    FILE_MIB,
    Lan,
    guest_hash,
    host_hash,
    host_services,
    iperf3,
    needs_vm,
    parts_hash,
    reaches,
)

pytestmark = [needs_vm, pytest.mark.timeout(300 + 2 * FILE_MIB)]


class Net(NamedTuple):
    lan: Lan
    alice: VirtualMachine
    bob: VirtualMachine


@pytest.fixture(scope="module")
def net(
    alice_and_bob: tuple[VirtualMachine, VirtualMachine], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Net]:
    alice, bob = alice_and_bob
    with Lan("alice", "bob", number=1) as lan:
        lan.give_host_address()
        lan.plug(alice)
        lan.plug(bob)
        with host_services(lan.host, tmp_path_factory.mktemp("www")):
            yield Net(lan, alice, bob)


@pytest.mark.parametrize("version", [4, 6])
def test_ping(net: Net, version: int) -> None:
    assert reaches(net.alice, net.lan.address("bob", version))
    assert reaches(net.bob, net.lan.address("alice", version))
    assert reaches(net.alice, net.lan.address("host", version))
    net.lan.host.run("ping", "-n", "-c", "1", "-w", "10", net.lan.address("bob", version))


@pytest.mark.parametrize("way", ["", "-R", "-6", "-6 -R"])
@pytest.mark.parametrize("to", ["bob", "host"])
def test_tcp(net: Net, to: str, way: str) -> None:
    address = net.lan.address(to, 6 if "-6" in way else 4)
    assert iperf3(net.alice, address, way, mib=16)


def test_udp(net: Net) -> None:
    """Fragments among them: a datagram is longer than a frame."""
    for size in (22, 1472, 4000):
        out = net.alice.run(f"iperf3 -u -c {net.lan.address('bob')} -l {size} -b 4M -t 1", DEADLINE)
        assert "receiver" in out, out


def test_http_between_guests(net: Net) -> None:
    assert guest_hash(net.alice, net.lan.address("bob"), FILE_MIB) == parts_hash(FILE_MIB)


def test_http_from_the_host(net: Net) -> None:
    assert guest_hash(net.alice, net.lan.address("host"), FILE_MIB) == parts_hash(FILE_MIB)


def test_http_to_the_host(net: Net) -> None:
    assert host_hash(net.lan.host, net.lan.address("bob"), FILE_MIB) == parts_hash(FILE_MIB)


def test_large_pings(net: Net) -> None:
    """Datagrams of all lengths up to one and a half frames, in one or two fragments."""
    for size in (0, 1, 18, 1472, 1473, 2000):
        net.alice.run(f"/bin/ping -n -c 2 -i 0.01 -w 10 -s {size} {net.lan.address('bob')}")


def test_guests_are_left_running(net: Net) -> None:
    """What went before has left no fault behind, and both guests are connected."""
    guests = {row["guest"]: row for row in net.lan.call("list")["guests"]}
    for name in ("alice", "bob"):
        assert guests[name]["state"] == "running"
        assert guests[name]["connected"]
