"""Descriptors that take long to signal: a second thread signals them, and the engine does not wait."""

import os
import select
import threading

import pytest

from cdna.protocol.vhost_user import Request
from tests.nic.test_time import Sender, step
from tests.support.lab import DEADLINE
from tests.support.vhost_host import VhostHost
from tests.support.waiters import many_waiters

ROUNDS = 200


@pytest.fixture
def host(tmp_path):
    host = VhostHost(tmp_path)
    yield host
    host.close()


@pytest.fixture
def slow(host):
    """A guest whose calls are slow, and the NIC knows it."""
    sender = Sender(host, "slow", 1)
    with many_waiters(sender.attached.tx[0].call_fd):
        while not host.machine.nic.counters["slow_signals"]:
            step(host, [sender], rounds=1)
        yield sender


def signalled(host, sender, rounds):
    before = host.machine.nic.time(sender.index)["signal"]
    step(host, [sender], rounds)
    return host.machine.nic.time(sender.index)["signal"] - before


def test_the_engine_does_not_wait_for_slow_signals(host, slow):
    """One of them takes a third of a millisecond: all of these together take less than ten would."""
    assert signalled(host, slow, ROUNDS) < ROUNDS * 15_000


def told(fd, timeout=0.0):
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(1000 * timeout)) and os.eventfd_read(fd) > 0


def test_the_guest_is_told_all_the_same(host, slow):
    call = slow.attached.tx[0].call_fd
    for _ in range(10):
        before = slow.guest.context.stats()["interrupts"]
        while slow.guest.context.stats()["interrupts"] == before:
            step(host, [slow], rounds=1)
        assert told(call, DEADLINE)


def test_a_descriptor_that_was_taken_back_is_signalled_no_more(host, slow):
    """Its number is another file's then."""
    step(host, [slow], rounds=1)
    frontend = slow.attached.frontend
    for _ in range(20):
        frontend.file(Request.SET_VRING_CALL, 1, None)
        frontend.sync()
        others = [os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK) for _ in range(4)]
        frontend.file(Request.SET_VRING_CALL, 1, slow.attached.tx[0].call_fd)
        frontend.sync()
        step(host, [slow], rounds=1)
        assert not any(told(other) for other in others)
        for other in others:
            os.close(other)


def test_the_second_thread_ends_with_the_last_device(host):
    def threads():
        return [thread for thread in threading.enumerate() if thread.name == "cdna-signals"]

    first, second = (Sender(host, name, number) for number, name in enumerate(("first", "second"), 1))
    (thread,) = threads()
    host.server.remove(first.guest)
    assert thread.is_alive()
    host.server.remove(second.guest)
    assert not thread.is_alive()
