"""Listening where an ended process has left its socket: without a lock, and without taking another's away."""

import fcntl
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from cdna.base import sockets
from cdna.base.sockets import SETTLED, listen
from cdna.errors import ResourceError

LONG_AGO = 1e9  # seconds: when a socket was left


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "server.sock")


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What was slept, without sleeping."""
    slept: list[float] = []
    monkeypatch.setattr(sockets.time, "sleep", slept.append)
    return slept


def leave(path: str, when: float | None = LONG_AGO) -> None:
    """Leaves a socket that nobody listens on, as a process does that was killed. None: just now."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as left:
        left.bind(path)
    if when is not None:
        os.utime(path, (when, when))


def answers(path: str, listener: socket.socket) -> bool:
    """Whether it is this one that is reached there."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
        client.connect(path)
        accepted, _ = listener.accept()
        accepted.close()
    return True


def test_who_holds_a_lock_of_the_directory_is_not_waited_for(
    path: str, tmp_path: Path, waits: list[float]
) -> None:
    leave(path)
    held = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        with listen(path) as listener:
            assert answers(path, listener)
    finally:
        os.close(held)
    assert waits == []
    assert os.listdir(tmp_path) == ["server.sock"]


def test_one_that_is_about_to_listen_is_not_taken_away(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between its bind and its listen, a socket looks as if its process had ended."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as young:
        young.bind(path)
        monkeypatch.setattr(sockets.time, "time", lambda: os.stat(path).st_mtime + SETTLED / 4)
        slept = []

        def sleep(seconds: float) -> None:
            slept.append(seconds)
            young.listen(1)

        monkeypatch.setattr(sockets.time, "sleep", sleep)
        with pytest.raises(ResourceError, match="Address already in use; give another path"):
            listen(path)
        assert slept == [pytest.approx(SETTLED * 3 / 4, rel=1e-3)]
        assert answers(path, young)


def test_one_that_was_left_just_now_is_replaced(
    path: str, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    leave(path, None)
    monkeypatch.setattr(sockets.time, "time", lambda: os.stat(path).st_mtime)
    with listen(path) as listener:
        assert answers(path, listener)
    assert waits == [pytest.approx(SETTLED)]


@pytest.mark.parametrize("moment", [(sockets, "is_left_over"), (os, "rename")])
def test_of_two_that_replace_it_at_once_one_does(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: tuple[object, str]
) -> None:
    """The other comes between two steps, and has been there for a while when the next one is done."""
    leave(path)
    others: list[socket.socket] = []
    step: Callable[..., object] = getattr(*moment)

    def comes_before(*args: str) -> object:
        monkeypatch.undo()
        others.append(listen(path))
        os.utime(path, (LONG_AGO + 1, LONG_AGO + 1))
        return step(*args)

    monkeypatch.setattr(*moment, comes_before)
    with pytest.raises(ResourceError, match="Address already in use; give another path"):
        listen(path)
    (other,) = others
    with other:
        assert answers(path, other)
    assert os.listdir(tmp_path) == ["server.sock"]


def test_one_that_is_gone_by_then_leaves_its_place(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    leave(path)
    rename = os.rename

    def gone_before(source: str, target: str) -> None:
        os.unlink(source)
        rename(source, target)

    monkeypatch.setattr(os, "rename", gone_before)
    with listen(path) as listener:
        assert answers(path, listener)
