"""How much of the VMM's time a guest's requests may take, by clocks that the tests move."""

import json
import logging
import os
import select
import socket

import pytest

from cdna import Machine, RemoteDriver
from cdna.base.control_time import BURST, REST, SHARE, Rest, SharedTime
from cdna.errors import ConfigError
from cdna.protocol.attach import VERSION as ATTACH_VERSION
from cdna.protocol.hypercall import Hypercall
from cdna.protocol.vhost_user import VERSION, Request
from cdna.vmm.policy import Policy
from cdna.vmm.server import Server
from cdna.vmm.vhost_user.net_control import NetCtrl
from tests.support.control_driver import OK, ControlDriver
from tests.support.turns import due
from tests.support.vhost_host import VhostHost, until


class Clocks:
    """The time of day stands still until it is moved; every turn costs the thread an eighth of a second."""

    def __init__(self):
        self.now = 1000.0
        self.used = 0.0
        self.turn = 0.125

    def clock(self):
        return self.now

    def cost(self):
        self.used += self.turn
        return self.used

    @property
    def options(self):
        return {"clock": self.clock, "cost": self.cost}


@pytest.fixture
def clocks():
    return Clocks()


def test_a_bucket(clocks):
    spending = SharedTime(0.25, 0.25, **clocks.options).bucket()
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


def test_a_share_is_divided(clocks):
    """Ten that ask without end get what one would, a tenth each; who asks seldom never waits."""
    shared = SharedTime(clock=clocks.clock)
    greedy = [shared.bucket() for _ in range(10)]
    seldom = shared.bucket()
    spent = [0.0] * 10
    seconds = 100
    for step in range(seconds * 100):
        for i, bucket in enumerate(greedy):
            if bucket.due() is None:
                bucket.charge(0.02)
                spent[i] += 0.02
        if step % 100 == 0:
            assert seldom.due() is None
            seldom.charge(0.002)
        clocks.now += 0.01
    assert sum(spent) <= seconds * SHARE + 10 * (BURST + 0.03)
    assert min(spent) >= seconds * SHARE / 11 + BURST
    assert max(spent) - min(spent) <= 0.041
    clocks.now += 2000
    assert all(bucket.due() is None for bucket in greedy)


def test_one_that_is_alone_has_all_of_it_again(clocks):
    shared = SharedTime(0.1, 0.5, clock=clocks.clock)
    first, second = shared.bucket(), shared.bucket()
    first.charge(0.6)
    assert first.due() == pytest.approx(clocks.now + 1)
    second.charge(0.1)
    assert first.due() == pytest.approx(clocks.now + 2)
    clocks.now += 2  # the second one is full again
    assert first.due() is None
    first.charge(0.1)
    assert first.due() == pytest.approx(clocks.now + 1)


def test_a_rest_goes_on_while_others_have_come(clocks):
    shared = SharedTime(0.1, 0.5, clock=clocks.clock)
    first, second, rest = shared.bucket(), shared.bucket(), Rest()
    assert rest.begin(first, clocks.now) is None
    first.charge(0.6)
    assert rest.begin(first, clocks.now) == rest.until == pytest.approx(clocks.now + 1)
    assert rest.begin(second, clocks.now) is None
    assert rest.end(clocks.now) is None
    second.charge(0.1)
    clocks.now += 1
    assert rest.end(clocks.now) is None
    assert rest.until == pytest.approx(clocks.now + 1)
    clocks.now += 1
    assert rest.end(clocks.now) == pytest.approx(2)
    assert rest.until is None


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
    spending = SharedTime(0.01, 0.0, **clocks.options).bucket()
    for _ in range(100):
        with spending.spent():
            pass
    assert spending.due() == pytest.approx(clocks.now + REST)


@pytest.mark.parametrize("share", [0, -0.5, 1.5])
def test_a_share_that_is_none(share):
    with pytest.raises(ConfigError, match="give a share"):
        SharedTime(share)


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
    clocks.now += 3  # enough for one, of half of the share
    host.server.wake()
    assert greedy.reply()[0] == Request.GET_FEATURES
    until(lambda: guest.due() == pytest.approx(clocks.now + 2))
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


@pytest.mark.parametrize("plugged", [False, True])
def test_who_comes_during_a_rest_waits(host, clocks, plugged):
    """Also where the socket is made anew meanwhile, as the link goes down and up."""
    guest = host.add("greedy")
    greedy = host.connect(guest)
    for _ in range(4):
        greedy.send(Request.GET_FEATURES)
    until(lambda: guest.due() == pytest.approx(clocks.now + 1.25))
    if plugged:
        guest.set_link(False)
        guest.set_link(True)
    late = host.connect(guest)
    late.send(Request.GET_FEATURES)
    other = host.connect(host.add("other", 11))
    for _ in range(3):
        other.sync()
    assert guest.connected is not plugged
    assert select.select([late.sock], [], [], 0)[0] == []
    clocks.now += 100
    host.server.wake()
    if plugged:
        assert late.reply()[0] == Request.GET_FEATURES
    else:
        assert late.ended()


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


