"""The control socket: who may connect, what comes back, and what a lab that was killed leaves there."""

import contextlib
import json
import os
import select
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cdna.base.sockets import listen
from cdna.errors import CdnaError, ConfigError, ResourceError
from cdna.lab.control import (
    SESSIONS,
    ControlClient,
    ControlServer,
    Handler,
    Reply,
    Request,
    Session,
    default_path,
    make_directory,
)
from tests.support.lab import wait_for
from tests.support.open_files import open_files
from tests.support.turns import due


class Handlers:
    """What a lab might answer. `ended` counts sessions that are over."""

    def __init__(self) -> None:
        self.ended = 0
        self.read_fd, self.write_fd = os.pipe()

    def table(self) -> dict[str, Handler]:
        return {
            "echo": self.echo,
            "refuse": self.refuse,
            "pipe": self.pipe,
            "watch": self.watch,
            "break": self.fail,
        }

    def echo(self, request: Request, session: Session) -> Reply:
        return {"request": request, "pid": session.pid, "received": len(session.received)}

    def refuse(self, request: Request, session: Session) -> Reply:
        session.fds = [self.read_fd]
        raise ConfigError("this cannot be:\ngive something else")

    def pipe(self, request: Request, session: Session) -> Reply:
        session.fds = [self.read_fd]
        return {}

    def watch(self, request: Request, session: Session) -> Reply:
        session.on_close(self.count)
        return {}

    def fail(self, request: Request, session: Session) -> Reply:
        raise ZeroDivisionError

    def count(self) -> None:
        self.ended += 1


@pytest.fixture
def handlers() -> Iterator[Handlers]:
    handlers = Handlers()
    yield handlers
    os.close(handlers.read_fd)
    os.close(handlers.write_fd)


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "lab.sock")


@pytest.fixture
def server(path: str, handlers: Handlers) -> Iterator[ControlServer]:
    with ControlServer(path, handlers.table()) as server:
        yield server


def test_request_and_reply(server: ControlServer) -> None:
    with ControlClient(server.path) as client:
        reply, fds = client.call("echo", text="\N{SNOWMAN}", number=3)
    assert reply["request"] == {"command": "echo", "text": "\N{SNOWMAN}", "number": 3}
    assert (reply["pid"], reply["ok"], fds) == (os.getpid(), True, [])


def test_large_messages(server: ControlServer) -> None:
    with ControlClient(server.path) as client:
        reply, _ = client.call("echo", text="x" * 100_000)
        assert len(reply["request"]["text"]) == 100_000


def test_descriptors_both_ways(server: ControlServer, handlers: Handlers) -> None:
    with ControlClient(server.path) as client:
        _, (fd,) = client.call("pipe")
        os.write(handlers.write_fd, b"hello")
        assert os.read(fd, 5) == b"hello"
        before = open_files()
        reply, _ = client.call("echo", send_fds=(fd, fd))
        assert reply["received"] == 2
        client.call("echo")  # the request before is done with when this one is answered
        assert open_files() == before  # the lab has closed its own
        os.close(fd)


def test_an_error_is_one_line(server: ControlServer) -> None:
    with ControlClient(server.path) as client:
        with pytest.raises(CdnaError, match=r"^this cannot be: give something else$"):
            client.call("refuse")
        assert client.call("echo")[0]["ok"]  # the session goes on


def test_an_internal_error_ends_neither_it_nor_the_session(server: ControlServer) -> None:
    with ControlClient(server.path) as client:
        with pytest.raises(CdnaError, match="internal error"):
            client.call("break")
        assert client.call("echo")[0]["ok"]


@pytest.mark.parametrize("reply", [b"\xff", b"[]", b'{"error', b"{}"])
def test_what_is_no_lab(path: str, reply: bytes) -> None:
    with listen(path) as listener, ControlClient(path) as client:  # the socket of another program
        session, _ = listener.accept()
        with session:
            session.send(reply)
            with pytest.raises(ResourceError, match="what answers there is no lab"):
                client.call("list")


def test_an_unknown_command_is_told_the_known_ones(server: ControlServer) -> None:
    with ControlClient(server.path) as client, pytest.raises(CdnaError, match="break, echo, pipe"):
        client.call("nonsense")


@pytest.mark.parametrize("message", [b"{", b"[]", b"3", b"\xff", b"{}", b'{"command": 3}', b"[" * 100_000])
def test_nonsense_gets_an_error(server: ControlServer, message: bytes) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.connect(server.path)
        sock.send(message)
        assert "error" in json.loads(sock.recv(1 << 16))


def test_who_leaves_is_noticed(server: ControlServer, handlers: Handlers) -> None:
    with ControlClient(server.path) as client:
        client.call("watch")
    wait_for(lambda: handlers.ended == 1)


def test_the_end_of_the_lab_ends_sessions(server: ControlServer, handlers: Handlers) -> None:
    with ControlClient(server.path) as client:
        client.call("watch")
        server.close()
        assert handlers.ended == 1
        with pytest.raises(ResourceError, match=r"has ended|pipe"):
            client.call("echo")
    assert not os.path.exists(server.path)


def raw(server: ControlServer) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.settimeout(60)
    sock.connect(server.path)
    return sock


