"""Event channels: who is told, when, and how often."""

import pytest
from tests.support.xen_parts import EventChannels, counters, is_runnable

from cdna.compare.paths.xen3.domain import Hypervisor
from tests.support.xen import ALICE, BOB, xen


@pytest.fixture
def ends(hypervisor: Hypervisor) -> tuple[EventChannels, int, EventChannels, int]:
    """Alice's end and its port, bound to Bob's; nothing is pending."""
    alice, bob = EventChannels(hypervisor, 0), EventChannels(hypervisor, 1)
    port = alice.alloc_unbound(BOB)
    remote = bob.bind_interdomain(ALICE, port)
    assert bob.upcall() == [remote]  # an event from before the binding would not be lost
    return alice, port, bob, remote


def test_an_event_arrives_once(hypervisor: Hypervisor, ends: tuple) -> None:
    alice, port, bob, remote = ends
    assert alice.send(port) == 0
    assert is_runnable(hypervisor, 1)
    assert bob.upcall_due
    assert bob.upcall() == [remote]
    assert bob.upcall() == []
    assert not alice.upcall_due


def test_only_the_first_of_several_events_is_an_interrupt(hypervisor: Hypervisor, ends: tuple) -> None:
    alice, port, bob, remote = ends
    posted = counters(hypervisor)["events_posted"]
    for _ in range(5):
        alice.send(port)
    stats = counters(hypervisor)
    assert stats["events_posted"] == posted + 1
    assert bob.upcall() == [remote]
    alice.send(port)
    assert counters(hypervisor)["events_posted"] == posted + 2


def test_a_masked_port_is_not_told(ends: tuple) -> None:
    alice, port, bob, remote = ends
    other = alice.alloc_unbound(BOB)
    other_remote = bob.bind_interdomain(ALICE, other)
    assert bob.upcall() == [other_remote]
    bob.mask(remote)
    alice.send(port)
    assert not bob.upcall_due
    alice.send(other)
    assert bob.upcall() == [other_remote]


def test_ports_that_do_not_fit_come_with_the_next_upcall(hypervisor: Hypervisor) -> None:
    alice, bob = EventChannels(hypervisor, 0), EventChannels(hypervisor, 1)
    ports = [alice.alloc_unbound(BOB) for _ in range(5)]
    remotes = [bob.bind_interdomain(ALICE, port) for port in ports]
    first = bob.upcall(limit=2)
    assert bob.upcall_due
    assert sorted(first + bob.upcall()) == remotes


def test_sends_that_are_refused(hypervisor: Hypervisor, ends: tuple) -> None:
    alice, _port, bob, _remote = ends
    unbound = alice.alloc_unbound(BOB)
    for wrong in (0, unbound, 8, 2**31):
        assert alice.send(wrong) == xen.XEN_EINVAL
    assert not bob.upcall_due


def test_bindings_that_are_refused(hypervisor: Hypervisor, ends: tuple) -> None:
    alice, port, bob, _ = ends
    for_alice = alice.alloc_unbound(ALICE)
    assert bob.bind_interdomain(ALICE, port) == xen.XEN_EINVAL  # bound already
    assert bob.bind_interdomain(ALICE, for_alice) == xen.XEN_EINVAL  # not for Bob
    assert bob.bind_interdomain(ALICE, 0) == xen.XEN_EINVAL
    assert bob.bind_interdomain(ALICE, 99) == xen.XEN_EINVAL
    assert bob.bind_interdomain(13, 1) == xen.XEN_ENOENT


def test_ports_run_out(hypervisor: Hypervisor) -> None:
    alice = EventChannels(hypervisor, 0)
    assert [alice.alloc_unbound(BOB) for _ in range(7)] == [1, 2, 3, 4, 5, 6, 7]
    assert alice.alloc_unbound(BOB) == xen.XEN_ENOSPC
