"""Each rule of the rings that a guest can break: its context stops with a reason, the others go on."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from cdna.abi import ContextState, Fault
from cdna.guest_driver.vhost_frontend import SPLIT, AttachedGuest
from cdna.guest_driver.vrings import Buffer, SplitRing
from cdna.vmm.vhost_user import VhostUserGuest
from tests.support.frames import frame
from tests.support.lab import DEADLINE
from tests.support.vhost_host import VhostHost, check_traffic, incoming, mac

INDIRECT, NEXT = 4, 1
Break = Callable[[AttachedGuest], None]
CASES: list[tuple[Fault, str, Break]] = []


def breaks(fault: Fault) -> Callable[[Break], Break]:
    def note(function: Break) -> Break:
        CASES.append((fault, function.__name__, function))
        return function

    return note


def tx(guest: AttachedGuest) -> SplitRing:
    ring = guest.tx[0]
    assert isinstance(ring, SplitRing)
    return ring


def place(guest: AttachedGuest, size: int = 4096) -> int:
    return guest.memory.alloc(size)


@breaks(Fault.FAULT_AVAIL)
def an_index_beyond_the_ring(guest: AttachedGuest) -> None:
    tx(guest).avail[1] = tx(guest).avail[1] + tx(guest).size + 1


@breaks(Fault.FAULT_CHAIN)
def a_head_outside_the_table(guest: AttachedGuest) -> None:
    tx(guest).expose(tx(guest).size)


@breaks(Fault.FAULT_CHAIN)
def a_chain_that_leaves_the_table(guest: AttachedGuest) -> None:
    tx(guest).table[0] = (place(guest), 12, NEXT, tx(guest).size)
    tx(guest).expose(0)


@breaks(Fault.FAULT_CHAIN)
def a_chain_that_loops(guest: AttachedGuest) -> None:
    tx(guest).table[0] = (place(guest), 12, NEXT, 1)
    tx(guest).table[1] = (place(guest), 12, NEXT, 0)
    tx(guest).expose(0)


@breaks(Fault.FAULT_CHAIN)
def a_chain_of_nothing_that_loops(guest: AttachedGuest) -> None:
    tx(guest).table[0] = (place(guest), 0, NEXT, 0)
    tx(guest).expose(0)


@breaks(Fault.FAULT_CHAIN)
def an_indirect_table_of_too_many(guest: AttachedGuest) -> None:
    table = guest.memory.alloc(16 * 1024, 16)
    view = guest.memory.view(table, 16 * 1024, tx(guest).table.dtype)
    for i in range(1024):
        view[i] = (place(guest, 64), 1, NEXT, i + 1)
    tx(guest).table[0] = (table, 16 * 1024, INDIRECT, 0)
    tx(guest).expose(0)


@breaks(Fault.FAULT_INDIRECT)
def a_table_in_a_table(guest: AttachedGuest) -> None:
    table = guest.memory.alloc(16, 16)
    guest.memory.view(table, 16, tx(guest).table.dtype)[0] = (table, 16, INDIRECT, 0)
    tx(guest).table[0] = (table, 16, INDIRECT, 0)
    tx(guest).expose(0)


@breaks(Fault.FAULT_INDIRECT)
def a_table_of_half_a_descriptor(guest: AttachedGuest) -> None:
    tx(guest).table[0] = (place(guest), 24, INDIRECT, 0)
    tx(guest).expose(0)


@breaks(Fault.FAULT_INDIRECT)
def a_table_outside_the_memory(guest: AttachedGuest) -> None:
    tx(guest).table[0] = (1 << 50, 16, INDIRECT, 0)
    tx(guest).expose(0)


@breaks(Fault.FAULT_DIRECTION)
def a_buffer_to_be_written_for_transmission(guest: AttachedGuest) -> None:
    tx(guest).add([Buffer(place(guest), 100, True)])


@breaks(Fault.FAULT_DIRECTION)
def a_receive_buffer_to_be_read(guest: AttachedGuest) -> None:
    guest.rx[0].table["flags"] = 0


@breaks(Fault.FAULT_HEADER)
def a_buffer_shorter_than_its_header(guest: AttachedGuest) -> None:
    tx(guest).add([Buffer(place(guest), 9)])


@breaks(Fault.FAULT_MEMORY)
def a_frame_outside_the_memory(guest: AttachedGuest) -> None:
    tx(guest).add([Buffer(1 << 50, 100)])


@breaks(Fault.FAULT_MEMORY)
def a_frame_that_ends_outside(guest: AttachedGuest) -> None:
    region = guest.memory.regions[0]
    tx(guest).add([Buffer(region.guest_addr + region.size - 50, 100)])


@breaks(Fault.FAULT_MEMORY)
def a_frame_at_the_end_of_all_addresses(guest: AttachedGuest) -> None:
    tx(guest).add([Buffer((1 << 64) - 50, 100)])


@breaks(Fault.FAULT_MEMORY)
def a_receive_buffer_outside_the_memory(guest: AttachedGuest) -> None:
    guest.rx[0].table["addr"] = 1 << 50


@breaks(Fault.FAULT_MEMORY_GONE)
def a_memory_file_that_shrinks(guest: AttachedGuest) -> None:
    os.ftruncate(guest.memory.fd, 0)


def test_every_reason_is_provoked() -> None:
    assert {fault for fault, _, _ in CASES} == {fault for fault in Fault if fault >= Fault.FAULT_AVAIL}


@pytest.mark.parametrize(
    ("fault", "break_rule"), [(f, b) for f, _, b in CASES], ids=[name for _, name, _ in CASES]
)
def test_the_offender_stops_and_nobody_else_loses_a_frame(
    host: VhostHost, fault: Fault, break_rule: Break
) -> None:
    offender, honest = host.add("offender", 10), host.add("honest", 11)
    bad, good = host.attach(offender), host.attach(honest)
    check_traffic(host, offender, bad)
    break_rule(bad)
    host.wire.put(incoming(offender, 1))
    check_traffic(host, honest, good)
    os.ftruncate(bad.memory.fd, bad.memory.size)  # or its own driver could not look at it any more
    assert offender.context.state == ContextState.CONTEXT_FAULTED
    assert offender.context.fault is not None
    assert offender.context.fault.reason == fault
    assert bad.tx[0].failed(DEADLINE)
    assert fault.name in "".join(host.lines())
    assert honest.context.state == ContextState.CONTEXT_RUNNING
    _begin_anew(host, offender, honest, good)


def _begin_anew(
    host: VhostHost, offender: VhostUserGuest, honest: VhostUserGuest, good: AttachedGuest
) -> None:
    """A new driver at the same socket, and the two reach each other."""
    offender.reset()
    again = host.attach(offender, SPLIT)
    check_traffic(host, offender, again)
    hello = frame(mac(honest), mac(offender), 1)
    assert again.send([hello]) == 1
    host.step()
    assert good.recv() == [hello]