def test_another_users_client(server: ControlServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The socket's mode keeps it out; where that was changed, this does."""
    monkeypatch.setattr("cdna.lab.control.peer", lambda sock: (4711, 12345))
    with raw(server) as sock:
        with contextlib.suppress(BrokenPipeError):  # it has hung up already
            sock.send(b'{"command": "echo"}')
        assert ended(sock)


def test_another_users_lab(server: ControlServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """What listens there might lie, or be sent descriptors."""
    monkeypatch.setattr("cdna.lab.control.peer", lambda sock: (4711, 12345))
    with pytest.raises(ResourceError, match="is of user 12345: give the --socket of yours"):
        ControlClient(server.path)


def test_a_request_that_is_cut(server: ControlServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left of it may read as another request."""
    monkeypatch.setattr("cdna.lab.control.MESSAGE_BYTES", 4096)
    with raw(server) as sock:
        sock.send(b'{"command": "echo"}'.ljust(4097))
        assert ended(sock)


def test_a_request_with_more_descriptors_than_any(server: ControlServer, handlers: Handlers) -> None:
    before = open_files()
    with raw(server) as sock:
        socket.send_fds(sock, [b'{"command": "echo"}'], [handlers.read_fd] * 17)
        assert ended(sock)
    wait_for(lambda: open_files() == before)


def ended(sock: socket.socket) -> bool:
    """Whether the server has hung up, and not answered."""
    with contextlib.suppress(ConnectionResetError):
        return sock.recv(1 << 16) == b""
    return True


def test_idle_sessions_have_a_bound(path: str, handlers: Handlers) -> None:
    """Whatever their deadline."""
    with ControlServer(path, handlers.table(), patience=1e6) as server, contextlib.ExitStack() as clients:
        busy = clients.enter_context(ControlClient(server.path))
        busy.call("watch")
        socks = [clients.enter_context(raw(server)) for _ in range(SESSIONS + 8)]
        with ControlClient(server.path) as client:
            assert client.call("echo")[0]["ok"]
        assert [sock.recv(1, socket.MSG_DONTWAIT) for sock in socks[:9]] == [b""] * 9  # idle longest
        assert busy.call("echo")[0]["ok"]  # what holds something is kept


def test_sessions_that_hold_something_are_kept(server: ControlServer) -> None:
    with contextlib.ExitStack() as clients:
        busy = [clients.enter_context(ControlClient(server.path)) for _ in range(SESSIONS)]
        for client in busy:
            client.call("watch")
        with ControlClient(server.path) as late, pytest.raises(CdnaError, match="64 sessions are open"):
            late.call("echo")
        busy[0].close()
        wait_for(lambda: answers(server))


def answers(server: ControlServer) -> bool:
    with contextlib.suppress(CdnaError), ControlClient(server.path) as client:
        return bool(client.call("echo")[0]["ok"])
    return False


def test_a_client_that_asks_nothing_has_a_deadline(path: str, handlers: Handlers) -> None:
    with ControlServer(path, handlers.table(), patience=0.05) as server, ControlClient(path) as client:
        client.call("echo")
        with raw(server) as silent:
            assert silent.recv(1) == b""
        assert client.call("echo")[0]["ok"]


def test_mode(server: ControlServer) -> None:
    assert stat.S_IMODE(os.stat(server.path).st_mode) == 0o600


def test_a_second_lab_is_told_of_the_first(server: ControlServer, path: str) -> None:
    with pytest.raises(ResourceError, match=rf"already running at .*pid {os.getpid()}"):
        ControlServer(path, {})
    with ControlClient(path) as client:
        assert client.call("echo")[0]["ok"]


def test_what_a_killed_lab_leaves_is_replaced(path: str, handlers: Handlers) -> None:
    code = (
        "import os, sys; from cdna.lab.control import ControlServer\n"
        "ControlServer(sys.argv[1], {}); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, path], timeout=60)
    assert os.path.exists(path)
    with pytest.raises(ResourceError, match="no lab is running"):
        ControlClient(path)
    with ControlServer(path, handlers.table()), ControlClient(path) as client:
        assert client.call("echo")[0]["ok"]


def test_a_file_in_the_way_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "precious"
    file.write_text("mine")
    with pytest.raises(ResourceError, match="cannot listen"):
        ControlServer(str(file), {})
    assert file.read_text() == "mine"


@pytest.mark.parametrize("name", ["missing", "no/such/place", "x" * 200])
def test_no_lab(tmp_path: Path, name: str) -> None:
    with pytest.raises(ResourceError, match=r"no lab is running|cannot connect"):
        ControlClient(str(tmp_path / name))


def test_default_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert default_path() == str(tmp_path / "cdna" / "lab.sock")
    make_directory(default_path())
    make_directory(default_path())  # it may be there
    assert stat.S_IMODE((tmp_path / "cdna").stat().st_mode) == 0o700
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert "cdna" in default_path()


def test_a_directory_that_others_write_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cdna").mkdir()
    (tmp_path / "cdna").chmod(0o777)
    with pytest.raises(ConfigError, match="not this user's alone"):
        make_directory(str(tmp_path / "cdna" / "lab.sock"))


def test_who_asks_without_end_waits(path: str, handlers: Handlers) -> None:
    """Requests have half of the time, and 5 seconds at once; here each costs one, and time stands still."""
    now, used = [1000.0], [0.0]

    def cost() -> float:
        used[0] += 1.0
        return used[0]

    with (
        ControlServer(path, handlers.table(), clock=lambda: now[0], cost=cost) as server,
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client,
    ):
        client.settimeout(20)
        client.connect(path)
        request = json.dumps({"command": "echo"}).encode()
        for _ in range(8):
            client.send(request)
        for _ in range(6):
            assert json.loads(client.recv(1 << 16))["ok"] is True
        wait_for(lambda: due(server) == [1002.0])
        assert select.select([client], [], [], 0)[0] == []
        now[0] += 3
        server.wake()
        assert json.loads(client.recv(1 << 16))["ok"] is True
        assert select.select([client], [], [], 0)[0] == []
