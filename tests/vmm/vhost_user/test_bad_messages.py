"""Malformed messages: the connection ends with one clear line, nothing leaks, the next frontend is served."""

import os
import socket
import struct

import pytest

from cdna.guest_driver.vhost_frontend import SPLIT
from cdna.protocol.vhost_user import (
    CONFIG_HEAD,
    HEADER,
    INFLIGHT,
    LOG,
    SINGLE_REGION,
    TABLE_HEAD,
    U64,
    VERSION,
    VRING_ADDR,
    VRING_NO_FD,
    VRING_STATE,
    Request,
)
from cdna.virtio import Feature
from cdna.vmm.vhost_user.handlers import RULES
from tests.support.vhost_host import check_traffic, refused, until

TOP = (1 << 64) - 1
BASE = 1 << 32  # the guest address of a driver's memory
USER = 0x7F00_0000_0000
SIZE = 8 << 20


def table(*regions):
    return TABLE_HEAD.pack(len(regions), 0) + b"".join(struct.pack("=QQQQ", *region) for region in regions)


def region(*fields):
    return SINGLE_REGION.pack(*fields)


def state(queue, num):
    return VRING_STATE.pack(queue, num)


def addresses(queue=0, desc=USER, used=USER + 8192, avail=USER + 4096):
    return VRING_ADDR.pack(queue, 0, desc, used, avail, 0)


