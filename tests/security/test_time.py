"""What a guest can take of its neighbours' time, where the engine's own accounts say whose it was.

How long anything takes here is not judged: times are compared with each other.
"""

import os
import select

import pytest

from cdna.fuzz.rivals import OUTSIDE, Course, VirtioRival, frame, honest
from cdna.machine import Machine
from tests.support.vhost_host import until

LOOKS = 200
ENTRIES = 40, 40  # descriptors in each of so many epolls
SLACK = 0.2  # of a guest's time: some turns, and one that another thread made long


@pytest.fixture
def course():
    with Course(8) as course:
        yield course


def had(course: Course, rival: VirtioRival) -> int:
    """Nanoseconds of the core that a guest has paid for."""
    time = course.machine.nic.time(rival.context.index)
    return sum(time[what] for what in ("transmit", "receive", "signal"))


def test_interrupts_that_cost_much(course):
    """Each write to its call descriptor wakes hundreds of waiters: the engine has somebody else write it."""
    good, bad = honest(course), honest(course)
    copies = [os.dup(bad.tx.call_fd) for _ in range(ENTRIES[0])]
    epolls = [select.epoll() for _ in range(ENTRIES[1])]
    for epoll in epolls:
        for copy in copies:
            epoll.register(copy, select.EPOLLIN | select.EPOLLET)
    try:
        for _ in range(LOOKS):
            course.step()
    finally:
        for epoll in epolls:
            epoll.close()
        for copy in copies:
            os.close(copy)
    assert course.machine.nic.counters["slow_signals"] > 0
    time = course.machine.nic.time(bad.context.index)
    assert time["signal"] < time["transmit"]
    assert had(course, good) > (1 - SLACK) * had(course, bad)
    assert good.sent() > (1 - SLACK) * bad.sent()


def test_memory_is_unmapped_while_the_engine_runs():
    """What takes as long as a guest makes it is done when the others have their turns again."""
    with Machine(contexts=4) as machine:
        nic, called = machine.nic, []

        def call():
            rounds = nic.counters["rounds"]
            until(lambda: nic.counters["rounds"] > rounds)
            called.append("rounds went on")

        with nic.quiesced():
            nic.afterwards(call)
            rounds = nic.counters["rounds"]
            assert nic.counters["rounds"] == rounds
            assert called == []
        assert called == ["rounds went on"]


def test_a_guest_with_a_rate_has_no_more_time_for_it(course):
    """Frames of 14 bytes, as many as it may send: the rest of its time is the others'."""
    good = honest(course)
    bad = course.virtio(settings={"rate": 8000})
    bad.send([frame(OUTSIDE, bad.mac, 14)])
    for _ in range(LOOKS):
        course.step()
    assert bad.sent() > 0
    assert had(course, good) > 4 * had(course, bad)
