"""The socket that guests of other processes come to."""

import logging
import os
import socket
import stat
import tempfile
from pathlib import Path

import pytest

from cdna import ConfigError, Machine, RemoteDriver, ResourceError
from cdna.abi import ContextState
from cdna.protocol.hypercall import Hypercall
from cdna.vmm import server as server_module
from tests.support.guest_process import NOBODY, GuestProcess
from tests.support.lab import wait_for


@pytest.fixture
def machine():
    machine = Machine(16 << 20, contexts=4)
    yield machine
    machine.close()


def test_the_socket_is_the_owners_alone(machine, tmp_path):
    path = tmp_path / "vmm"
    old = os.umask(0)
    try:
        with machine.serve(path):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
    finally:
        os.umask(old)
    assert not path.exists()


def test_a_path_is_served_once(machine, tmp_path):
    path = tmp_path / "vmm"
    with machine.serve(path):
        with pytest.raises(ResourceError, match=r"cannot listen on .*Address already in use; give another"):
            machine.serve(path)
        RemoteDriver(path, name="guest").close()
    with pytest.raises(ResourceError, match="no VMM at"):
        RemoteDriver(path, name="guest")


def test_what_a_dead_vmm_left_is_replaced(machine, tmp_path):
    path = tmp_path / "vmm"
    left = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    left.bind(os.fspath(path))
    left.close()
    with machine.serve(path):
        RemoteDriver(path, name="guest").close()


def test_a_file_of_somebody_elses_is_not_replaced(machine, tmp_path):
    path = tmp_path / "file"
    path.write_text("kept")
    with pytest.raises(ResourceError, match="cannot listen"):
        machine.serve(path)
    assert path.read_text() == "kept"


def test_the_machine_ends_its_servers(tmp_path):
    path = tmp_path / "vmm"
    with Machine(16 << 20) as machine:
        machine.serve(path)
        driver = RemoteDriver(path, name="guest")
    with pytest.raises(ResourceError, match="no longer this guest's"):
        driver.wait(60)
    driver.close()
    driver.close()
    assert not path.exists()


def test_a_guest_destroyed_by_the_operator(machine, tmp_path):
    with machine.serve(tmp_path / "vmm") as server:
        driver = RemoteDriver(tmp_path / "vmm", name="guest")
        assert [guest.name for guest in server.guests] == ["guest"]
        machine.vmm.destroy_guest(machine.guest("guest"))
        with pytest.raises(ResourceError, match="no longer this guest's"):
            driver.context.stats()
        again = RemoteDriver(tmp_path / "vmm", name="guest")  # the name is free, and stays this one's
        assert machine.guest("guest") in server.guests
        again.close()
        driver.close()


def test_a_guest_per_context_and_no_more(machine, tmp_path):
    with machine.serve(tmp_path / "vmm"):
        drivers = [RemoteDriver(tmp_path / "vmm", name=f"guest{i}", tx_ring=8, rx_ring=8) for i in range(4)]
        with pytest.raises(ResourceError, match="all 4 contexts are taken"):
            RemoteDriver(tmp_path / "vmm", name="one-more", tx_ring=8, rx_ring=8)
        assert len(machine.vmm.guests) == 4
        for driver in drivers:
            driver.close()


def test_no_more_guests_than_are_allowed(machine, tmp_path):
    with machine.serve(tmp_path / "vmm", max_guests=1), RemoteDriver(tmp_path / "vmm", name="guest"):
        with pytest.raises(ResourceError, match="1 guests are connected, and no more are allowed"):
            RemoteDriver(tmp_path / "vmm", name="second")
        assert set(machine.vmm.guests) == {"guest"}


def test_more_memory_than_there_is(machine, tmp_path):
    with machine.serve(tmp_path / "vmm"), RemoteDriver(tmp_path / "vmm", name="guest"):
        with pytest.raises(ResourceError, match="contiguous pages wanted"):
            RemoteDriver(tmp_path / "vmm", name="large", memory=16 << 20)
        with pytest.raises(ConfigError, match="memory of 1 to"):
            RemoteDriver(tmp_path / "vmm", name="larger", memory=1 << 40)


def test_a_guest_that_takes_anothers_default_address(machine, tmp_path):
    with machine.serve(tmp_path / "vmm", macs=["02:cd:0a"]):
        squatter = RemoteDriver(tmp_path / "vmm", name="squatter", mac="02:cd:0a:00:00:01")
        driver = RemoteDriver(tmp_path / "vmm", name="guest")
        assert driver.context.index == 1
        assert driver.context.mac == "02:cd:0a:01:00:01"
        squatter.close()
        driver.close()


