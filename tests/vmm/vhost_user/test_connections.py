"""Sockets: who may come, how messages come in pieces, who stalls, and who vanishes."""

import logging
import os
import random
import socket
import stat
import threading

import pytest

from cdna import ContextSettings
from cdna.errors import ConfigError, ResourceError
from cdna.guest_driver.vhost_frontend import SPLIT, Frontend, attach
from cdna.protocol.vhost_user import HEADER, U64, VERSION, Request
from cdna.vmm.vhost_user import SUPPORTED, VhostUserServer
from tests.support.vhost_host import check_traffic, incoming, mac, refused, until

GET_FEATURES = HEADER.pack(Request.GET_FEATURES, VERSION, 0)
SET_STATUS = HEADER.pack(Request.SET_STATUS, VERSION, 8) + U64.pack(5)


def test_the_socket_is_its_owners_alone(guest):
    assert stat.S_IMODE(os.stat(guest.path).st_mode) == 0o600


def test_the_socket_is_removed(host, guest):
    host.server.remove(guest)
    host.server.remove(guest)
    assert not os.path.exists(guest.path)
    host.add()


def test_frontends_come_and_go(host, guest):
    for _ in range(5):
        attached = host.attach(guest)
        assert guest.connected
        assert guest.describe()["peer"] == os.getpid()
        check_traffic(host, guest, attached)
        host.detach(guest, attached)
    assert host.lines() == []


def test_one_frontend_at_a_time(host, guest):
    attached = host.attach(guest)
    another = host.connect(guest)
    assert another.ended()
    until(lambda: host.lines())
    assert host.lines() == [
        f"guest 'guest': process {os.getpid()}, user 0 refused: process {os.getpid()} is attached"
    ]
    check_traffic(host, guest, attached)


def test_a_frontend_that_comes_back_at_once_is_let_in(host, guest):
    """Its connection of before may not yet have been seen to end."""
    attached = host.attach(guest)
    for _ in range(20):
        attached.reconnect(guest.path)
    check_traffic(host, guest, attached)
    assert host.lines() == []


def test_a_message_in_pieces(host, guest, frontend):
    for byte in GET_FEATURES:
        frontend.send_raw(bytes([byte]))
    assert frontend.reply() == (Request.GET_FEATURES, U64.pack(SUPPORTED), [])


def test_messages_cut_anywhere(host, guest, frontend):
    generator = random.Random(4)
    stream = (SET_STATUS + GET_FEATURES) * 50
    while stream:
        cut = generator.randint(1, 40)
        frontend.send_raw(stream[:cut])
        stream = stream[cut:]
    for _ in range(50):
        assert frontend.reply()[0] == Request.GET_FEATURES
    assert frontend.get(Request.GET_STATUS) == 5


def test_descriptors_belong_to_the_message_that_they_came_with(host, guest, frontend):
    """A message right behind another one: its descriptors are its own, whatever is read together."""
    frontend.negotiate()
    table = frontend.table()
    packet = HEADER.pack(Request.SET_MEM_TABLE, VERSION, len(table)) + table
    socket.send_fds(frontend.sock, [GET_FEATURES * 3], [])
    socket.send_fds(frontend.sock, [packet[:4]], [frontend.memory.fd])
    socket.send_fds(frontend.sock, [packet[4:] + GET_FEATURES], [])
    for _ in range(4):
        assert frontend.reply()[0] == Request.GET_FEATURES
    assert host.lines() == []


@pytest.mark.parametrize("sent", [1, 11, 12, 15, 19])
def test_a_frontend_that_vanishes_within_a_message(host, guest, frontend, sent):
    frontend.send_raw(SET_STATUS[:sent], [frontend.memory.fd] * 3)
    frontend.sock.close()
    until(lambda: host.lines())
    (line,) = host.lines()
    what = f"{sent} of 12 bytes of a header" if sent < 12 else f"SET_STATUS: {sent - 12} of 8 bytes"
    assert "vanished" in line
    assert what in line
    until(lambda: not guest.connected)


def test_a_frontend_that_stalls(host):
    guest = host.add(stall=0.05)
    other = host.add("other", 11)
    traffic = host.attach(other)
    frontend = host.connect(guest)
    frontend.send_raw(SET_STATUS[:15], [frontend.memory.fd])
    traffic.frontend.sync()  # nobody waits for it
    assert frontend.ended()
    until(lambda: host.lines())
    assert host.lines() == [
        "guest 'guest': connection ended: the frontend stalls after SET_STATUS: 3 of 8 bytes of its payload"
    ]
    check_traffic(host, other, traffic)


