"""A host whose guests are processes of their own."""

import gc

import pytest

from tests.support.guest_process import GuestProcess
from tests.support.remote_host import Host


@pytest.fixture
def host(tmp_path):
    host = Host(tmp_path / "vmm")
    yield host
    host.settle()
    gc.collect()
    host.talk()
    assert host.held() == host.baseline
    assert not host.alice.context.fault
    assert not host.bob.context.fault
    host.machine.close()


@pytest.fixture
def start(host):
    """Starts a guest's process; it is dead when the test is over."""
    guests = []

    def start():
        guests.append(GuestProcess(host.path))
        return guests[-1]

    yield start
    for guest in guests:
        if guest.process.poll() is None:
            guest.kill()
        else:
            guest.close()


@pytest.fixture
def guest(start):
    return start()
