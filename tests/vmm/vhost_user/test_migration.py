"""The dirty log, and a guest that is moved from one NIC to another with its rings as they are."""

import os

import numpy as np
import pytest

from cdna.guest_driver.vhost_frontend import ALL_PACKED, SPLIT
from cdna.guest_driver.vrings import GuestMemory
from cdna.protocol.vhost_user import Request
from cdna.virtio import Feature
from tests.support.vhost_host import VhostHost, check_traffic, incoming, mac, outgoing

PAGE = 4096
LOG_ALL = 1 << Feature.VHOST_F_LOG_ALL
LOG_BYTES = ((1 << 32) + (8 << 20)) // PAGE // 8  # a driver's memory begins at 4 GiB
FORMATS = pytest.mark.parametrize("wanted", [SPLIT | LOG_ALL, ALL_PACKED | LOG_ALL], ids=["split", "packed"])


class DirtyLog:
    """A log as a frontend keeps it: a bit a page."""

    def __init__(self, size=LOG_BYTES, offset=PAGE):
        self.memory = GuestMemory(offset + size)
        self.size, self.offset = size, offset
        self.bytes = self.memory.bytes[offset : offset + size]

    def take(self):
        """Guest addresses of the pages that were written since the last call."""
        pages = np.flatnonzero(np.unpackbits(self.bytes, bitorder="little"))
        self.bytes[:] = 0
        return [int(page) * PAGE for page in pages]

    def start(self, attached):
        """In the order of QEMU's messages."""
        frontend = attached.frontend
        frontend.set_log(self.memory.fd, self.size, self.offset)
        frontend.put(Request.SET_FEATURES, frontend.features)
        for queue, ring in enumerate(attached.driver.queues):
            frontend.addresses(queue, ring, log=ring.device)
        frontend.sync()

    def stop(self, attached):
        frontend = attached.frontend
        frontend.put(Request.SET_FEATURES, frontend.features & ~LOG_ALL)
        for queue, ring in enumerate(attached.driver.queues):
            frontend.addresses(queue, ring)
        frontend.sync()


@pytest.fixture
def log():
    log = DirtyLog()
    yield log
    log.memory.close()


def unlogged(host, guest, wanted, **options):
    """A guest whose rings run, and are not logged yet."""
    attached = host.attach(guest, wanted & ~LOG_ALL, **options)
    attached.frontend.features |= LOG_ALL
    return attached


@FORMATS
def test_what_is_written_is_logged_while_it_is_wanted(host, guest, log, wanted):
    attached = unlogged(host, guest, wanted)
    check_traffic(host, guest, attached)
    assert log.take() == []
    log.start(attached)
    host.wire.put(incoming(guest, 3, 1000))
    host.step()
    written = log.take()
    attached.recv()
    assert 1 <= len(written) <= 12
    log.stop(attached)
    check_traffic(host, guest, attached)
    assert log.take() == []


@FORMATS
@pytest.mark.parametrize(
    "options", [{}, {"rx_room": 256}, {"size": 256}], ids=["", "mergeable", "long rings"]
)
def test_no_page_is_forgotten(host, guest, log, wanted, options):
    """The device writes and the driver rests: a copy of the logged pages makes two memories the same."""
    attached = unlogged(host, guest, wanted, **options)
    source = attached.memory
    for _ in range(7):
        check_traffic(host, guest, attached)
    attached.send(outgoing(guest, 20))
    log.start(attached)
    copy = source.bytes.copy()
    host.wire.put(incoming(guest, 8, 1514))
    host.step()
    host.wire.get()
    written = log.take()
    assert not np.array_equal(copy, source.bytes)
    for addr in written:
        at = source.offset(addr)
        copy[at : at + PAGE] = source.bytes[at : at + PAGE]
    assert np.array_equal(copy, source.bytes)
    assert len(written) * PAGE < source.size // 10


def test_a_log_that_is_too_small_keeps_to_itself(host, guest):
    attached = unlogged(host, guest, SPLIT | LOG_ALL)
    log = DirtyLog(PAGE, PAGE)  # of the first 128 MiB, where there is no memory
    log.start(attached)
    check_traffic(host, guest, attached)
    assert log.take() == []
    assert not log.memory.bytes.any()
    log.memory.close()


def test_a_log_may_be_replaced_while_rings_run(host, guest, log):
    attached = unlogged(host, guest, SPLIT | LOG_ALL)
    log.start(attached)
    check_traffic(host, guest, attached)
    assert log.take()
    second = DirtyLog()
    second.start(attached)
    check_traffic(host, guest, attached)
    assert second.take()
    assert log.take() == []
    second.memory.close()


@FORMATS
def test_a_guest_moves_to_another_nic(host, guest, log, wanted, tmp_path):
    """Log, copy, stop, copy the rest, start elsewhere: what had arrived is there, what was to go out goes."""
    attached = unlogged(host, guest, wanted)
    source, driver = attached.memory, attached.driver
    check_traffic(host, guest, attached)
    log.start(attached)
    driver.send(outgoing(guest, 10))
    copy = source.bytes.copy()
    arrived = incoming(guest, 10, 1000)
    host.wire.put(arrived)
    host.step()
    assert host.wire.get() == outgoing(guest, 10)
    bases = attached.stop()
    for addr in log.take():
        at = source.offset(addr)
        copy[at : at + PAGE] = source.bytes[at : at + PAGE]

    folder = tmp_path / "there"
    folder.mkdir()
    there = VhostHost(folder)
    try:
        target = there.memory()
        target.bytes[:] = copy
        driver.move(target)
        moved = there.add()
        frontend = there.connect(moved, target)
        frontend.negotiate(wanted & ~LOG_ALL)
        frontend.give_memory()
        for queue, ring in enumerate(driver.queues):
            frontend.start(queue, ring, base=bases[queue])
        frontend.send(Request.SEND_RARP, mac(moved) + b"\0\0")
        frontend.sync()
        there.step()
        (rarp,) = there.wire.get()
        assert rarp[6:12] == mac(moved)
        assert driver.recv() == arrived
        assert driver.reclaim() == 10
        check_traffic(there, moved, driver)
        there.clear()
    finally:
        there.close()


def test_the_log_is_let_go_with_its_frontend(host, guest, log):
    attached = unlogged(host, guest, SPLIT | LOG_ALL)
    held = host.held()
    log.start(attached)
    assert host.held()["maps"] == held["maps"] + 1
    host.detach(guest, attached)
    assert host.held()["maps"] < held["maps"]
    assert os.fstat(log.memory.fd).st_size == LOG_BYTES + PAGE
