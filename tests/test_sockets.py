"""A listener while descriptors are out, and what its process logs then."""

import os
import resource
import select
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from cdna.sockets import ACCEPT_AGAIN, Door, listen, timeout_until


@pytest.fixture
def door(tmp_path: Path) -> Iterator[tuple[Door, select.epoll, socket.socket]]:
    with listen(str(tmp_path / "door")) as listener, select.epoll() as epoll:
        door = Door(listener, epoll)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
            client.connect(str(tmp_path / "door"))
            yield door, epoll, client


def test_back_off_without_descriptors(door: tuple[Door, select.epoll, socket.socket]) -> None:
    there, epoll, client = door
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    next_fd = os.dup(there.fd)
    os.close(next_fd)
    assert epoll.poll(0) == [(there.fd, select.EPOLLIN)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (next_fd, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            there.take(5.0)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert epoll.poll(0) == []  # the loop sleeps
    assert there.due == 5.0 + ACCEPT_AGAIN
    there.go_on(5.5)
    assert epoll.poll(0) == []
    there.go_on(6.0)
    assert epoll.poll(0) == [(there.fd, select.EPOLLIN)]
    sock = there.take(6.0)
    assert sock is not None
    assert not sock.getblocking()
    client.send(b"a request")
    assert epoll.poll(0) == [(sock.fileno(), select.EPOLLIN)]
    sock.close()
    assert there.take(6.0) is None


def test_timeouts() -> None:
    assert timeout_until(None, 3.0) is None
    assert timeout_until(2.0, 3.0) == 0
    assert timeout_until(3.0001, 3.0) == 0.001
