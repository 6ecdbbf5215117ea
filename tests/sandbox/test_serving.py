"""All that `cdna serve` does once it serves, done to one that is in its sandbox: nothing is missing there.

`python -m tests.sandbox.derive` runs these traced, and compares the list of system calls with what they need.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cdna.base.units import parse_mac
from cdna.errors import CdnaError
from cdna.guest_driver.vhost_frontend import AttachedGuest, Frontend, attach
from cdna.guest_driver.vrings import Buffer
from cdna.lab.capture import LabCapture
from cdna.lab.control import ControlClient
from cdna.sandbox import trace
from cdna.sandbox.preload import make_no_code
from tests.support.frames import frame
from tests.support.lab import CDNA, DEADLINE, Serve, needs_namespaces, wait_for
from tests.support.namespace import delete_link, host_end, in_namespace, make_tap, make_veth, set_link

A, B = "02:00:00:00:00:0a", "02:00:00:00:00:0b"
DEVICE, FAR = "cdsb0", "cdsb1"

Ask = Callable[..., dict[str, Any]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "control"


def address(text: str) -> bytes:
    return parse_mac(text)


@contextlib.contextmanager
def serving(path: Path, *argv: str) -> Iterator[tuple[Serve, Ask]]:
    """A server that ends well, and a function that asks it as `cdna ctl` does."""
    with Serve(path, *argv) as server:
        with ControlClient(str(path)) as client:

            def ask(command: str, **fields: Any) -> dict[str, Any]:
                reply, fds = client.call(command, **fields)
                for fd in fds:
                    os.close(fd)
                return reply

            yield server, ask
        status, _, said = server.end(signal.SIGTERM)
        assert status == 0, said
        assert "Traceback" not in said
        assert "internal error" not in said


def guest(ask: Ask, name: str) -> dict[str, Any]:
    shown: dict[str, Any] = ask("show", guest=name)["guest"]
    return shown


def test_virtual_machines(path: Path, tmp_path: Path) -> None:
    """Frontends come and go; frames, interrupts, faults, captures; contexts that are added."""
    sockets = [f"--context=vhost-user:{tmp_path}/{name}.sock,mac={mac}" for name, mac in (("a", A), ("b", B))]
    sockets.append(f"--context=vhost-user:{tmp_path}/far.sock,mode=client")
    metrics, totals = tmp_path / "metrics", tmp_path / "totals.json"
    with serving(path, *sockets, "--metrics", str(metrics), "--json", str(totals)) as (_, ask):
        for _ in range(2):
            with attach(tmp_path / "a.sock") as alice, attach(tmp_path / "b.sock") as bob:
                talk(alice, bob)
                capture(path, alice)
                shrink(ask, alice, bob)
                bob.tx[0].add([Buffer(1 << 50, 60)])  # nowhere in its memory
                bob.tx[0].kick(always=True)
                wait_for(lambda: guest(ask, "b")["state"] == "faulted")
                ask("reset", guest="b")
            for up in (False, True):
                ask("link", guest="a", up=up)
        with Frontend.connect(tmp_path / "b.sock") as frontend:
            frontend.send_raw(b"nonsense" * 4)
            assert frontend.ended()
        listens(tmp_path / "far.sock")
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(metrics))
            client.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            assert b"200 OK" in client.recv(65536)
    assert json.loads(totals.read_text())["guests"][0]["tx_frames"] >= 18
    assert list(tmp_path.iterdir()) == [totals]


def shrink(ask: Ask, alice: AttachedGuest, bob: AttachedGuest) -> None:
    """The engine meets SIGBUS in memory that has gone: its handler maps zeros, and the guest is stopped."""
    os.ftruncate(alice.memory.fd, 0)

    def stopped() -> bool:
        bob.send([frame(address(A), address(B))])
        bob.reclaim()
        return guest(ask, "a")["state"] == "faulted"

    wait_for(stopped)
    assert "FAULT_MEMORY_GONE" in guest(ask, "a")["fault"]
    os.ftruncate(alice.memory.fd, alice.memory.size)
    ask("reset", guest="a")


def talk(alice: AttachedGuest, bob: AttachedGuest) -> None:
    sent = [frame(address(B), address(A), number) for number in range(9)]
    got: list[bytes] = []

    def arrived() -> bool:
        got.extend(bob.recv())
        return len(got) >= len(sent)

    alice.send(sent)
    wait_for(arrived)
    assert got == sent


def capture(path: Path, alice: AttachedGuest) -> None:
    """What a guest sends is recorded."""
    with LabCapture(str(path), ["a"], buffer=1 << 20) as recording:

        def recorded() -> bool:
            alice.send([frame(address(B), address(A))])
            alice.reclaim()
            return len(recording.reader.read()) > 0

        wait_for(recorded)


def listens(where: Path) -> None:
    """A frontend that listens, to which the server connects."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(where))
        listener.listen()
        listener.settimeout(DEADLINE)
        sock, _ = listener.accept()
    where.unlink()
    with Frontend(sock) as frontend:
        frontend.negotiate()
        frontend.sync()


