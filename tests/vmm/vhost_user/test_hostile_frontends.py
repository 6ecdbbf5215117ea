"""A frontend that means harm: it loses its own connection or context, and nobody else waits for it."""

import contextlib
import fcntl
import os
import select
import signal
import socket
import struct

import pytest

from cdna.abi import ContextState
from cdna.guest_driver.vhost_frontend import ALL_PACKED, SPLIT
from cdna.guest_driver.vrings import Buffer, PackedRing
from cdna.protocol.vhost_user import (
    HEADER,
    INFLIGHT,
    SINGLE_REGION,
    TABLE_HEAD,
    VERSION,
    Inflight,
    Request,
)
from cdna.vmm.vhost_user.inflight import AREA_EVERY, AREAS
from tests.support.frames import OUTSIDE, frame
from tests.support.inflight import set_inflight
from tests.support.vhost_host import VhostHost, check_traffic, mac, refused, until

HUGE = 2 << 20  # bytes of a huge page
TIB = 1 << 40


def region(guest_addr, size, user_addr, offset):
    return struct.pack("=QQQQ", guest_addr, size, user_addr, offset)


# --- memory -----------------------------------------------------------------------------------------------


@pytest.fixture
def huge_file():
    """Of huge pages, of which the machine need not have any."""
    try:
        fd = os.memfd_create("huge", os.MFD_CLOEXEC | os.MFD_HUGETLB)
        os.ftruncate(fd, 2 * HUGE)
    except OSError as error:
        pytest.skip(f"no huge pages: {error}")
    yield fd
    os.close(fd)


def test_huge_pages_that_go(host, guest, huge_file):
    """A region that is no whole number of them goes as a whole, and the process stays."""
    memory, neighbour = host.memory(), host.add("other", 11)
    other = host.attach(neighbour)
    frontend = host.connect(guest, memory)
    frontend.negotiate(SPLIT)
    odd = region(TIB, 2 * HUGE - 8192, TIB, 4096)
    payload = TABLE_HEAD.pack(2, 0) + region(*memory.regions[0]) + odd
    frontend.send(Request.SET_MEM_TABLE, payload, [memory.fd, huge_file])
    driver = host.driver(memory, frontend.features)
    for queue, ring in enumerate(driver.queues):
        frontend.start(queue, ring)
    frontend.sync()
    os.ftruncate(huge_file, 0)
    driver.tx[0].add([Buffer(TIB + HUGE, 100)])
    host.step()
    assert guest.context.state == ContextState.CONTEXT_FAULTED
    check_traffic(host, neighbour, other)


def test_addresses_are_left_for_others(host, guest, frontend):
    """A file of holes costs its owner nothing, but the NIC's process has 2^47 addresses."""
    fd = os.memfd_create("holes", os.MFD_CLOEXEC)
    os.ftruncate(fd, 1 << 46)
    frontend.negotiate(SPLIT)
    add = Request.ADD_MEM_REG
    assert frontend.acknowledged(add, SINGLE_REGION.pack(0, 4 * TIB, 0, 0), [fd]) == 0
    assert frontend.acknowledged(add, SINGLE_REGION.pack(1 << 50, 4096, 1 << 50, 0), [fd]) != 0
    assert frontend.ended()
    os.close(fd)
    check_traffic(host, guest, host.attach(guest))


def test_all_guests_together_leave_addresses(host, guest, frontend, monkeypatch):
    """Each maps less than it may, and one more would be too much."""
    monkeypatch.setattr("cdna.nic.virtio.mapping.MAX_MAPPED_BY_ALL", 12 << 20)
    other = host.connect(host.add("other", 11))
    for peer in (frontend, other):
        peer.negotiate(SPLIT)
    payload = TABLE_HEAD.pack(1, 0) + region(TIB, 8 << 20, TIB, 0)
    assert frontend.acknowledged(Request.SET_MEM_TABLE, payload, [frontend.memory.fd]) == 0
    assert other.acknowledged(Request.SET_MEM_TABLE, payload, [other.memory.fd]) != 0
    assert other.ended()
    host.detach(guest, frontend)
    again = host.connect(host.server.guests[1])
    again.negotiate(SPLIT)
    assert again.acknowledged(Request.SET_MEM_TABLE, payload, [again.memory.fd]) == 0


