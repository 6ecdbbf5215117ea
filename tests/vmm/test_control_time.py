"""How much of the VMM's time a guest's requests may take, by clocks that the tests move."""

import select
import socket

import pytest

from cdna import Machine, RemoteDriver
from cdna.errors import ConfigError
from cdna.protocol.vhost_user import VERSION, Request
from cdna.vmm.control_time import REST, ControlTime
from cdna.vmm.policy import Policy
from cdna.vmm.server import Server
from tests.support.vhost_host import VhostHost, until


class Clocks:
    """The time of day stands still until it is moved; every turn costs the thread an eighth of a second."""

    def __init__(self):
        self.now = 1000.0
        self.used = 0.0

    def clock(self):
        return self.now

    def cost(self):
        self.used += 0.125
        return self.used

    @property
    def options(self):
        return {"clock": self.clock, "cost": self.cost}


@pytest.fixture
def clocks():
    return Clocks()


def test_a_bucket(clocks):
    spending = ControlTime(0.25, 0.25, **clocks.options)
    for _ in range(2):
        with spending.spent():
            pass
        assert spending.due() is None
    with spending.spent():
        pass
    assert spending.due() == pytest.approx(clocks.now + 0.5)
    clocks.now += 0.25
    assert spending.due() == pytest.approx(clocks.now + 0.25)
    clocks.now += 0.25
    assert spending.due() is None
    clocks.now += 1e6  # saves up no more than the burst
    for _ in range(3):
        assert spending.due() is None
        with spending.spent():
            pass
    assert spending.due() is not None


# --- vhost-user -------------------------------------------------------------------------------------------


@pytest.fixture
def host(tmp_path, clocks):
    host = VhostHost(tmp_path, **clocks.options)
    yield host
    host.clear()
    host.close()


def answers(frontend):
    """How many replies are there to read."""
    frontend.sock.setblocking(False)
    count = 0
    try:
        while frontend.reply():
            count += 1
    except BlockingIOError:
        frontend.sock.settimeout(20)
    return count


def test_a_rest_has_an_end(clocks):
    spending = ControlTime(0.01, 0.0, **clocks.options)
    for _ in range(100):
        with spending.spent():
            pass
    assert spending.due() == pytest.approx(clocks.now + REST)


@pytest.mark.parametrize("share", [0, -0.5, 1.5])
def test_a_share_that_is_none(share):
    with pytest.raises(ConfigError, match="give a share"):
        ControlTime(share)


def test_who_floods_waits_and_nobody_else(host, clocks):
    guest = host.add("greedy")
    greedy = host.connect(guest)
    for _ in range(20):
        greedy.send(Request.GET_FEATURES)
    # An eighth of a second more than the half. Until its first message there is a deadline for that.
    until(lambda: guest.due() == pytest.approx(clocks.now + 1.25))
    other = host.connect(host.add("other", 11))
    for _ in range(3):
        other.sync()
    assert answers(greedy) == 4
    clocks.now += 1.5  # enough for one
    host.server.wake()
    assert greedy.reply()[0] == Request.GET_FEATURES
    until(lambda: guest.due() == pytest.approx(clocks.now + 1))
    assert answers(greedy) == 0
    assert host.lines() == ["guest 'greedy': so many requests that they have to wait"]


def test_another_connection_is_no_way_out(host, clocks):
    guest = host.add("greedy")
    for _ in range(2):  # each comes and goes, two turns, and the fifth is too much
        frontend = host.connect(guest)
        until(lambda: guest.connected)
        host.detach(guest, frontend)
    assert guest.due() is None
    again = host.connect(guest)
    until(lambda: guest.due() == pytest.approx(clocks.now + 1.25))
    again.send(Request.GET_FEATURES)
    other = host.connect(host.add("other", 11))
    for _ in range(3):
        other.sync()
    assert answers(again) == 0
    clocks.now += 100
    host.server.wake()
    assert again.reply()[0] == Request.GET_FEATURES


def test_a_rest_is_no_stall(host, clocks):
    """A message that had begun is not held against a frontend that was not read."""
    guest = host.add("greedy", stall=5.0)
    greedy = host.connect(guest)
    for _ in range(3):
        greedy.sync()
    assert guest.due() is None
    greedy.send_raw(bytes([Request.GET_FEATURES, 0, 0]))
    until(lambda: guest.due() == pytest.approx(clocks.now + 1.25))
    clocks.now += 4.9
    host.server.wake()
    until(lambda: guest.due() == pytest.approx(clocks.now + 5))
    greedy.send_raw(bytes([0, VERSION, 0, 0, 0, 0, 0, 0, 0]))
    assert greedy.reply()[0] == Request.GET_FEATURES


# --- native guests of other processes ---------------------------------------------------------------------


def test_who_attaches_again_and_again_waits(tmp_path, clocks):
    path = tmp_path / "vmm"
    with Machine(16 << 20, contexts=4) as machine:
        server = Server(machine.vmm, path, Policy(control_share=0.5), **clocks.options)
        with server, RemoteDriver(path, name="guest", tx_ring=16, rx_ring=16) as guest:
            for _ in range(2):  # each attaches and ends; with the first one's attaching these are five
                RemoteDriver(path, name="greedy", tx_ring=16, rx_ring=16).close()
                until(lambda: len(server.guests) == 1)
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as greedy:
                greedy.settimeout(20)
                greedy.connect(str(path))
                greedy.send(b"no request")
                assert guest.context.stats()["tx_frames"] == 0  # who has a context is served
                assert guest.context.stats()["tx_frames"] == 0
                assert select.select([greedy], [], [], 0)[0] == []
                clocks.now += 10
                assert greedy.recv(1000) == b""  # sent away, as it spoke no JSON