# What is sent after negotiation and memory: request, payload, descriptors (of the driver's memory), and a
# piece of the line that is logged.
BAD = {
    "unknown request": (99, b"", 0, "request 99: not offered"),
    "request 0": (0, b"", 0, "request 0: not offered"),
    "IOTLB": (Request.IOTLB_MSG, bytes(40), 0, "IOTLB_MSG: not offered"),
    "crypto": (Request.CREATE_CRYPTO_SESSION, bytes(64), 0, "CREATE_CRYPTO_SESSION: not offered"),
    "postcopy": (Request.POSTCOPY_ADVISE, b"", 0, "POSTCOPY_ADVISE: not offered"),
    "endianness": (Request.SET_VRING_ENDIAN, state(0, 1), 0, "SET_VRING_ENDIAN: not offered"),
    "kick in band": (Request.VRING_KICK, state(0, 0), 0, "VRING_KICK: not offered"),
    "features not offered": (
        Request.SET_FEATURES,
        U64.pack(1 << 33),
        0,
        "VIRTIO_F_ACCESS_PLATFORM not offered",
    ),
    "unknown feature": (Request.SET_FEATURES, U64.pack(1 << 50), 0, "bit 50 not offered"),
    "packed without version 1": (Request.SET_FEATURES, U64.pack(1 << 34), 0, "RING_PACKED needs VERSION_1"),
    "protocol features": (Request.SET_PROTOCOL_FEATURES, U64.pack(1 << 8), 0, "PAGEFAULT not offered"),
    "status beyond a byte": (Request.SET_STATUS, U64.pack(256), 0, "SET_STATUS: 0x100"),
    "more regions than bytes": (
        Request.SET_MEM_TABLE,
        TABLE_HEAD.pack(2, 0) + bytes(32),
        1,
        "2 regions in 40",
    ),
    "half a region behind": (
        Request.SET_MEM_TABLE,
        TABLE_HEAD.pack(1, 0) + bytes(48),
        1,
        "1 regions in 56",
    ),
    "many regions": (
        Request.SET_MEM_TABLE,
        TABLE_HEAD.pack(TOP >> 32, 0) + bytes(256),
        8,
        "4294967295 regions",
    ),
    "nine regions": (
        Request.SET_MEM_TABLE,
        table(*[(i << 20, 4096, i << 20, 0) for i in range(9)]),
        9,
        "296 bytes",
    ),
    "regions without descriptors": (
        Request.SET_MEM_TABLE,
        table((0, 4096, 0, 0)),
        0,
        "1 regions and 0 descr",
    ),
    "surplus descriptor": (Request.SET_MEM_TABLE, table((0, 4096, 0, 0)), 2, "1 regions and 2 descriptors"),
    "empty region": (Request.SET_MEM_TABLE, table((BASE, 0, USER, 0)), 1, "SET_MEM_TABLE: "),
    "region beyond its file": (
        Request.SET_MEM_TABLE,
        table((BASE, SIZE + 4096, USER, 0)),
        1,
        "SET_MEM_TABLE: ",
    ),
    "offset beyond its file": (Request.SET_MEM_TABLE, table((BASE, 4096, USER, SIZE)), 1, "SET_MEM_TABLE: "),
    "offset that wraps": (Request.SET_MEM_TABLE, table((BASE, 8192, USER, TOP - 4095)), 1, "SET_MEM_TABLE: "),
    "guest addresses that wrap": (
        Request.SET_MEM_TABLE,
        table((TOP - 4095, 8192, USER, 0)),
        1,
        "SET_MEM_TABLE: ",
    ),
    "user addresses that wrap": (
        Request.SET_MEM_TABLE,
        table((BASE, 8192, TOP - 4095, 0)),
        1,
        "SET_MEM_TABLE: ",
    ),
    "regions that overlap": (
        Request.SET_MEM_TABLE,
        table((BASE, 8192, USER, 0), (BASE + 4096, 8192, USER + (1 << 20), 8192)),
        2,
        "is in another region",
    ),
    "user addresses that overlap": (
        Request.SET_MEM_TABLE,
        table((BASE, 8192, USER, 0), (BASE + (1 << 20), 8192, USER + 4096, 8192)),
        2,
        "is in another region",
    ),
    "added region that overlaps": (
        Request.ADD_MEM_REG,
        region(BASE + 4096, 4096, 1 << 20, 0),
        1,
        "is in another region",
    ),
    "added region without a descriptor": (
        Request.ADD_MEM_REG,
        region(0, 4096, 0, 0),
        0,
        "ADD_MEM_REG: 0 descr",
    ),
    "log beyond its file": (Request.SET_LOG_BASE, LOG.pack(SIZE + 4096, 0), 1, "SET_LOG_BASE: "),
    "log that wraps": (Request.SET_LOG_BASE, LOG.pack(4096, TOP - 4095), 1, "SET_LOG_BASE: "),
    "log of every address": (Request.SET_LOG_BASE, LOG.pack(TOP, 0), 1, "SET_LOG_BASE: "),
    "log without a descriptor": (Request.SET_LOG_BASE, LOG.pack(4096, 0), 0, "SET_LOG_BASE: 0 descriptors"),
    "log address of old": (Request.SET_LOG_BASE, U64.pack(BASE), 0, "SET_LOG_BASE: a payload of 8 bytes"),
    "ring of nothing": (Request.SET_VRING_NUM, state(0, 0), 0, "queue 0 of 0"),
    "ring too large": (Request.SET_VRING_NUM, state(0, 32769), 0, "queue 0 of 32769"),
    "size of no queue": (Request.SET_VRING_NUM, state(17, 64), 0, "queue 17"),
    "base of no queue": (Request.SET_VRING_BASE, state(TOP >> 32, 0), 0, "queue 4294967295"),
    "addresses of no queue": (Request.SET_VRING_ADDR, addresses(17), 0, "queue 17"),
    "stop of no queue": (Request.GET_VRING_BASE, state(17, 0), 0, "queue 17"),
    "enable of no queue": (Request.SET_VRING_ENABLE, state(255, 1), 0, "queue 255"),
    "enable by 2": (Request.SET_VRING_ENABLE, state(0, 2), 0, "only 0 and 1"),
    "kick of no queue": (Request.SET_VRING_KICK, U64.pack(17 | VRING_NO_FD), 0, "queue 17"),
    "call that is said to be none": (Request.SET_VRING_CALL, U64.pack(VRING_NO_FD), 1, "the contrary"),
    "call that is said to be one": (Request.SET_VRING_CALL, U64.pack(0), 0, "the contrary"),
    "two kicks": (Request.SET_VRING_KICK, U64.pack(0), 2, "2 descriptors, and 0 to 1"),
    "kick that is memory": (Request.SET_VRING_KICK, U64.pack(0), 1, "SET_VRING_KICK: "),
    "call that is memory": (Request.SET_VRING_CALL, U64.pack(0), 1, "SET_VRING_CALL: "),
    "err that is memory": (Request.SET_VRING_ERR, U64.pack(0), 1, "SET_VRING_ERR: "),
    "descriptor with a question": (Request.GET_FEATURES, b"", 1, "GET_FEATURES: 1 descriptors"),
    "configuration that is shorter": (
        Request.GET_CONFIG,
        CONFIG_HEAD.pack(0, 8, 0) + bytes(7),
        0,
        "8 bytes of conf",
    ),
    "configuration that is longer": (
        Request.SET_CONFIG,
        CONFIG_HEAD.pack(0, 8, 0) + bytes(9),
        0,
        "8 bytes of conf",
    ),
    "configuration without end": (
        Request.GET_CONFIG,
        CONFIG_HEAD.pack(0, TOP >> 32, 0),
        0,
        "configuration space",
    ),
    "inflight of no queue": (Request.GET_INFLIGHT_FD, INFLIGHT.pack(0, 0, 0, 64), 0, "inflight area of 0"),
    "inflight of many queues": (Request.GET_INFLIGHT_FD, INFLIGHT.pack(0, 0, 18, 64), 0, "18 queues"),
    "inflight of long queues": (Request.GET_INFLIGHT_FD, INFLIGHT.pack(0, 0, 2, 65535), 0, "of 65535"),
    "inflight too small": (Request.SET_INFLIGHT_FD, INFLIGHT.pack(64, 0, 2, 64), 1, "SET_INFLIGHT_FD: "),
    "inflight beyond its file": (
        Request.SET_INFLIGHT_FD,
        INFLIGHT.pack(SIZE * 2, 0, 2, 64),
        1,
        "SET_INFLIGHT_FD: ",
    ),
    "inflight that wraps": (
        Request.SET_INFLIGHT_FD,
        INFLIGHT.pack(4096, TOP - 4095, 2, 64),
        1,
        "SET_INFLIGHT_FD: ",
    ),
    "inflight without a file": (
        Request.SET_INFLIGHT_FD,
        INFLIGHT.pack(4096, 0, 2, 64),
        0,
        "0 descriptors, and 1",
    ),
}


