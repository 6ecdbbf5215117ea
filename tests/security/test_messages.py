"""Messages of a frontend, and what comes with them: lengths, descriptors, features, silence."""

import contextlib
import os
import re
import select
import socket
import struct

import pytest

from cdna.protocol.vhost_user import CONFIG_HEAD, HEADER, INFLIGHT, LOG, U64, VERSION, Request
from cdna.virtio import Feature
from cdna.vmm.vhost_user.handlers import RULES
from cdna.vmm.vhost_user.inflight import AREAS
from tests.support.inflight import get_inflight
from tests.support.remote_host import descriptors
from tests.support.vhost_host import check_traffic, until


@pytest.fixture
def scene(attack):
    return attack()


def test_a_message_of_any_length(scene):
    """It is neither waited for nor given room."""
    for size in (1025, 1 << 31, 0xFFFFFFFF):
        scene.frontend.send_raw(HEADER.pack(Request.SET_MEM_TABLE, VERSION, size))
        scene.reconnect()
        assert f"a payload of {size} bytes" in scene.host.lines()[-1]
    scene.unharmed()


def test_messages_shorter_than_their_meaning(scene):
    """What is missing would be read of what was there before."""
    scene.frontend.send(Request.POSTCOPY_ADVISE)
    for request, rule in RULES.items():
        scene.reconnect()
        size = next(size for size in range(1, 1024) if size not in rule.sizes)
        scene.frontend.send(request, bytes(size))
    scene.reconnect()
    assert len(scene.host.lines()) == len(RULES) + 1
    assert all("bytes, which it never has" in line for line in scene.host.lines()[1:])
    scene.unharmed()


def test_descriptors_that_nobody_asked_for(scene, host):
    """More than belong to a message, again and again: each is closed, and the connection ends."""
    scene.frontend.send(Request.POSTCOPY_ADVISE)
    scene.reconnect()
    held = host.held()
    event = os.eventfd(0, os.EFD_CLOEXEC)
    requests = (Request.GET_INFLIGHT_FD, Request.SET_INFLIGHT_FD, Request.GET_FEATURES, Request.SET_VRING_NUM)
    for request in requests:
        for _ in range(8):
            size = next(size for size in range(1024) if size in RULES[request].sizes)
            scene.frontend.send(request, bytes(size), [event] * 12)
            scene.reconnect()
    os.close(event)
    host.settle(held)
    scene.unharmed()


def test_areas_that_nobody_takes(scene):
    """Each reply has a descriptor of 16 MB of memory in it; the frontend reads none of them."""
    request = HEADER.pack(Request.GET_INFLIGHT_FD, VERSION, INFLIGHT.size) + INFLIGHT.pack(0, 0, 16, 32768)
    before = len(descriptors())
    with contextlib.suppress(OSError):
        scene.frontend.sock.settimeout(5)
        for _ in range(3000):
            scene.frontend.sock.send(request)
    until(lambda: not scene.offender.connected)
    assert re.search("replies are left unread|inflight areas were asked for", scene.host.lines()[-1])
    scene.frontend.sock.close()
    until(lambda: len(descriptors()) <= before)
    scene.unharmed()


def test_areas_that_are_asked_for_again_and_again(scene, host):
    held = host.held()
    for _ in range(AREAS):
        _, fd = get_inflight(scene.frontend, 16, 32768)
        os.close(fd)
    host.settle(held)
    scene.frontend.send(Request.GET_INFLIGHT_FD, INFLIGHT.pack(0, 0, 16, 32768))
    assert scene.frontend.ended()
    assert "inflight areas were asked for" in scene.host.lines()[-1]
    scene.unharmed()


def test_an_area_with_more_queues_than_there_are(scene):
    """Queue by queue it would be used far behind its end."""
    fd = os.memfd_create("area", os.MFD_CLOEXEC)
    os.ftruncate(fd, 1 << 16)
    scene.frontend.send(Request.POSTCOPY_ADVISE)
    for size, offset, queues, queue_size in (
        (1 << 16, 0, 0xFFFF, 64),
        (1 << 16, 0, 18, 1),
        (1 << 16, 0, 2, 0xFFFF),
        (1 << 16, 0, 0, 64),
        (1 << 16, 0, 2, 0),
        (64, 0, 2, 64),
        (1 << 17, 0, 2, 64),
        (4096, (1 << 64) - 2048, 2, 64),
        ((1 << 64) - 1, 4096, 2, 64),
    ):
        scene.reconnect()
        scene.frontend.send(Request.SET_INFLIGHT_FD, INFLIGHT.pack(size, offset, queues, queue_size), [fd])
    scene.reconnect()
    assert all("SET_INFLIGHT_FD: " in line for line in scene.host.lines()[1:])
    assert not any(os.pread(fd, 1 << 16, 0))
    os.close(fd)
    scene.unharmed()


