"""The log of what was written, which a frontend places where it likes."""

import os

import numpy as np
import pytest

from cdna.guest_driver.vhost_frontend import ALL_PACKED, SPLIT
from cdna.protocol.vhost_user import LOG, Request
from cdna.virtio import Feature
from tests.support.vhost_host import incoming, outgoing

LOG_ALL = 1 << Feature.VHOST_F_LOG_ALL
PAGE = 4096
BOTH = pytest.mark.parametrize("wanted", [SPLIT, ALL_PACKED], ids=["split", "packed"])


@pytest.fixture
def log_file():
    """Three pages; the log is to be the one in the middle."""
    fd = os.memfd_create("log", os.MFD_CLOEXEC)
    os.ftruncate(fd, 3 * PAGE)
    yield fd
    os.close(fd)


def start_log(scene, fd, used_ring=None):
    frontend = scene.frontend
    frontend.set_log(fd, PAGE, PAGE)
    frontend.put(Request.SET_FEATURES, frontend.features | LOG_ALL)
    for queue, ring in enumerate(scene.bad.driver.queues):
        frontend.addresses(queue, ring, log=ring.device if used_ring is None else used_ring)
    frontend.sync()


@pytest.mark.parametrize(("wanted", "memory_at"), [(SPLIT, 32767), (ALL_PACKED, 32766), (SPLIT, 32700)])
def test_a_log_that_is_shorter_than_memory(attack, host, log_file, wanted, memory_at):
    """It has bits for 32768 pages, and the guest's memory begins a little below there, or at."""
    scene = attack(wanted, memory=host.memory(guest_addr=memory_at * PAGE))
    start_log(scene, log_file)
    for number in range(0, 60, 10):
        host.wire.put(incoming(scene.offender, 10, 1000, number))
        scene.step()
        scene.bad.recv()
    data = np.frombuffer(os.pread(log_file, 3 * PAGE, 0), np.uint8)
    assert not data[:PAGE].any()
    assert not data[2 * PAGE :].any()
    marked = np.flatnonzero(np.unpackbits(data[PAGE : 2 * PAGE], bitorder="little"))
    assert len(marked)
    assert marked.min() >= memory_at
    assert scene.fault is None
    scene.unharmed()


@pytest.mark.parametrize("address", [(1 << 27) - 4, 1 << 27, 1 << 50, (1 << 64) - 1, (1 << 64) - 8])
def test_a_used_ring_that_is_logged_elsewhere(attack, host, log_file, address):
    """The address for the log is the frontend's word, and need not be the ring's."""
    scene = attack(memory=host.memory(guest_addr=1 << 30))
    start_log(scene, log_file, address)
    scene.bad.send(outgoing(scene.offender, 10))
    host.wire.put(incoming(scene.offender, 10))
    scene.step()
    data = os.pread(log_file, 3 * PAGE, 0)
    assert not any(data[:PAGE])
    assert not any(data[2 * PAGE :])
    scene.unharmed()


def test_logs_that_cannot_be(attack, log_file):
    """Behind the file's end, around the end of all numbers, of a size that 32 bits take for a page."""
    scene = attack()
    top = 1 << 64
    scene.frontend.send(Request.POSTCOPY_ADVISE)
    cases = [
        (3 * PAGE + 1, 0),
        (PAGE, 3 * PAGE),
        (PAGE, top - PAGE),
        (top - PAGE, 2 * PAGE),
        (top - 1, 0),
        ((1 << 32) + PAGE, 0),
        (PAGE, (1 << 32) + PAGE),
        (0, 0),
        (PAGE, 1),
    ]
    for size, offset in cases:
        scene.reconnect(SPLIT | LOG_ALL)
        scene.frontend.send(Request.SET_LOG_BASE, LOG.pack(size, offset), [log_file])
    assert scene.frontend.ended()
    assert all("SET_LOG_BASE: " in line for line in scene.host.lines()[1:])
    assert len(scene.host.lines()) == len(cases) + 1
    scene.unharmed()


@BOTH
def test_a_log_that_shrinks(attack, host, log_file, wanted):
    """It is the frontend's file, and the NIC writes it with every frame."""
    scene = attack(wanted, memory=host.memory(guest_addr=1 << 20))
    start_log(scene, log_file)
    os.ftruncate(log_file, 0)
    host.wire.put(incoming(scene.offender, 4))
    scene.step()
    assert scene.fault is not None
    assert scene.fault.name == "FAULT_MEMORY_GONE"
    scene.unharmed()


def test_a_log_outlives_nobody(attack, host, log_file):
    """When its frontend has gone, or wants no log, nothing is written there any more."""
    scene = attack(memory=host.memory(guest_addr=1 << 20))
    start_log(scene, log_file)
    host.wire.put(incoming(scene.offender, 4))
    scene.step()
    assert any(os.pread(log_file, 3 * PAGE, 0))
    os.pwrite(log_file, bytes(3 * PAGE), 0)
    host.detach(scene.offender, scene.bad)
    host.wire.put(incoming(scene.offender, 4))
    scene.step()
    assert not any(os.pread(log_file, 3 * PAGE, 0))
    scene.unharmed()