def one_line(host, piece):
    """That exactly one line was logged, which names the guest and says this."""
    until(lambda: host.lines())
    (line,) = host.lines()
    assert line.startswith("guest 'guest': connection ended: ")
    assert piece in line
    assert "\n" not in line


@pytest.mark.parametrize("case", BAD)
def test_the_connection_ends_and_the_next_is_served(host, guest, frontend, case):
    request, payload, fds, piece = BAD[case]
    frontend.negotiate(SPLIT)
    frontend.give_memory()
    frontend.send(request, payload, [frontend.memory.fd] * fds)
    assert refused(frontend)
    one_line(host, piece)
    assert guest.describe()["last_error"] in host.lines()[0]
    until(lambda: not guest.connected)
    check_traffic(host, guest, host.attach(guest))


@pytest.mark.parametrize("request_", RULES, ids=lambda r: r.name)
def test_every_payload_has_its_size(host, frontend, request_):
    frontend.negotiate()
    sizes = RULES[request_].sizes
    wrong = next(size for size in range(1, 1024) if size not in sizes)
    frontend.send(request_, bytes(wrong))
    assert refused(frontend)
    one_line(host, f"{request_.name}: a payload of {wrong} bytes")


@pytest.mark.parametrize("request_", RULES, ids=lambda r: r.name)
def test_surplus_descriptors_are_closed(host, frontend, request_):
    frontend.negotiate()
    rule = RULES[request_]
    size = next(size for size in range(1024) if size in rule.sizes)
    frontend.send(request_, bytes(size), [frontend.memory.fd] * (rule.fds[1] + 1))
    assert refused(frontend)
    one_line(host, f"{request_.name}: {rule.fds[1] + 1} descriptors")


@pytest.mark.parametrize(
    "request_", [r for r, rule in RULES.items() if rule.needs is not None], ids=lambda r: r.name
)
def test_what_is_not_offered_is_refused(host, request_):
    rule = RULES[request_]
    host.add(protocol=0)
    frontend = host.connect(host.server.guests[0])
    size = next(size for size in range(1024) if size in rule.sizes)
    frontend.send(request_, bytes(size), [frontend.memory.fd] * rule.fds[0])
    assert refused(frontend)
    one_line(host, f"protocol feature {rule.needs.name} is not offered")


@pytest.mark.parametrize("count", [17, 100, 253])
def test_no_message_has_so_many_descriptors(host, frontend, count):
    frontend.send(Request.SET_MEM_TABLE, table((0, 4096, 0, 0)), [frontend.memory.fd] * count)
    assert refused(frontend)
    one_line(host, "more than 16 descriptors; no message has as many")


def test_no_message_in_pieces_has_so_many_descriptors(host, frontend):
    """They are not collected until it is whole: each byte could bring as many."""
    packet = HEADER.pack(Request.SET_OWNER, VERSION, 0)
    for byte, count in zip(packet, [16, 1, *[0] * 10], strict=True):
        frontend.send_raw(bytes([byte]), [frontend.memory.fd] * count)
    assert refused(frontend)
    one_line(host, "more than 16 descriptors; no message has as many")


@pytest.mark.parametrize(
    ("flags", "piece"),
    [(0, "version 0"), (2, "version 2"), (3, "version 3"), (VERSION | 4, "a reply, and nothing was asked")],
)
def test_flags_that_cannot_be(host, frontend, flags, piece):
    frontend.send(Request.GET_FEATURES, flags=flags)
    assert refused(frontend)
    one_line(host, piece)