def test_descriptors_of_another_kind(scene, tmp_path):
    """What is written to as an eventfd has to be one, or a connected stream; what is mapped, memory."""
    pair = socket.socketpair()
    unread = socket.socketpair()
    socket.send_fds(unread[1], [b"x"], [scene.memory.fd])
    datagrams = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    alone = socket.socket(socket.AF_UNIX)
    pipe = os.pipe()
    disk = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
    event = os.eventfd(0, os.EFD_CLOEXEC)
    epoll = select.epoll()
    cases = [
        (request, U64.pack(0), fd)
        for request in (Request.SET_VRING_KICK, Request.SET_VRING_CALL, Request.SET_VRING_ERR)
        for fd in (datagrams[0].fileno(), alone.fileno(), pipe[1], disk, scene.memory.fd, epoll.fileno())
    ]
    cases += [
        (Request.SET_VRING_KICK, U64.pack(0), pair[0].fileno()),
        (Request.SET_VRING_CALL, U64.pack(0), unread[0].fileno()),
    ]
    cases += [
        (Request.SET_LOG_BASE, LOG.pack(4096, 0), event),
        (Request.SET_LOG_BASE, LOG.pack(4096, 0), pair[0].fileno()),
        (Request.SET_INFLIGHT_FD, INFLIGHT.pack(4096, 0, 2, 64), pipe[0]),
        (Request.SET_BACKEND_REQ_FD, b"", event),
    ]
    scene.frontend.send(Request.POSTCOPY_ADVISE)
    for request, payload, fd in cases:
        scene.reconnect()
        scene.frontend.send(request, payload, [fd])
    scene.reconnect()
    assert [line.split(": ")[2] for line in scene.host.lines()[1:]] == [case[0].name for case in cases]
    for sock in (*pair, *unread, *datagrams, alone):
        sock.close()
    for fd in (*pipe, disk, event):
        os.close(fd)
    epoll.close()
    scene.unharmed()


def test_features_that_were_not_offered(scene):
    scene.frontend.send(Request.POSTCOPY_ADVISE)
    packed = 1 << Feature.VIRTIO_F_RING_PACKED
    cases = (1 << Feature.VIRTIO_F_ACCESS_PLATFORM, 1 << 63, (1 << 64) - 1, packed)
    for features in cases:
        scene.reconnect()
        scene.frontend.put(Request.SET_FEATURES, features)
    scene.reconnect()
    assert all("SET_FEATURES: " in line for line in scene.host.lines()[1:])
    scene.unharmed()


def test_features_that_change_while_rings_run(scene):
    """Another header, another format of the rings: what the NIC is in the middle of would be misread."""
    for changed in (Feature.VIRTIO_F_RING_PACKED, Feature.VIRTIO_NET_F_MRG_RXBUF, Feature.VIRTIO_F_VERSION_1):
        scene.frontend.put(Request.SET_FEATURES, scene.frontend.features ^ (1 << changed))
        assert scene.frontend.ended()
        assert "while rings run" in scene.host.lines()[-1]
        until(lambda: not scene.offender.connected)
        scene.bad.reconnect(scene.offender.path)
        scene.frontend = scene.bad.frontend
    scene.unharmed()


def test_configuration_space_and_what_lies_behind_it(scene):
    """Reads get a frame of what there is, and nothing else; writes change nothing."""
    space = scene.offender.config_space()
    for offset, size in ((0, 256), (250, 6), (256, 0), (0, 0)):
        answer = scene.frontend.call(Request.GET_CONFIG, CONFIG_HEAD.pack(offset, size, 0) + bytes(size))
        assert answer[CONFIG_HEAD.size :] == space[offset : offset + size]
    for offset, size in ((256, 1), (1, 256), (0xFFFFFFFF, 1), (0xFFFFFF00, 256)):
        payload = CONFIG_HEAD.pack(offset, size, 0) + bytes(size)
        assert scene.frontend.call(Request.GET_CONFIG, payload) == b""
        assert scene.frontend.acknowledged(Request.SET_CONFIG, payload) == 1
    assert scene.frontend.acknowledged(Request.SET_CONFIG, CONFIG_HEAD.pack(0, 6, 0) + bytes(6)) == 1
    assert scene.offender.config_space() == space
    scene.frontend.send(Request.GET_CONFIG, CONFIG_HEAD.pack(0, 0xFFFFFFFF, 0) + bytes(256))
    assert scene.frontend.ended()
    scene.unharmed()


def test_an_mtu_that_cannot_be(scene):
    for mtu in (0, 67, 1501, 1 << 32, (1 << 64) - 1):
        assert scene.frontend.acknowledged(Request.NET_SET_MTU, U64.pack(mtu)) == 1
    scene.unharmed()


def test_half_a_message_and_silence(host):
    """Nobody waits for the rest, and who leaves it out is sent away in time."""
    quiet = host.add("quiet", 10, stall=0.2)
    honest = host.add("honest", 11)
    frontend = host.connect(quiet)
    frontend.send_raw(HEADER.pack(Request.SET_MEM_TABLE, VERSION, 40) + bytes(3))
    good = host.attach(honest)  # served meanwhile, by the same thread
    check_traffic(host, honest, good)
    assert frontend.ended()
    assert "SET_MEM_TABLE: 3 of 40 bytes" in host.lines()[-1]
    check_traffic(host, honest, good)


def test_a_first_message_of_a_native_guest_without_end(tmp_path):
    """Four gigabytes of names and settings: it is read in one piece of four kilobytes, or not."""
    from tests.support.remote_host import Host

    host = Host(tmp_path / "vmm")
    for request in (
        b"{" * 100_000,
        b'{"version": 1, "memory": ' + b"9" * 4000 + b"}",
        struct.pack("<I", 1 << 31),
    ):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
            sock.connect(os.fspath(host.path))
            sock.send(request)
            assert sock.recv(1) == b""
    host.settle()
    host.talk()
    assert host.held() == host.baseline
    host.machine.close()