def test_a_guest_that_asks_for_the_gateways_address(machine, tmp_path):
    """It is refused in one line, unless the operator has given it; nothing is left of the attempt."""
    gateway = "02:ff:ff:ff:ff:01"
    with machine.serve(tmp_path / "vmm"):
        with pytest.raises(ConfigError, match="'mac' is not the guest's to choose"):
            RemoteDriver(tmp_path / "vmm", name="guest", mac=gateway)
        assert not machine.vmm.guests
    with machine.serve(tmp_path / "vmm", macs=["02:00"]):
        with pytest.raises(ConfigError, match=f"MAC address {gateway}: this VMM allows 02:00"):
            RemoteDriver(tmp_path / "vmm", name="guest", mac=gateway)
        with RemoteDriver(tmp_path / "vmm", name="guest", mac="02:00:00:00:00:01") as driver:
            assert driver.context.mac == "02:00:00:00:00:01"


def test_out_of_descriptors_until_somebody_goes(machine, tmp_path, monkeypatch):
    """The server stops listening and takes it up again; nobody is turned away for good."""
    monkeypatch.setattr("cdna.base.listener.ACCEPT_AGAIN", 0.001)
    with machine.serve(tmp_path / "vmm"):
        first = RemoteDriver(tmp_path / "vmm", name="first")

        def refuse_once(listener):
            monkeypatch.setattr(socket.socket, "accept", accept)
            raise OSError(24, "Too many open files")

        accept = socket.socket.accept
        monkeypatch.setattr(socket.socket, "accept", refuse_once)
        waiting = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        waiting.connect(os.fspath(tmp_path / "vmm"))
        first.close()
        second = RemoteDriver(waiting, name="second")
        second.close()


@pytest.fixture
def open_directory():
    """A directory that every user may enter; pytest's own ones are the owner's alone."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        yield Path(name)


@pytest.mark.skipif(os.geteuid() != 0, reason="another user's process needs root to start")
@pytest.mark.parametrize("allowed", [False, True])
def test_another_user(machine, open_directory, allowed):
    """Only who is named may connect; the mode of the socket alone would keep nobody out here."""
    path = open_directory / "vmm"
    with machine.serve(path, uids=[NOBODY] if allowed else [12345]):
        guest = GuestProcess(path)
        guest.run("os.setgroups([]); os.setresgid(*[NOBODY] * 3); os.setresuid(*[NOBODY] * 3)")
        outcome = guest.run("""
try:
    attach()
    result = "attached"
except Exception as error:
    result = f"{type(error).__name__}: {error}"
""")
        guest.close()
    if allowed:
        assert outcome == "attached"
    else:
        assert outcome.startswith("ResourceError: the VMM")


def test_a_user_that_nobody_named(machine, tmp_path, monkeypatch):
    monkeypatch.setattr(server_module, "peer", lambda sock: (4711, 12345))
    with machine.serve(tmp_path / "named", uids=[12345]), RemoteDriver(tmp_path / "named", name="guest"):
        pass
    with machine.serve(tmp_path / "vmm", uids=[1]), pytest.raises(ResourceError, match="the VMM"):
        RemoteDriver(tmp_path / "vmm", name="guest")


def test_a_buffer_that_cannot_be_gives_everything_back(machine, tmp_path):
    with machine.serve(tmp_path / "vmm"):
        with pytest.raises(ConfigError, match="buffers of 100 bytes"):
            RemoteDriver(tmp_path / "vmm", name="guest", buffer_size=100)
        RemoteDriver(tmp_path / "vmm", name="guest").close()


def test_nobody_waits_forever_for_a_request(machine, tmp_path, monkeypatch):
    monkeypatch.setattr(server_module, "PATIENCE", 1e6)  # seconds: no deadline ends them
    with machine.serve(tmp_path / "vmm"):
        idle = []
        for _ in range(3 * server_module.WAITING):
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            sock.connect(os.fspath(tmp_path / "vmm"))
            idle.append(sock)
        RemoteDriver(tmp_path / "vmm", name="guest").close()
        idle[0].setblocking(False)
        assert idle[0].recv(1) == b""  # the first to come was the first to go
        for sock in idle:
            sock.close()


def test_a_guest_to_be_that_makes_no_request_has_a_deadline(machine, tmp_path, monkeypatch):
    monkeypatch.setattr(server_module, "PATIENCE", 0.05)
    path = tmp_path / "vmm"
    with machine.serve(path), RemoteDriver(path, name="guest") as guest:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as silent:
            silent.settimeout(60)
            silent.connect(os.fspath(path))
            assert silent.recv(1) == b""
        assert guest.context.state == ContextState.CONTEXT_RUNNING


def test_a_message_that_came_before_its_context_was_taken_away(machine, tmp_path, caplog):
    """It is not carried out: the context may be another guest's by then."""
    path = tmp_path / "vmm"
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with machine.serve(path) as server, caplog.at_level(logging.INFO, "cdna.vmm"):
        sock.connect(os.fspath(path))
        with RemoteDriver(sock, name="guest") as driver:
            with server.lock:  # its thread stands still
                sock.send(int(Hypercall.HYPERCALL_STATUS).to_bytes(2, "little") + bytes(14))
                machine.vmm.revoke(machine.vmm.contexts[driver.context.index])
            wait_for(lambda: not server.guests)
    assert [record.levelname for record in caplog.records] == ["INFO", "INFO"]
    assert "has gone" in caplog.text