def test_a_file_that_is_not_in_memory(host, frontend, tmp_path):
    """Its pages come when a disk, or a process, has found them; the engine would wait."""
    with open(tmp_path / "file", "w+b") as file:
        file.truncate(1 << 20)
        with contextlib.suppress(OSError):
            fcntl.fcntl(file, fcntl.F_GET_SEALS)
            pytest.skip("the temporary directory is in memory")
        frontend.negotiate(SPLIT)
        frontend.send(Request.ADD_MEM_REG, SINGLE_REGION.pack(0, 1 << 20, 0, 0), [file.fileno()])
        assert frontend.ended()
    assert "no memory file" in host.lines()[-1]


def test_a_file_that_its_file_system_makes_up(host, frontend):
    frontend.negotiate(SPLIT)
    with open("/proc/version") as file:
        frontend.send(Request.ADD_MEM_REG, SINGLE_REGION.pack(0, 4096, 0, 0), [file.fileno()])
        assert refused(frontend)
    assert "no memory file" in host.lines()[-1]


def test_a_region_that_begins_within_a_page(host, frontend):
    frontend.negotiate(SPLIT)
    payload = TABLE_HEAD.pack(1, 0) + region(TIB, 4096, TIB, 512)
    frontend.send(Request.SET_MEM_TABLE, payload, [frontend.memory.fd])
    assert refused(frontend)
    assert "give a whole number of pages of 4096" in host.lines()[-1]


def test_regions_that_are_many(host, frontend):
    """One more than there are slots."""
    frontend.negotiate(SPLIT)
    add, most = Request.ADD_MEM_REG, frontend.get(Request.GET_MAX_MEM_SLOTS)
    places = [SINGLE_REGION.pack(i << 20, 4096, i << 20, 0) for i in range(most + 1)]
    assert [frontend.acknowledged(add, at, [frontend.memory.fd]) for at in places[:most]] == [0] * most
    assert frontend.acknowledged(add, places[most], [frontend.memory.fd]) == 1
    assert frontend.ended()
    assert f"{most + 1} memory regions: give up to {most}" in host.lines()[-1]


def test_an_inflight_area_that_is_too_small_for_the_other_format(host, guest, frontend):
    """Made for split rings, used by packed ones, whose part of it is twice as long."""
    fd = os.memfd_create("area", os.MFD_CLOEXEC)
    os.ftruncate(fd, 4096)
    frontend.negotiate(SPLIT)
    set_inflight(frontend, Inflight(128, 0, 2, 2), fd)
    frontend.put(Request.SET_FEATURES, ALL_PACKED)
    frontend.features = ALL_PACKED
    frontend.give_memory()
    for queue in range(2):
        ring = PackedRing(frontend.memory, 2)
        frontend.start(queue, ring)
        ring.close()
    frontend.sync()
    host.step()
    assert os.pread(fd, 4096 - 128, 128) == bytes(4096 - 128)
    os.close(fd)


# --- descriptors that are slow to close -------------------------------------------------------------------


@pytest.fixture
def lingering():
    """A TCP socket whose closing waits until its peer has read, which it does not."""
    listener = socket.create_server(("127.0.0.1", 0))
    sock = socket.create_connection(listener.getsockname())
    peer, _ = listener.accept()
    listener.close()
    sock.setblocking(False)
    poller = select.poll()
    poller.register(sock, select.POLLOUT)
    while poller.poll(300):  # until the peer takes no more
        with contextlib.suppress(BlockingIOError):
            sock.send(bytes(1 << 20))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 1000))
    yield sock
    peer.close()  # ends the wait


@pytest.mark.parametrize("request_", [Request.SET_LOG_FD, Request.SET_BACKEND_REQ_FD, Request.GET_FEATURES])
def test_closing_a_descriptor_makes_nobody_wait(host, guest, frontend, lingering, request_):
    neighbour = host.add("other", 11)
    frontend.negotiate(SPLIT)
    with host.server.lock:  # the server's thread stands still, so that the NIC's is the last one
        frontend.send(request_, b"", [lingering.fileno()])
        lingering.close()
    check_traffic(host, neighbour, host.attach(neighbour))
    host.detach(guest, frontend)


