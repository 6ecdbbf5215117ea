"""Hostile chains in a control queue."""

import os
import struct

import pytest

from cdna.abi import ContextState, Fault, Ring
from cdna.guest_driver.vhost_frontend import ALL_PACKED
from cdna.guest_driver.vrings import Buffer, SplitRing
from cdna.vmm.vhost_user.net_control import NetCtrl
from tests.support.control_driver import FORMATS, INDIRECT, OK, UNANSWERED
from tests.support.vhost_host import check_traffic, less, until

NEXT, TABLE = 1, 4


def faults(host, guest, driver, *reasons):
    """The context stops for this, and the frontend's error descriptor says so."""
    driver.ring.kick(always=True)
    until(lambda: guest.context.state == ContextState.CONTEXT_FAULTED)
    host.machine.vmm.collect_faults()
    report = host.machine.vmm.faults[-1]
    assert report.reason in reasons
    assert report.ring == Ring.RING_CONTROL
    until(driver.ring.failed)
    host.step()
    assert driver.memory.read(driver._ack, 1)[0] != OK


@pytest.fixture(params=["split", "packed"])
def hostile(request, control):
    guest, attached, driver = control(FORMATS[request.param])
    assert driver.command(NetCtrl.RX_ALLMULTI, b"\1") == OK
    driver.memory.write(driver._room, b"\0\1\1")
    driver.memory.write(driver._ack, bytes([UNANSWERED]))
    return guest, attached, driver


def good(driver):
    return [Buffer(driver._room, 3), Buffer(driver._ack, 1, True)]


CHAINS = {
    "nothing to write to": (lambda d: [Buffer(d._room, 3)], Fault.FAULT_DIRECTION),
    "nothing to read": (lambda d: [Buffer(d._ack, 1, True)], Fault.FAULT_HEADER),
    "half a head": (lambda d: [Buffer(d._room, 1), Buffer(d._ack, 1, True)], Fault.FAULT_HEADER),
    "no bytes to write to": (lambda d: [Buffer(d._room, 3), Buffer(d._ack, 0, True)], Fault.FAULT_DIRECTION),
    "written before read": (lambda d: [*good(d), Buffer(d._room, 3)], Fault.FAULT_DIRECTION),
    "command outside": (lambda d: [Buffer(1 << 60, 3), good(d)[1]], Fault.FAULT_MEMORY),
    "command reaches out": (lambda d: [Buffer(d._room, 1 << 30), good(d)[1]], Fault.FAULT_MEMORY),
    "command wraps": (lambda d: [Buffer((1 << 64) - 2, 3), good(d)[1]], Fault.FAULT_MEMORY),
    "answer outside": (lambda d: [good(d)[0], Buffer(0, 1, True)], Fault.FAULT_MEMORY),
    "four billion bytes": (lambda d: [Buffer(d._room, 0xFFFFFFFF), good(d)[1]], Fault.FAULT_MEMORY),
}


@pytest.mark.parametrize("indirect", [False, True], ids=["chain", "indirect"])
@pytest.mark.parametrize("case", CHAINS)
def test_a_chain_that_breaks_a_rule(host, hostile, case, indirect):
    guest, attached, driver = hostile
    make, reason = CHAINS[case]
    driver.ring.add(make(driver), indirect)
    faults(host, guest, driver, reason)
    host.detach(guest, attached)
    until(lambda: guest.context.state == ContextState.CONTEXT_RUNNING)
    check_traffic(host, guest, host.attach(guest))


def test_a_chain_too_long(host, hostile):
    guest, _, driver = hostile
    piece = Buffer(driver._room, 1)
    ring = driver.ring
    at = driver.memory.alloc(16 * 400, 16)
    if isinstance(ring, SplitRing):
        for i in range(400):
            driver.memory.write(at + 16 * i, struct.pack("<QIHH", piece.addr, 1, NEXT, i + 1))
    else:
        for i in range(400):
            driver.memory.write(at + 16 * i, struct.pack("<QIHH", piece.addr, 1, 0, 0))
    ring._indirect.clear()
    head = ring.add([Buffer(at, 16 * 400)])
    make_indirect(ring, head)
    faults(host, guest, driver, Fault.FAULT_CHAIN)


