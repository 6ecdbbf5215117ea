"""What a guest in another process may send to the VMM, and what it may leave unread."""

import logging

import pytest

from tests.support.remote_host import frame_between

MALFORMED = {
    "no JSON": b"\xff\xfe garbage",
    "deep JSON": b"[" * 4096,
    "a list": b"[1, 2]",
    "fields missing": b'{"version": 1, "name": "x"}',
    "settings that are none": b'{"version": 1, "name": "x", "memory": 4096, "settings": 7}',
    "too long": b'{"version": 1}' + b" " * 8192,
}


@pytest.mark.parametrize("request_", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_request_ends_the_connection(host, guest, caplog, request_):
    with caplog.at_level(logging.WARNING, "cdna.vmm"):
        assert guest.run("connect().send(bytes_); result = sock.recv(4096)", bytes_=request_) == b""
    (record,) = caplog.records
    assert "a guest to be" in record.message
    assert "sent away: a request" in record.message
    assert "\n" not in record.message
    host.talk()


HOSTILE_HYPERCALLS = {
    "short": b"\1",
    "short header": bytes(15),
    "unknown": bytes([0, 0]) + bytes(14),
    "unknown too": bytes([6, 0]) + bytes(14),
    "fewer entries than it says": bytes([1, 0, 0, 0, 2, 0, 0, 0]) + bytes(8 + 16),
    "more entries than it says": bytes([1, 0, 0, 0, 1, 0, 0, 0]) + bytes(8 + 32),
    "257 entries": bytes([1, 0, 0, 0, 1, 1, 0, 0]) + bytes(8 + 257 * 16),
    "2**32 - 1 entries": bytes([1, 0, 0, 0, 255, 255, 255, 255]) + bytes(8),
    "2**28 entries, a length that wraps": bytes([1, 0, 0, 0, 0, 0, 0, 16]) + bytes(8),
    "an odd length": bytes([3, 0, 0, 0, 1, 0, 0, 0]) + bytes(8 + 3),
    "entries where there are none": bytes([4, 0, 0, 0, 1, 0, 0, 0]) + bytes(8),
    "a ring where there is none": bytes([2, 0, 1, 0, 0, 0, 0, 0]) + bytes(8),
    "a reserved field": bytes([1, 0, 0, 0, 0, 0, 0, 0, 1]) + bytes(7),
    "100 kB": bytes([1, 0]) + bytes(100_000),
}


@pytest.mark.parametrize("message", HOSTILE_HYPERCALLS.values(), ids=HOSTILE_HYPERCALLS)
def test_a_malformed_hypercall_ends_the_guest(host, guest, caplog, message):
    guest.run("attach()")
    with caplog.at_level(logging.WARNING, "cdna.vmm"):
        assert guest.run("sock.send(bytes_); result = sock.recv(4096)", bytes_=message) == b""
    (record,) = caplog.records
    assert record.message.startswith("guest 'guest' (process ")
    assert "\n" not in record.message
    assert sorted(host.machine.vmm.guests) == ["alice", "bob"]
    host.talk()


def test_descriptors_that_come_with_a_message_are_not_kept(host, guest):
    guest.run("attach()")
    guest.run("""
socket.send_fds(sock, [struct.pack("<HHIQ", HYPERCALL_REAP, 0, 0, 0)], [0, 1, 2] * 20)
result = sock.recv(16)
""")
    assert len(host.held()["files"]) == len(host.baseline["files"]) + 5  # connection, interrupts, three files


def test_a_guest_that_never_reads_its_replies_is_sent_away(host, guest, caplog):
    guest.run("attach()")
    with caplog.at_level(logging.WARNING, "cdna.vmm"):
        outcome = guest.run("""
def flood():
    while True:
        sock.send(struct.pack("<HHIQ", HYPERCALL_REAP, 0, 0, 0))
result = tries(flood)
""")
    assert outcome in ("EPIPE", "ECONNRESET")
    assert [record.message for record in caplog.records if "left unread" in record.message]
    host.talk()


def test_a_guest_cannot_make_the_vmm_wait_for_it(host, guest):
    """Virtual interrupts that nobody reads, on a descriptor that its guest has filled and set to block."""
    outcome = guest.run("""
attach()
fcntl.fcntl(event_fd, fcntl.F_SETFL, 0)
result = tries(os.write, event_fd, (2**64 - 2).to_bytes(8, "little"))
driver.enable_interrupts(True)
""")
    assert outcome == "EPIPE"
    context = host.guest_context()
    frame = frame_between(host.alice.context, context)
    while host.machine.vmm.tables.events(context.index) < 1000:  # many more than a socket holds
        host.alice.send([frame])
        host.machine.step(2)
        if not host.machine.nic.info(context.index)["rx"]["consumer"] % 200:
            guest.run("driver.recv(1000)")
    host.talk()


def test_who_makes_no_request_keeps_nobody_out(host, guest):
    guest.run("""
idle = []
for _ in range(200):
    idle.append(connect())
attach()
result = driver.send([frame])
""", frame=host.there)  # fmt: skip
    assert sorted(host.machine.vmm.guests) == ["alice", "bob", "guest"]
    host.talk()
