"""A listening socket that waits: what the loop is told to do with it."""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cdna.base.listener import Listener
from cdna.base.sockets import listen


class FakeLoop:
    """Keeps what it is to watch; the test says when that is ready."""

    def __init__(self) -> None:
        self.watched: dict[int, tuple[Any, int]] = {}

    def watch(self, fd: int, act: Any, events: int = select.EPOLLIN) -> None:
        self.watched[fd] = act, events

    def unwatch(self, fd: int) -> None:
        self.watched.pop(fd)

    @property
    def events(self) -> int:
        ((_, events),) = self.watched.values()
        return events

    def ready(self, now: float) -> None:
        ((act, _),) = self.watched.values()
        act(now)


@pytest.fixture
def loop() -> FakeLoop:
    return FakeLoop()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "listener"


@pytest.fixture
def arrivals() -> list[float]:
    return []


@pytest.fixture
def listener(loop: Any, path: Path, arrivals: list[float]) -> Iterator[Listener]:
    listener = Listener(loop, listen(str(path)), str(path), arrivals.append)
    yield listener
    if loop.watched:
        listener.close()


def test_it_waits_until_the_later_time(loop: FakeLoop, listener: Listener, arrivals: list[float]) -> None:
    loop.ready(1.0)
    listener.wait(5.0)
    listener.wait(4.0)
    assert (loop.events, listener.due) == (0, 5.0)
    loop.ready(2.0)  # found ready in the turn of the loop in which it began to wait
    listener.tick(4.9)
    assert (loop.events, arrivals) == (0, [1.0])
    listener.tick(5.0)
    assert (loop.events, listener.due) == (select.EPOLLIN, None)
    loop.ready(5.0)
    assert arrivals == [1.0, 5.0]


def test_it_waits_while_there_is_no_descriptor(
    loop: FakeLoop, listener: Listener, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(listener: socket.socket) -> None:
        raise OSError(24, "Too many open files")

    accept = socket.socket.accept
    monkeypatch.setattr(socket.socket, "accept", full)
    with pytest.raises(OSError, match="Too many open files"):
        listener.accept(10.0)
    assert (loop.events, listener.due) == (0, 11.0)
    monkeypatch.setattr(socket.socket, "accept", accept)
    assert listener.accept(11.0) is None
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
        client.connect(str(path))
        sock = listener.accept(11.0)
        assert sock is not None
        with sock:
            assert not sock.getblocking()


def test_closing_leaves_nothing_behind(loop: FakeLoop, listener: Listener, path: Path) -> None:
    listener.close()
    assert loop.watched == {}
    assert not path.exists()
