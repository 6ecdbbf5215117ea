"""Guests that boot once for all tests with real virtual machines; each module plugs them into a network."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cdna.vm.machine import VirtualMachine
from tests.support.vm import start_services


@pytest.fixture(scope="session")
def alice_and_bob() -> Iterator[tuple[VirtualMachine, VirtualMachine]]:
    """Two guests without a network, with iperf3 and HTTP servers. alice has four processors."""
    with VirtualMachine("alice", cpus=4) as alice, VirtualMachine("bob") as bob:
        for guest in (alice, bob):
            start_services(guest)
        yield alice, bob