def test_a_command_that_comes_during_a_rest_waits(host, clocks):
    """Its kick is read all the same, and is not forgotten."""
    clocks.turn = 0.0
    guest = host.add("greedy")
    attached = host.attach(guest)
    driver = ControlDriver(host, guest, attached).start()
    with host.server.lock:  # between two turns
        clocks.turn = 0.125
    for _ in range(5):
        attached.frontend.send(Request.GET_FEATURES)
    until(lambda: guest.due() == pytest.approx(clocks.now + 1.25))
    assert answers(attached.frontend) == 5
    driver.post([bytes(NetCtrl.RX_ALLMULTI.value) + b"\1"])
    driver.ring.kick(always=True)
    other = host.connect(host.add("other", 11))
    for _ in range(3):
        other.sync()
    assert driver.ring.take() == []
    clocks.now += 100
    host.server.wake()
    assert driver.answer() == OK
    driver.close()


def test_who_is_refused_is_not_the_guests_to_pay_for(host, clocks):
    """All who are refused, at whichever socket, have one part of the share; then they wait."""
    guest, other = host.add("guest"), host.add("other", 11)
    frontend = host.connect(guest)
    frontend.sync()
    refused = [host.connect(guest) for _ in range(20)]
    until(lambda: guest.due() == pytest.approx(clocks.now + REST))
    for _ in range(2):
        frontend.sync()
    attached = host.connect(other)
    attached.sync()
    assert select.select([r.sock for r in refused], [], [], 0)[0] == [r.sock for r in refused[:5]]
    clocks.now += 100
    host.server.wake()
    until(lambda: select.select([refused[9].sock], [], [], 0)[0])
    frontend.sync()
    (line,) = [line for line in host.lines() if "refused" in line]
    assert line.startswith("guest 'guest': process ")
    assert line.endswith("is attached")


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


STATUS = int(Hypercall.HYPERCALL_STATUS).to_bytes(2, "little") + bytes(14)


class RawGuest:
    """A native guest that sends what it likes, and need not wait for the answers."""

    def __init__(self, server, name):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock.settimeout(20)
        self.sock.connect(server.path)
        self.name = name

    def attach(self):
        request = {"version": ATTACH_VERSION, "name": self.name, "memory": 1 << 16, "settings": {}}
        self.sock.send(json.dumps(request).encode())
        answer, fds, _, _ = socket.recv_fds(self.sock, 1 << 16, 8)
        for fd in fds:
            os.close(fd)
        assert "context" in json.loads(answer)
        return self

    def answers(self):
        """How many answers are there to read."""
        count = 0
        while select.select([self.sock], [], [], 0)[0] and self.sock.recv(1 << 16):
            count += 1
        return count

    def ask(self):
        self.sock.send(STATUS)
        assert "state" in json.loads(self.sock.recv(1 << 16))

    def close(self):
        self.sock.close()


@pytest.fixture
def server(tmp_path, clocks, caplog):
    """A server whose requests have half of the time."""
    caplog.set_level(logging.INFO, "cdna")
    with (
        Machine(16 << 20, contexts=4) as machine,
        Server(machine.vmm, tmp_path / "vmm", Policy(control_share=0.5), **clocks.options) as server,
    ):
        yield server


@pytest.fixture
def native(server):
    """Makes native guests that have connected."""
    made = []

    def make(name="guest"):
        made.append(RawGuest(server, name))
        return made[-1]

    yield make
    for guest in made:
        guest.close()


def test_who_asks_for_its_status_again_and_again_waits_and_nobody_else(
    server, native, clocks, caplog, monkeypatch
):
    monkeypatch.setattr("cdna.logs.LINES", 10)
    greedy, other = native("greedy").attach(), native("other").attach()
    for _ in range(20):
        greedy.sock.send(STATUS)
    until(lambda: [line for line in caplog.messages if "have to wait" in line])
    for _ in range(3):
        other.ask()
    assert greedy.answers() == 5  # with the fifth it has overdrawn
    clocks.now += 100
    server.wake()
    until(lambda: len([line for line in caplog.messages if "have to wait" in line]) == 2)
    assert greedy.answers() == 5
    assert "guest 'greedy' (process " in caplog.messages[-1]


def test_a_guest_that_comes_again_has_no_other_time(server, native, caplog):
    greedy = native("greedy").attach()
    for _ in range(4):
        greedy.ask()
    greedy.close()
    until(lambda: not server.guests)
    again = native("another-name").attach()
    for _ in range(20):
        again.sock.send(STATUS)
    until(lambda: [line for line in caplog.messages if "have to wait" in line])
    assert again.answers() == 1


def test_refused_users_have_one_line(server, native, caplog, monkeypatch):
    """Each may come as another user: lines are not counted by user."""
    monkeypatch.setattr("cdna.vmm.server.may_connect", lambda uid, others: False)
    uids = iter(range(10_000, 20_000))
    monkeypatch.setattr("cdna.vmm.server.peer", lambda sock: (1, next(uids)))
    for number in range(4):
        assert native(f"guest-{number}").sock.recv(1) == b""
    (line,) = caplog.messages
    assert line == f"{server.path}: process 1 of user 10000 refused: this user may not connect"


def test_who_is_refused_again_and_again_is_taken_later(server, native, clocks, monkeypatch):
    guest = native().attach()
    monkeypatch.setattr("cdna.vmm.server.may_connect", lambda uid, others: False)
    refused = [native() for _ in range(8)]
    until(lambda: pytest.approx(clocks.now + 0.5) in due(server))  # when it listens again
    for _ in range(3):
        guest.ask()
    gone = [bool(select.select([r.sock], [], [], 0)[0]) for r in refused]
    assert gone == [True] * 4 + [False] * 4  # with the guest, five were taken
    clocks.now += 100
    server.wake()
    assert refused[4].sock.recv(1) == b""
    guest.ask()