def test_every_command(path: Path, tmp_path: Path) -> None:
    with serving(path, f"--context=vhost-user:{tmp_path}/a.sock", "--context=synthetic:gen,to=a,rate=1M") as (
        server,
        ask,
    ):
        entered = ask("list")["sandbox"]
        assert entered["mode"] in ("on", "log")
        assert "no new privileges" in entered["active"]
        for command in ("stats", "metrics", "hosts", "capture-interfaces"):
            assert ask(command)["ok"]
        assert ask("stats", guest="a")["counters"]["faults"] == 0
        with open(os.devnull, "w") as file, pytest.raises(CdnaError, match="keep: enter a guest first"):
            ask("keep", send_fds=(file.fileno(),))
        ask("set", guest="a", settings={"rate": "10M", "weight": 3})
        ask("set", guest="gen", settings={"protection": "none"})
        ask("reset", guest="gen")
        for up in (False, True):
            ask("link", guest="gen", up=up)
        added = server.ctl("add", f"vhost-user:{tmp_path}/late.sock,user=nobody")
        assert (added.returncode, added.stderr) == (0, "")
        with attach(tmp_path / "late.sock"):
            ask("remove", guest="late")
        ask("add", settings={"kind": "synthetic", "name": "late", "to": "a"})
        ask("remove", guest="late")


@pytest.mark.skipif(trace.TO in os.environ, reason="a traced server has room for everything")
def test_what_the_sandbox_has_no_room_for(path: Path, tmp_path: Path) -> None:
    """Is refused in one line, and the server serves on."""
    with serving(path, f"--context=vhost-user:{tmp_path}/a.sock") as (_, ask):
        for settings, said in (
            ({"name": "web"}, "a namespace, for which this server's sandbox has no room"),
            ({"kind": "vhost-user", "path": "/tmp/x.sock"}, "/tmp is outside this server's sandbox"),
        ):
            with pytest.raises(CdnaError, match=said):
                ask("add", settings=settings)
        assert not Path("/tmp/x.sock").exists()
        assert [shown["guest"] for shown in ask("list")["guests"]] == ["a"]


def test_a_folder_for_sockets_that_come_later(path: Path, tmp_path: Path) -> None:
    (tmp_path / "later").mkdir()
    with serving(path, "--context=synthetic:s", "--sandbox-path", str(tmp_path / "later")) as (_, ask):
        ask("add", settings={"kind": "vhost-user", "path": f"{tmp_path}/later/a.sock"})
        with attach(tmp_path / "later" / "a.sock"):
            pass


def test_the_default_socket(tmp_path: Path) -> None:
    """Its folder goes with it."""
    done = subprocess.run(
        [*CDNA, "serve", "--context=synthetic:s", "--for", "0.01"],
        env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.iterdir())


