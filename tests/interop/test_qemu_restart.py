"""The server is killed and started again while a guest downloads; the guest's TCP stream goes on."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest

from cdna.vm.machine import VirtualMachine
from tests.support.vm import DEADLINE, Lan, fetch, needs_vm, parts_hash, wait_for

pytestmark = [needs_vm, pytest.mark.timeout(300)]

MIB = 48
Guests = tuple[VirtualMachine, VirtualMachine]


@pytest.fixture(scope="module")
def lan(alice_and_bob: Guests) -> Iterator[Lan]:
    with Lan("alice", "bob", number=4) as lan:
        yield lan


@pytest.mark.parametrize("packed", [False, True], ids=["split", "packed"])
def test_tcp_outlives_the_server(
    request: pytest.FixtureRequest, lan: Lan, alice_and_bob: Guests, packed: bool
) -> None:
    """QEMU 7.2 does not know how far packed rings are; the guest's memory says it."""
    alice, bob = alice_and_bob
    for guest in (alice, bob):
        lan.plug(guest, packed=packed)
        request.addfinalizer(partial(lan.unplug, guest))
    download = alice.start(fetch(lan.address("bob"), MIB))
    for _ in range(2):
        before = _received(alice)
        wait_for(lambda before=before: _received(alice) > before + (2 << 20), "traffic")
        lan.server.kill()
        lan.server.start()
    ended = alice.result(download, DEADLINE, "the download")
    assert ended.output.strip() == parts_hash(MIB)


def _received(guest: VirtualMachine) -> int:
    return int(guest.run("cat /sys/class/net/eth0/statistics/rx_bytes"))