def test_descriptors_that_do_not_close_have_a_bound(host, guest, frontend, lingering, monkeypatch):
    """Beyond it no more are taken, of this frontend or of the next one."""
    monkeypatch.setattr("cdna.vmm.vhost_user.descriptors.WAITING", 1)
    frontend.negotiate(SPLIT)
    with host.server.lock:  # so that the NIC's descriptor is the last one
        frontend.send(Request.SET_LOG_FD, b"", [lingering.fileno()])
        lingering.close()
    frontend.sync()  # a message without descriptors is welcome
    frontend.send(Request.SET_LOG_FD, b"", [frontend.memory.fd])
    assert refused(frontend)
    assert host.lines()[-1].endswith("connection ended: descriptors that came before do not close")
    assert refused(host.connect(guest))
    until(lambda: len(host.lines()) == 2)
    assert host.lines()[-1].endswith("refused: descriptors that frontends sent before do not close")


def test_descriptors_that_were_never_read_make_nobody_wait(host, guest, frontend, lingering):
    neighbour = host.add("other", 11)
    with host.server.lock:
        frontend.send(Request.POSTCOPY_ADVISE)  # ends the connection
        frontend.send(Request.SET_LOG_FD, b"", [lingering.fileno()])
        lingering.close()
    assert frontend.ended()
    check_traffic(host, neighbour, host.attach(neighbour))


# --- eventfds ---------------------------------------------------------------------------------------------


@pytest.fixture
def late():
    """Not empty if somebody waited for seconds: the alarm ends the wait."""
    rang = []
    before = signal.signal(signal.SIGALRM, lambda *_: rang.append(True))
    signal.setitimer(signal.ITIMER_REAL, 5, 1)
    yield rang
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def fill(fd):
    """What an eventfd takes no more behind waits, for all who have it: the flag is the open file's."""
    fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) & ~os.O_NONBLOCK)
    with contextlib.suppress(BlockingIOError):
        os.eventfd_write(fd, (1 << 64) - 2)


def drain(ring):
    for fd in (ring.call_fd, ring.err_fd):
        os.set_blocking(fd, False)
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(fd)


def test_a_socket_to_signal_by_in_which_something_is_left(host, frontend):
    """What is in it might be descriptors, which would be closed with it."""
    frontend.negotiate(SPLIT)
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            ours.send(b"unread")
            frontend.file(Request.SET_VRING_CALL, 0, theirs.fileno())
        assert refused(frontend)
    assert "a socket with unread data; give one that is only written to" in host.lines()[-1]


def test_a_channel_that_is_no_unix_stream(host, frontend):
    frontend.negotiate(SPLIT)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, theirs:
        frontend.send(Request.SET_BACKEND_REQ_FD, b"", [theirs.fileno()])
        assert refused(frontend)
    assert host.lines()[-1].endswith("SET_BACKEND_REQ_FD: no Unix stream socket")


def test_an_eventfd_that_is_made_to_wait(host, guest, late):
    """Of interrupts, and of a fault."""
    attached = host.attach(guest)
    for ring in attached.driver.queues:
        drain(ring)
        fill(ring.call_fd)
        fill(ring.err_fd)
    check_traffic(host, guest, attached)
    attached.tx[0].add([Buffer(TIB, 100)])
    host.step()
    assert guest.context.state == ContextState.CONTEXT_FAULTED
    host.detach(guest, attached)
    assert not late


# --- work for the engine ----------------------------------------------------------------------------------