def test_time_counts_for_each_message_anew(host):
    """A frontend may be silent between messages for as long as it likes."""
    guest = host.add(stall=0.05)
    frontend = host.connect(guest)
    other = host.connect(host.add("other", 11, stall=0.1))
    frontend.sync()
    other.send_raw(SET_STATUS[:15])
    assert other.ended()  # twice that time is over
    frontend.sync()
    assert guest.connected


def test_bytes_that_come_one_by_one_do_not_extend_the_time(host):
    guest = host.add(stall=0.1)
    frontend = host.connect(guest)
    done = threading.Event()

    def drip():
        for byte in SET_STATUS * 100:
            if done.wait(0.02):
                return
            frontend.send_raw(bytes([byte]))
            if not guest.connected:
                return

    frontend.send_raw(HEADER.pack(Request.SET_CONFIG, VERSION, 200))
    thread = threading.Thread(target=drip)
    thread.start()
    assert frontend.ended()
    done.set()
    thread.join()
    assert "stalls after SET_CONFIG" in host.lines()[0]


def test_a_user_that_may_not(host, guest, monkeypatch):
    monkeypatch.setattr("cdna.vmm.vhost_user.connection.peer", lambda sock: (4711, 12345))
    frontend = host.connect(guest)
    assert refused(frontend)
    assert host.lines() == ["guest 'guest': process 4711, user 12345 refused: this user may not attach here"]


def test_a_user_that_may(host, monkeypatch):
    monkeypatch.setattr("cdna.vmm.vhost_user.connection.peer", lambda sock: (4711, 12345))
    guest = host.add(uids=[12345])
    assert stat.S_IMODE(os.stat(guest.path).st_mode) == 0o666
    host.connect(guest).sync()
    assert guest.describe()["uid"] == 12345


# --- paths ------------------------------------------------------------------------------------------------


def test_a_socket_that_a_dead_process_left_is_replaced(host):
    path = host.folder / "guest.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as left:
        left.bind(os.fspath(path))
        left.listen()
    guest = host.add()
    check_traffic(host, guest, host.attach(guest))


@pytest.mark.parametrize("what", ["file", "listener", "no folder", "long"])
def test_a_path_that_cannot_be(host, what):
    path = host.folder / "guest.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        if what == "file":
            path.write_text("something")
        elif what == "listener":
            listener.bind(os.fspath(path))
            listener.listen()
        elif what == "no folder":
            path = host.folder / "none" / "guest.sock"
        else:
            path = host.folder / ("x" * 120)
        with pytest.raises(ResourceError, match="give another"):
            host.server.add("guest", path)
    assert host.machine.vmm.guests == {}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"pairs": 9}, "pairs 9: give 1 to 8"),
        ({"pairs": 0}, "pairs 0: give 1 to 8"),
        ({"mtu": 67}, "mtu 67: give 68 to 65535"),
        ({"settings": ContextSettings()}, "give protection='table'"),
        ({"features": 1 << 33}, "VIRTIO_F_ACCESS_PLATFORM: not of this NIC"),
        ({"protocol": 1 << 8}, "PAGEFAULT: not of this NIC"),
        ({"context_index": 99}, "context 99"),
    ],
)
def test_settings_that_cannot_be(host, options, words):
    with pytest.raises(ConfigError, match=words):
        host.add(**options)
    assert host.machine.vmm.guests == {}
    assert os.listdir(host.folder) == []


def test_a_name_is_given_once(host, guest):
    with pytest.raises(ConfigError, match="exists"):
        host.server.add("guest", host.folder / "other.sock")
    assert os.listdir(host.folder) == ["guest.sock"]


def test_a_server_that_was_closed(host):
    server = VhostUserServer(host.machine.vmm)
    with server:
        server.add("guest", host.folder / "g.sock")
    server.close()
    with pytest.raises(ConfigError, match="closed"):
        server.add("guest", host.folder / "g.sock")
    assert host.machine.vmm.guests == {}


def test_a_context_that_is_revoked_takes_its_guest_along(host, guest):
    attached = host.attach(guest)
    host.machine.vmm.revoke(guest.context)
    assert attached.frontend.ended()
    until(lambda: host.server.guests == [])
    assert not os.path.exists(guest.path)
    again = host.add()
    check_traffic(host, again, host.attach(again))