def make_indirect(ring, id):
    """Has the one descriptor of a buffer name a table."""
    if isinstance(ring, SplitRing):
        ring.table["flags"][id] = TABLE
    else:
        at = (ring.next_avail or ring.size) - 1
        ring.table["flags"][at] |= TABLE


@pytest.mark.parametrize("size", [0, 15, 17, 1 << 31])
def test_a_table_that_is_none(host, hostile, size):
    guest, _, driver = hostile
    make_indirect(driver.ring, driver.ring.add([Buffer(driver._room, size)]))
    faults(host, guest, driver, Fault.FAULT_INDIRECT)


def test_a_table_outside_memory(host, hostile):
    guest, _, driver = hostile
    make_indirect(driver.ring, driver.ring.add([Buffer(1 << 60, 32)]))
    faults(host, guest, driver, Fault.FAULT_INDIRECT)


def test_a_table_in_a_table(host, control):
    guest, _, driver = control()
    at = driver.memory.alloc(32, 16)
    driver.memory.write(at, struct.pack("<QIHH", at, 16, TABLE, 0))
    make_indirect(driver.ring, driver.ring.add([Buffer(at, 16)]))
    faults(host, guest, driver, Fault.FAULT_INDIRECT)


@pytest.mark.parametrize("wanted", ["split", "packed"])
def test_a_table_that_was_not_negotiated(host, control, wanted):
    guest, _, driver = control(less(FORMATS[wanted], INDIRECT))
    driver.ring.add(good(driver), True)
    faults(host, guest, driver, Fault.FAULT_INDIRECT)


def test_a_chain_that_loops(host, control):
    guest, _, driver = control()
    head = driver.ring.add(good(driver)[:1])
    driver.ring.table[head] = (driver._room, 3, NEXT, head)
    faults(host, guest, driver, Fault.FAULT_CHAIN)


def test_a_packed_chain_without_end(host, control):
    guest, _, driver = control(ALL_PACKED)
    driver.ring.table["flags"][1:] = NEXT
    driver.ring.table["addr"] = driver._room
    driver.ring.table["len"] = 1
    driver.ring.add(good(driver)[:1])
    driver.ring.table["flags"][0] |= NEXT
    faults(host, guest, driver, Fault.FAULT_CHAIN)


@pytest.mark.parametrize("head", [64, 65535])
def test_a_head_outside_the_ring(host, control, head):
    guest, _, driver = control()
    driver.ring.expose(head)
    faults(host, guest, driver, Fault.FAULT_CHAIN)


def test_more_available_than_the_ring_has(host, control):
    guest, _, driver = control()
    driver.ring.avail[1] = 65
    faults(host, guest, driver, Fault.FAULT_AVAIL)


def test_memory_that_shrinks(host, control):
    guest, _, driver = control()
    driver.post([b"\0\1", b"\1"])
    os.ftruncate(driver.memory.fd, 0)
    driver.ring.kick(always=True)
    until(lambda: guest.context.state == ContextState.CONTEXT_FAULTED)
    host.machine.vmm.collect_faults()
    assert host.machine.vmm.faults[-1].reason == Fault.FAULT_MEMORY_GONE
    os.ftruncate(driver.memory.fd, driver.memory.size)


def test_neighbours_notice_nothing(host, control):
    _, _, bad = control(name="bad")
    good_one, attached, driver = control(name="good", number=11)
    bad.ring.expose(1000)
    faults(host, host.server.guests[0], bad, Fault.FAULT_CHAIN)
    check_traffic(host, good_one, attached)
    assert driver.command(NetCtrl.RX_ALLMULTI, b"\1") == OK