def test_a_frame_of_many_segments_takes_turns(host):
    """A thousand segments for the NIC to cut, and another guest's frame passes between them."""
    one, two = host.add("one", 11), host.add("two", 12)
    greedy, other = host.attach(one), host.attach(two)
    headers = frame(OUTSIDE, mac(one), 0, 14)[:12] + bytes.fromhex(
        "0800450000280000400040060000" + "0a000001" + "0a000002" + "0001000200000000000000005010ffff00000000"
    )
    large = headers + bytes(1000 * 8)
    greedy.send([large], header=struct.pack("<BBHHHH", 1, 1, 54, 8, 34, 16))
    host.step(1)
    assert 0 < len(host.wire.get()) <= 64
    mine = frame(OUTSIDE, mac(two), 1, 60)
    other.send([mine])
    host.step(2)
    assert mine in host.wire.get()
    until(lambda: host.step(1) or greedy.reclaim())
    host.step(20)
    assert not one.context.stats()["tx_drop_invalid"]
    assert one.context.stats()["tx_frames"] == 1000


# --- what the server makes ----------------------------------------------------------------------------------


def areas(frontend, count):
    """Asks for so many inflight areas. Returns how many came."""
    for made in range(count):
        try:
            frontend.send(Request.GET_INFLIGHT_FD, INFLIGHT.pack(0, 0, 1, 2))
            _, _, (fd,) = frontend.reply()
        except ConnectionError:
            return made
        os.close(fd)
    return count


def test_inflight_areas_are_counted_over_connections(tmp_path, caplog, monkeypatch):
    """A frontend may keep each of them, and the server pays for what the kernel knows of them."""
    monkeypatch.setattr("cdna.logs.LINES", 10_000)
    now = [1000.0]
    host = VhostHost(tmp_path, clock=lambda: now[0], control_share=1.0, cost=lambda: 0.0)
    guest = host.add()
    asked = 0
    while asked < AREAS:
        frontend = host.connect(guest)
        frontend.negotiate(SPLIT)
        assert areas(frontend, AREAS // 4) == AREAS // 4
        asked += AREAS // 4
        host.detach(guest, frontend)
    frontend = host.connect(guest)
    frontend.negotiate(SPLIT)
    assert areas(frontend, 1) == 0
    assert "64 inflight areas were asked for, and this is one more" in host.lines()[-1]
    now[0] += AREA_EVERY
    until(lambda: not guest.connected)
    frontend = host.connect(guest)
    frontend.negotiate(SPLIT)
    assert areas(frontend, 2) == 1
    assert guest.describe()["inflight_areas"] == AREAS + 1
    host.clear()
    host.close()


def test_descriptors_are_counted(host, guest, frontend):
    """Of the connection, the rings, the log, the channel, and of a message that is not whole yet."""
    frontend.negotiate(SPLIT)
    frontend.sync()
    assert guest.describe()["descriptors"] == 1
    frontend.set_log(frontend.memory.fd, 4096)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        frontend.send(Request.SET_BACKEND_REQ_FD, b"", [theirs.fileno()])
    for number in range(3):
        fd = os.eventfd(0, os.EFD_CLOEXEC)
        frontend.file((Request.SET_VRING_KICK, Request.SET_VRING_CALL, Request.SET_VRING_ERR)[number], 0, fd)
        os.close(fd)
    frontend.sync()
    assert guest.describe()["descriptors"] == 6
    frontend.send_raw(HEADER.pack(Request.SET_MEM_TABLE, VERSION, 64)[:4], [frontend.memory.fd] * 3)
    until(lambda: guest.describe()["descriptors"] == 9)


def test_sockets_of_users_that_may_not_are_closed_in_bounds(host, guest, lingering, monkeypatch):
    """What they sent does not close; that is neither this guest's, nor without end."""
    monkeypatch.setattr("cdna.vmm.vhost_user.descriptors.WAITING", 1)
    who = [12345]
    monkeypatch.setattr("cdna.vmm.vhost_user.connection.peer", lambda sock: (4711, who[0]))
    with host.server.lock:  # it is sent before the server looks
        stranger = host.connect(guest)
        stranger.send(Request.SET_LOG_FD, b"", [lingering.fileno()])
        lingering.close()
    until(lambda: guest.describe()["closing"] == 1)
    second = host.connect(guest)
    until(
        lambda: host.lines()[-1].endswith("no frontend accepted for now: those refused before do not close")
    )
    who[0] = os.getuid()
    assert not guest.discard.is_full
    second.close()
