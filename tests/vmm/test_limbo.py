"""Unmapped I/O pages wait while a NIC stands in the middle of a round; they have so much room."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator

from cdna.guests.hostile import Hostile
from cdna.machine import Machine

MANY = 4096  # more than can wait of a guest of 16 pages


@contextlib.contextmanager
def nic_that_stands(machine: Machine) -> Iterator[None]:
    """The engine runs in a process of its own, which is stopped meanwhile."""
    child = os.fork()
    if child == 0:
        try:
            machine.nic.run()
        finally:
            os._exit(0)
    try:
        deadline = time.monotonic() + 20
        while not machine.nic.alive:
            assert time.monotonic() < deadline, "waited in vain"
        os.kill(child, signal.SIGSTOP)
        _, status = os.waitpid(child, os.WUNTRACED)
        assert os.WIFSTOPPED(status), "it ended"
        assert machine.nic.alive
        yield
    finally:
        machine.nic.request_stop()
        os.kill(child, signal.SIGCONT)
        os.waitpid(child, 0)


def test_no_more_pages_are_unmapped_than_can_wait():
    with contextlib.closing(Machine(4 << 20, contexts=4)) as machine:
        hostile = Hostile(machine, pages=16, protection="iommu:single-use")
        waiting = 0
        with nic_that_stands(machine):
            while waiting < MANY and hostile.iommu_map([0], [hostile.guest.first_page]) == 1:
                if hostile.iommu_unmap([0]) != 1:
                    break
                waiting += 1
            assert machine.memory.pins()[hostile.guest.first_page] == waiting + 1
        assert 16 <= waiting < MANY
