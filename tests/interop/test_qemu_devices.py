"""What happens to a device while its guest runs: queues, links, reset, unplugging."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from cdna.virtio import Feature
from cdna.vm.machine import VirtualMachine
from tests.support.vm import Lan, features, iperf3, needs_vm, reaches, start_services, wait_for

pytestmark = [needs_vm, pytest.mark.timeout(300)]

Guests = tuple[VirtualMachine, VirtualMachine]


@pytest.fixture(scope="module")
def lan(alice_and_bob: Guests) -> Iterator[Lan]:
    with Lan("alice,queues=4", "bob", number=3) as lan:
        lan.plug(alice_and_bob[1])
        yield lan


@pytest.fixture
def alice(lan: Lan, alice_and_bob: Guests) -> Iterator[VirtualMachine]:
    """alice, plugged in as the test says by its parameter."""
    yield alice_and_bob[0]
    lan.unplug(alice_and_bob[0])


@pytest.mark.parametrize("packed", [False, True])
def test_multiqueue(lan: Lan, alice: VirtualMachine, packed: bool) -> None:
    lan.plug(alice, queues=4, packed=packed)
    assert Feature.VIRTIO_NET_F_MQ in features(alice)
    alice.run("ethtool -L eth0 combined 4")
    for way in ("", "-R"):
        assert iperf3(alice, lan.address("bob"), "-P 8", way, mib=32)
    frames = _frames_by_queue(alice)
    for direction in ("rx", "tx"):
        busy = [name for name, count in frames.items() if name.startswith(direction) and count > 10]
        assert len(busy) >= 2, frames
    alice.run("ethtool -L eth0 combined 1")
    assert reaches(alice, lan.address("bob"))
    alice.run("ethtool -L eth0 combined 3")
    assert iperf3(alice, lan.address("bob"), "-P 4 -R", mib=4)


def _frames_by_queue(guest: VirtualMachine) -> dict[str, int]:
    found = re.findall(r"([rt]x)_queue_(\d+)_packets: (\d+)", guest.run("ethtool -S eth0"))
    return {direction + number: int(count) for direction, number, count in found}


def test_legacy_device(lan: Lan, alice: VirtualMachine) -> None:
    """Virtio before 1.0: registers in I/O ports, rings without VERSION_1."""
    lan.plug(alice, **{"disable-modern": True, "disable-legacy": "off"})
    assert Feature.VIRTIO_F_VERSION_1 not in features(alice)
    for way in ("", "-R"):
        assert iperf3(alice, lan.address("bob"), way, mib=4)


@pytest.mark.parametrize("size", [64, 1024])
def test_ring_sizes(lan: Lan, alice: VirtualMachine, size: int) -> None:
    lan.plug(alice, rx_queue_size=max(size, 256), tx_queue_size=max(size, 256))
    assert iperf3(alice, lan.address("bob"), "-R", mib=4)


def test_link_down_and_up(lan: Lan, alice: VirtualMachine) -> None:
    lan.plug(alice)
    assert reaches(alice, lan.address("bob"))
    lan.call("link", guest="alice", up=False)
    assert alice.status(f"/bin/ping -n -c 3 -i 0.2 -w 1 {lan.address('bob')}") != 0
    lan.call("link", guest="alice", up=True)
    assert reaches(alice, lan.address("bob"))


def test_link_of_qemu_down_and_up(lan: Lan, alice: VirtualMachine) -> None:
    """QEMU tells the guest, and stops or starts the device."""
    nic = lan.plug(alice)
    assert reaches(alice, lan.address("bob"))
    alice.qmp("set_link", name=nic.name, up=False)
    wait_for(lambda: alice.run("cat /sys/class/net/eth0/carrier") == "0\n", "the link's end")
    alice.qmp("set_link", name=nic.name, up=True)
    wait_for(lambda: alice.run("cat /sys/class/net/eth0/carrier") == "1\n", "the link")
    assert reaches(alice, lan.address("bob"))


def test_interface_down_and_up(lan: Lan, alice: VirtualMachine) -> None:
    lan.plug(alice)
    for _ in range(3):
        assert reaches(alice, lan.address("bob"))
        alice.run("ip link set eth0 down; ip link set eth0 up")
    assert iperf3(alice, lan.address("bob"), mib=4)


def test_driver_unbound_and_bound(lan: Lan, alice: VirtualMachine) -> None:
    """The driver resets the device and begins anew."""
    lan.plug(alice)
    device = alice.run("basename $(readlink /sys/class/net/eth0/device)").strip()
    for _ in range(2):
        alice.run(f"cd /sys/bus/virtio/drivers/virtio_net; echo {device} >unbind; echo {device} >bind")
        lan.configure(alice)
        assert iperf3(alice, lan.address("bob"), mib=4)


def test_unplugged_and_plugged(lan: Lan, alice: VirtualMachine) -> None:
    for _ in range(2):
        lan.plug(alice)
        assert iperf3(alice, lan.address("bob"), mib=4)
        lan.unplug(alice)
        assert alice.status("[ -e /sys/class/net/eth0 ]") != 0
        wait_for(lambda: not _connected(lan, "alice"), "the end of the connection")
    lan.plug(alice)
    assert reaches(alice, lan.address("bob"))


def test_reset_by_rebooting(lan: Lan, alice: VirtualMachine, alice_and_bob: Guests) -> None:
    _, bob = alice_and_bob
    lan.plug(alice)
    assert reaches(bob, lan.address("alice"))
    bob.reset()
    start_services(bob)
    lan.configure(bob)
    for way in ("", "-R"):
        assert iperf3(bob, lan.address("alice"), way, mib=4)


def _connected(lan: Lan, name: str) -> bool:
    (row,) = [row for row in lan.call("list")["guests"] if row["guest"] == name]
    return bool(row["connected"])