def test_the_index_of_the_context(host):
    assert host.add(context_index=7).context.index == 7


# --- client mode ------------------------------------------------------------------------------------------


@pytest.fixture
def listener(host):
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(20)
        yield sock


def accepted(host, listener):
    sock, _ = listener.accept()
    frontend = Frontend(sock, host.memory())
    host._attached.append(frontend)
    return frontend


def test_it_connects_and_connects_again(host, listener):
    listener.bind(os.fspath(host.folder / "guest.sock"))
    listener.listen()
    guest = host.add(client=True)
    assert guest.describe()["mode"] == "client"
    for _ in range(3):
        frontend = accepted(host, listener)
        frontend.sync()
        host.detach(guest, frontend)
    assert host.lines() == []


def test_it_waits_until_somebody_listens(host, listener):
    guest = host.add(client=True)
    assert not guest.connected
    listener.bind(guest.path)
    listener.listen()
    frontend = accepted(host, listener)
    frontend.negotiate()
    driver = host.driver(frontend.memory, frontend.features)
    frontend.give_memory()
    for queue, ring in enumerate(driver.queues):
        frontend.start(queue, ring)
    frontend.sync()
    check_traffic(host, guest, driver)
    host.server.remove(guest)
    assert frontend.ended()
    assert os.path.exists(guest.path)  # it is not ours


def test_with_the_link_down_it_does_not_connect(host, listener):
    guest = host.add(client=True)
    guest.set_link(False)
    listener.bind(guest.path)
    listener.listen()
    guest.set_link(True)
    accepted(host, listener).sync()
    guest.set_link(False)
    assert guest.describe()["state"] == "link down"


def test_with_the_link_up_again_it_connects_to_no_second_frontend(host, listener):
    listener.bind(os.fspath(host.folder / "guest.sock"))
    listener.listen()
    guest = host.add(client=True)
    frontend = accepted(host, listener)
    frontend.negotiate()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        frontend.acknowledged(Request.SET_BACKEND_REQ_FD, fds=[theirs.fileno()])
        guest.set_link(False)
        guest.set_link(True)
        assert guest.due() is None
        frontend.sync()


# --- the link ---------------------------------------------------------------------------------------------


def test_without_a_channel_the_connection_tells_of_the_link(host, guest):
    attached = host.attach(guest)
    guest.set_link(False)
    guest.set_link(False)
    assert attached.frontend.ended()
    assert guest.describe()["state"] == "link down"
    with pytest.raises(OSError, match=r"No such file|refused"):
        Frontend.connect(guest.path, attached.memory)
    guest.set_link(True)
    attached.reconnect(guest.path)
    check_traffic(host, guest, attached)
    assert host.lines() == []


def test_a_link_that_is_down_lets_nothing_through(host, guest):
    """Of a frontend that stays: what it sends waits, what is sent to it is dropped and counted."""
    attached = host.attach(guest)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        attached.frontend.acknowledged(Request.SET_BACKEND_REQ_FD, fds=[theirs.fileno()])
        guest.set_link(False)
        host.wire.put(incoming(guest))
        host.step()
        assert attached.recv() == []
        guest.set_link(True)
        host.step()
        (rarp,) = host.wire.get()  # it announces the guest
        assert rarp[6:14] == mac(guest) + b"\x80\x35"
        check_traffic(host, guest, attached)


def test_what_a_guest_says_of_itself(host):
    guest = host.add(pairs=2, mtu=9000)
    told = guest.describe()
    assert (told["state"], told["peer"], told["mode"], told["pairs"], told["mtu"]) == (
        "waiting",
        None,
        "server",
        2,
        9000,
    )
    with attach(guest.path, SPLIT) as attached:
        told = guest.describe()
        assert told["state"] == "running"
        assert [queue["started"] for queue in told["queues"]] == [True, True, False, False]
        assert "VIRTIO_F_VERSION_1" in told["features"]
        assert "REPLY_ACK" in told["protocol_features"]
        attached.frontend.sync()
    assert host.lines(logging.INFO)[0].startswith("guest 'guest': frontend attached")


def test_a_frontend_that_says_nothing_has_a_deadline(host, monkeypatch):
    monkeypatch.setattr("cdna.vmm.vhost_user.guest.FIRST_MESSAGE", 0.05)
    guest = host.add()
    frontend = host.connect(guest)
    assert frontend.sock.recv(1) == b""
    assert "stalls after 0 of 12 bytes" in guest.last_error