@needs_namespaces
def test_a_tap_that_goes_and_comes_back(path: Path) -> None:
    def scenario() -> None:
        sender = f"--context=synthetic:gen,to={B},rate=1M"
        with serving(path, sender, "--wire", f"tap:{DEVICE}", "--poll", "busy") as (_, ask):
            arrives(DEVICE)
            delete_link(DEVICE)
            wait_for(lambda: link(ask) == "down")
            make_tap(DEVICE)
            wait_for(lambda: link(ask) == "up")
            arrives(DEVICE)
            for up in (False, True):
                ask("link", guest="wire", up=up)
            set_link(DEVICE, up=False)
            wait_for(lambda: link(ask) == "down")

    in_namespace(scenario)


def link(ask: Ask) -> str:
    return str(ask("list")["wire"]["link"])


def arrives(device: str) -> None:
    """Waits for a frame of the synthetic guest's."""
    with host_end(device, 3) as host:
        while host.recv(2000)[:6] != address(B):
            pass


@needs_namespaces
def test_an_interface_that_goes_and_comes_back(path: Path) -> None:
    def scenario() -> None:
        make_veth(DEVICE, FAR)
        with serving(path, f"--context=synthetic:gen,to={B},rate=1M", "--wire", f"packet:{DEVICE}") as (
            _,
            ask,
        ):
            arrives(FAR)
            set_link(FAR, up=False)
            wait_for(lambda: link(ask) == "down")
            delete_link(DEVICE)
            make_veth(DEVICE, FAR)
            wait_for(lambda: link(ask) == "up")
            arrives(FAR)

    in_namespace(scenario)


@needs_namespaces
def test_namespaces(path: Path) -> None:
    """Guests that are namespaces come and go; programs inside; metrics on a port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with serving(path, "--context=namespace:a", "--metrics", str(port)) as (server, ask):
        ask("add", settings={"name": "b"})
        inside = server.exec("a", "ping", "-c1", "-W9", "b")
        assert inside.returncode == 0, inside.stderr
        for up in (False, True):
            ask("link", guest="b", up=up)
        ask("set", guest="b", settings={"protection": "none"})
        ask("reset", guest="b")
        assert server.exec("b", "ip", "link", "del", "eth0").returncode == 0
        assert guest(ask, "b")["device"] is False
        ask("reset", guest="b")
        inside = server.exec("b", "ping", "-c1", "-W9", "a")
        assert inside.returncode == 0, inside.stderr
        program = server.start("b", ["cat"])
        ask("add", settings={"name": "c"})
        ask("remove", guest="c")
        ask("remove", guest="b")
        program.communicate(timeout=DEADLINE)
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE)
        for where, status in (("/metrics", 200), ("/nothing", 404)):
            connection.request("GET", where)
            response = connection.getresponse()
            response.read()
            assert response.status == status
        connection.close()


# What an interpreter or a C library does at its end, or while it runs, because its environment says so.
ENVIRONMENT = {
    "LD_DEBUG": "statistics",
    "PYTHONDEVMODE": "1",
    "PYTHONFAULTHANDLER": "1",
    "PYTHONPERFSUPPORT": "1",
}


def test_settings_of_the_interpreter(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    with serving(path, "--context=synthetic:a") as (_, ask):
        ask("reset", guest="a")


def test_no_code_is_made_for_perf(monkeypatch: pytest.MonkeyPatch) -> None:
    stopped: list[bool] = []
    monkeypatch.setattr(sys, "deactivate_stack_trampoline", lambda: stopped.append(True), raising=False)
    make_no_code()
    assert stopped


@needs_namespaces
def test_another_user(path: Path, tmp_path: Path) -> None:
    """It becomes nobody, whose sockets these are then; root may still come."""
    with serving(path, f"--context=vhost-user:{tmp_path}/a.sock", "--user", "nobody") as (server, ask):
        for thread in Path(f"/proc/{server.process.pid}/task").iterdir():
            status = dict(line.split(":", 1) for line in (thread / "status").read_text().splitlines())
            assert set(status["Uid"].split()) == set(status["Gid"].split()) == {"65534"}
        assert {os.stat(tmp_path / name).st_uid for name in ("a.sock", "control")} == {65534}
        for _ in range(2):
            with attach(tmp_path / "a.sock"):
                wait_for(lambda: guest(ask, "a")["connected"])
            for up in (False, True):
                ask("link", guest="a", up=up)
    assert list(tmp_path.iterdir()) == []
