"""The loop of a server: sessions, deadlines, errors, what other threads ask for, and no descriptors left."""

from __future__ import annotations

import logging
import os
import select
import socket
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from cdna.base.control_time import SharedTime
from cdna.base.loop import Loop, Session, SessionServer, timeout_until
from cdna.base.sockets import listen
from tests.support.turns import due
from tests.support.vhost_host import until

LOG = logging.getLogger("cdna.test")
DEADLINE = 20.0


class Watching(Loop):
    """Says when it has ticked, and what is due."""

    def __init__(self) -> None:
        super().__init__("test", LOG)
        self.times: list[float] = []
        self.ticks = 0
        self.ticked = threading.Event()
        self.ended = 0
        self.begin()

    def due(self) -> Iterable[float]:
        return self.times

    def tick(self, now: float) -> None:
        self.times = [at for at in self.times if at > now]
        self.ticks += 1
        self.ticked.set()

    def end(self) -> None:
        self.ended += 1

    def turn(self) -> None:
        """Returns after a whole turn that began later."""
        for _ in range(2):
            self.ticked.clear()
            self.wake()
            assert self.ticked.wait(DEADLINE)


class Echo(SessionServer[Session]):
    """Answers each message with itself; "bye" ends, "break" is an internal error."""

    def __init__(self, path: str, patience: float = DEADLINE) -> None:
        self.patience = patience
        self.refuses = False
        super().__init__("test", LOG, listen(path), path, "no echo")
        self.begin()

    def admit(self, sock: socket.socket, now: float) -> Session | None:
        return None if self.refuses else Session(sock, now + self.patience)

    def serve(self, session: Session, now: float) -> bool:
        message = session.sock.recv(100)
        assert message != b"break"
        session.deadline = None
        if message:
            session.sock.send(message)
        return message not in (b"", b"bye")


class Resting(SessionServer[Session]):
    """Answers a message, which overdraws its time, and gives the client ten seconds for the next one."""

    now = 1000.0

    def __init__(self, path: str) -> None:
        self.time = SharedTime(0.5, 1.0, clock=lambda: self.now).bucket()
        super().__init__("test", LOG, listen(path), path, "no session", lambda: self.now)
        self.begin()

    def admit(self, sock: socket.socket, now: float) -> Session:
        return Session(sock, None)

    def serve(self, session: Session, now: float) -> bool:
        session.deadline = now + 10
        self.time.charge(1.5)
        assert self.rest(session, self.time)
        return session.sock.send(session.sock.recv(100)) > 0


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "echo")


@pytest.fixture
def loop() -> Iterator[Watching]:
    with Watching() as loop:
        yield loop


def client(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.settimeout(DEADLINE)
    sock.connect(path)
    return sock


def test_timeouts() -> None:
    assert timeout_until(None, 3.0) is None
    assert timeout_until(2.0, 3.0) == 0
    assert timeout_until(3.0001, 3.0) == 0.001


def test_what_is_due_is_done(loop: Watching) -> None:
    with loop.lock:
        loop.times = [loop.clock() + 0.01]
    loop.turn()
    while loop.times:
        loop.ticked.wait(DEADLINE)


def test_a_descriptor_is_served_until_it_is_watched_no_more(loop: Watching) -> None:
    fd = os.eventfd(0, os.EFD_NONBLOCK)
    seen: list[str] = []
    for name in ("first", "second"):
        with loop.lock:
            loop.watch(fd, lambda now, name=name: seen.append(f"{name} {os.eventfd_read(fd)}"))
        os.eventfd_write(fd, 3)
        loop.turn()
    with loop.lock:
        loop.unwatch(fd)
        loop.unwatch(fd)
    os.eventfd_write(fd, 3)
    loop.turn()
    assert seen == ["first 3", "second 3"]
    os.close(fd)


def test_one_edge_is_served_once(loop: Watching) -> None:
    fd = os.eventfd(1, os.EFD_NONBLOCK)
    seen: list[float] = []
    with loop.lock:
        loop.watch(fd, seen.append, select.EPOLLIN | select.EPOLLET)
    loop.turn()
    assert len(seen) == 1
    os.eventfd_write(fd, 1)
    loop.turn()
    assert len(seen) == 2
    loop.unwatch(fd)
    os.close(fd)


def test_an_internal_error_ends_what_it_happened_in(loop: Watching, caplog: pytest.LogCaptureFixture) -> None:
    fd = os.eventfd(1, os.EFD_NONBLOCK)
    with loop.lock:
        loop.watch(fd, lambda now: 1 / 0)
    loop.turn()
    assert [record.message for record in caplog.records] == [
        f"internal error: descriptor {fd} is heard no more"
    ]
    os.close(fd)


def test_closing_twice() -> None:
    loop = Watching()
    loop.close()
    loop.close()
    loop.wake()
    assert loop.ended == 1


def test_sessions(path: str) -> None:
    with Echo(path) as server, client(path) as one, client(path) as two:
        for sock in (one, two, one):
            sock.send(b"hello")
            assert sock.recv(100) == b"hello"
        one.send(b"bye")
        assert (one.recv(100), one.recv(100)) == (b"bye", b"")
        assert len(server.sessions) == 1
        with server.lock:
            server.refuses = True
        with client(path) as three:
            assert three.recv(100) == b""
        two.send(b"hello")
        assert two.recv(100) == b"hello"
    assert not os.path.exists(path)
    assert not server.sessions


def test_a_session_that_stays_silent_is_ended(path: str) -> None:
    with Echo(path, patience=0.05) as server, client(path) as silent:
        assert silent.recv(100) == b""
        server.patience = DEADLINE
        with client(path) as other:
            other.send(b"hello")
            assert other.recv(100) == b"hello"


def test_an_internal_error_ends_one_session(path: str, caplog: pytest.LogCaptureFixture) -> None:
    with Echo(path), client(path) as one, client(path) as two:
        one.send(b"break")
        assert one.recv(100) == b""
        two.send(b"hello")
        assert two.recv(100) == b"hello"
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert caplog.records[0].message.endswith(": internal error")


def test_a_rest_moves_the_deadline(path: str) -> None:
    with Resting(path) as server, client(path) as sock:
        sock.send(b"one")
        assert sock.recv(100) == b"one"
        sock.send(b"two")
        assert due(server) == [1001.0]  # the debt, paid by half of the time
        server.now += 4
        server.wake()
        assert sock.recv(100) == b"two"
        assert due(server) == [1005.0]
        server.now += 4
        server.wake()
        until(lambda: due(server) == [1004.0 + 10 + 4])


def test_out_of_descriptors(
    path: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody is turned away: the connection waits, and the loop sleeps until it looks again."""
    monkeypatch.setattr("cdna.base.listener.ACCEPT_AGAIN", 0.05)
    accept, left = socket.socket.accept, [3]

    def accept_later(listener: socket.socket) -> tuple[socket.socket, str]:
        left[0] -= 1
        if left[0] >= 0:
            raise OSError(24, "Too many open files")
        return accept(listener)

    monkeypatch.setattr(socket.socket, "accept", accept_later)
    with Echo(path), client(path) as sock:
        sock.send(b"hello")
        assert sock.recv(100) == b"hello"
    assert [record.message for record in caplog.records] == [
        "no echo for now: [Errno 24] Too many open files"
    ] * 3