@pytest.mark.parametrize("size", [1025, 1 << 20, 0xFFFFFFFF])
def test_a_payload_of_any_size_is_not_waited_for(host, frontend, size):
    frontend.send_raw(HEADER.pack(Request.SET_MEM_TABLE, VERSION, size), [frontend.memory.fd])
    assert frontend.ended()
    one_line(host, f"a payload of {size} bytes")


def test_a_failure_is_acknowledged_before_the_end(host, frontend):
    frontend.negotiate()
    assert frontend.acknowledged(Request.SET_MEM_TABLE, table((BASE, 0, USER, 0)), [frontend.memory.fd]) == 1
    assert frontend.ended()


def test_replies_that_nobody_reads(host, guest, frontend):
    frontend.sock.setblocking(False)
    packet = HEADER.pack(Request.GET_FEATURES, VERSION, 0) * 100

    def hung_up():
        try:
            frontend.sock.send(packet)
        except BlockingIOError:
            return False
        except OSError:
            return True
        return False

    until(hung_up)
    one_line(host, "GET_FEATURES: replies are left unread")
    until(lambda: not guest.connected)
    check_traffic(host, guest, host.attach(guest))


# --- rings ------------------------------------------------------------------------------------------------

RINGS = {
    "descriptors outside": {"desc": USER + SIZE},
    "descriptors below": {"desc": USER - 4096},
    "descriptors reach out": {"desc": USER + SIZE - 16},
    "available outside": {"avail": 0},
    "used outside": {"used": TOP - 4},
    "used reaches out": {"used": USER + SIZE - 16},
    "descriptors not aligned": {"desc": USER + 8},
    "available not aligned": {"avail": USER + 4097},
    "used not aligned": {"used": USER + 8194},
}


@pytest.mark.parametrize("case", RINGS)
def test_rings_outside_memory(host, guest, frontend, case):
    frontend.negotiate()
    frontend.give_memory()
    frontend.state(Request.SET_VRING_NUM, 0, 64)
    frontend.send(Request.SET_VRING_ADDR, addresses(**RINGS[case]))
    frontend.file(Request.SET_VRING_KICK, 0, None)
    assert frontend.ended()
    one_line(host, "SET_VRING_KICK: queue 0: its ring is outside the guest's memory, or not aligned")


def test_a_split_ring_is_a_power_of_two(host, frontend):
    frontend.negotiate()
    frontend.give_memory()
    frontend.state(Request.SET_VRING_NUM, 0, 48)
    frontend.send(Request.SET_VRING_ADDR, addresses())
    frontend.file(Request.SET_VRING_KICK, 0, None)
    assert frontend.ended()
    one_line(host, "give a power of two")


@pytest.mark.parametrize("request_", [Request.SET_VRING_NUM, Request.SET_VRING_BASE])
def test_a_running_ring_keeps_size_and_base(host, guest, request_):
    attached = host.attach(guest)
    attached.frontend.state(request_, 0, 64)
    assert refused(attached.frontend)
    one_line(host, "of queue 0, which runs")


def test_a_running_ring_does_not_leave_memory(host, guest):
    attached = host.attach(guest)
    attached.frontend.send(Request.SET_VRING_ADDR, addresses(desc=1 << 20))
    assert attached.frontend.ended()
    one_line(host, "SET_VRING_ADDR: queue 0: its ring is outside")


def test_a_packed_base_within_the_ring(host, frontend):
    frontend.negotiate(SPLIT | 1 << Feature.VIRTIO_F_RING_PACKED)
    frontend.give_memory()
    frontend.state(Request.SET_VRING_NUM, 0, 64)
    frontend.state(Request.SET_VRING_BASE, 0, 0x80408040)
    frontend.send(Request.SET_VRING_ADDR, addresses())
    frontend.file(Request.SET_VRING_KICK, 0, None)
    assert frontend.ended()
    one_line(host, "index 64 in a ring of 64")


def test_a_call_descriptor_that_is_full(host, guest):
    """It was made to wait, and nobody reads it; the engine does not wait for it."""
    attached = host.attach(guest)
    fd = os.eventfd(0, os.EFD_CLOEXEC)
    attached.frontend.file(Request.SET_VRING_CALL, 0, fd)
    attached.frontend.sync()
    os.eventfd_write(fd, (1 << 64) - 2 - os.eventfd_read(fd))
    check_traffic(host, guest, attached)
    os.close(fd)


def test_any_socket_is_a_channel_that_may_fail(host, guest, frontend):
    """A backend channel whose other end is closed: no signal, no exception, and the link goes down."""
    frontend.negotiate()
    ours, theirs = socket.socketpair()
    assert frontend.acknowledged(Request.SET_BACKEND_REQ_FD, fds=[theirs.fileno()]) == 0
    theirs.close()
    ours.close()
    guest.set_link(False)
    assert frontend.ended()
