"""`cdna serve` as a user runs it: frontends that attach and talk, changes, faults, signals, what is left."""

import contextlib
import json
import os
import re
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cdna.base.units import parse_mac
from cdna.guest_driver.vhost_frontend import ALL_PACKED, AttachedGuest, Frontend, attach
from cdna.guest_driver.vrings import Buffer, GuestMemory
from cdna.protocol.features import names
from cdna.protocol.vhost_user import HEADER, VERSION, Request
from cdna.virtio import Feature
from tests.support.frames import frame
from tests.support.lab import CDNA, DEADLINE, Serve, needs_namespaces, run, wait_for

A, B = "02:00:00:00:00:0a", "02:00:00:00:00:0b"


def address(text: str) -> bytes:
    return parse_mac(text)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "control"


@pytest.fixture
def contexts(tmp_path: Path) -> list[str]:
    return [
        f"--context=vhost-user:{tmp_path}/a.sock,mac={A}",
        f"--context=vhost-user:{tmp_path}/b.sock,mac={B},name=bob",
    ]


@pytest.fixture
def server(path: Path, contexts: list[str]) -> Iterator[Serve]:
    with Serve(path, *contexts) as server:
        yield server


@pytest.fixture
def small_cgroup() -> Iterator[Path]:
    """A memory cgroup of 512 MiB, of whichever version this machine has."""
    mounted = Path("/sys/fs/cgroup")
    version_1 = (mounted / "memory").is_dir()
    folder = (mounted / "memory" if version_1 else mounted) / f"cdna-test-{os.getpid()}"
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"no cgroup can be made here: {error}")
    try:
        (folder / ("memory.limit_in_bytes" if version_1 else "memory.max")).write_text(str(512 << 20))
        yield folder
    except OSError as error:
        pytest.skip(f"no memory cgroup: {error}")
    finally:
        wait_for(lambda: not (folder / "cgroup.procs").read_text())
        folder.rmdir()


def test_a_guest_of_holes_does_not_end_a_server_in_a_small_cgroup(
    path: Path, contexts: list[str], tmp_path: Path, small_cgroup: Path
) -> None:
    """Its file has no pages, and the NIC's reads would make them, on the server's account."""
    with Serve(path, *contexts, cgroup=small_cgroup) as server:
        with contextlib.closing(GuestMemory(1 << 30)) as memory, pytest.raises(ConnectionError):
            attach(tmp_path / "a.sock", memory=memory)
        wait_for(lambda: listed(server)["a"]["memory_refused"] == 1)
        assert "bytes more; the server can pay for" in listed(server)["a"]["last_error"]
        with attach(tmp_path / "a.sock") as alice, attach(tmp_path / "b.sock") as bob:
            talk(alice, bob)
        assert server.process.poll() is None


def all_that_is_admitted(socket: Path) -> AttachedGuest:
    """A guest with the largest memory, in steps of 16 MiB, that the server takes."""
    for size in range(512 << 20, 0, -16 << 20):
        memory = GuestMemory(size)
        with contextlib.suppress(ConnectionError):
            return attach(socket, memory=memory, size=256)
        memory.close()
    raise AssertionError("no memory is admitted")


def have_every_page_read(guest: AttachedGuest) -> None:
    """Frames of which each piece lies in a page that was never written."""
    memory, ring = guest.memory, guest.tx[0]
    first = memory.alloc(4096, 4096)
    memory.write(first, bytes(12) + frame(address(B), address(A), 0, size=60))
    pages = range(first + 4096, memory.regions[0].guest_addr + memory.size, 4096)
    for at in range(0, len(pages), 200):
        pieces = [Buffer(page, 4) for page in pages[at : at + 200]]
        ring.add([Buffer(first, 12 + 60), *pieces])
        ring.kick()
        wait_for(ring.take)


def test_all_pages_that_are_admitted_fit_into_a_small_cgroup(
    path: Path, contexts: list[str], tmp_path: Path, small_cgroup: Path
) -> None:
    with Serve(path, *contexts, cgroup=small_cgroup) as server:
        with all_that_is_admitted(tmp_path / "a.sock") as guest:
            assert guest.memory.size >= 64 << 20
            have_every_page_read(guest)
            assert counters(server, "a")["tx_frames"] >= guest.memory.size // 4096 // 200
        os.ftruncate(guest.memory.fd, 0)  # all its pages are gone, whoever has the file
        assert server.process.poll() is None
        with attach(tmp_path / "a.sock") as alice, attach(tmp_path / "b.sock") as bob:
            talk(alice, bob)


def listed(server: Serve) -> dict[str, dict[str, Any]]:
    """What `cdna ctl list` says of each guest, by name."""
    guests = json.loads(server.ctl("list", "--json").stdout)["guests"]
    return {guest["guest"]: guest for guest in guests}


def counters(server: Serve, guest: str) -> dict[str, int]:
    found: dict[str, int] = json.loads(server.ctl("stats", guest, "--json").stdout)
    return found


def talk(alice: AttachedGuest, bob: AttachedGuest, frames: int = 20) -> None:
    """Frames from the one to the other, which arrive: all, unchanged, in order."""
    sent = [frame(address(B), address(A), number) for number in range(frames)]
    got: list[bytes] = []

    def arrived() -> bool:
        got.extend(bob.recv())
        return len(got) >= frames

    assert alice.send(sent) == frames
    wait_for(arrived)
    assert got == sent


class TestFrontends:
    def test_they_talk(self, server: Serve, tmp_path: Path) -> None:
        assert server.first_line == f"serving: 2 contexts, socket {server.path}\n"
        with attach(tmp_path / "a.sock") as alice, attach(tmp_path / "b.sock") as bob:
            talk(alice, bob)
            assert listed(server)["bob"]["peer"] == os.getpid()
            assert counters(server, "a")["tx_frames"] == 20
            assert counters(server, "bob")["rx_frames"] == 20
            shown = json.loads(server.ctl("show", "a", "--json").stdout)["features"]
            assert "VIRTIO_F_VERSION_1" in shown
        wait_for(lambda: not listed(server)["a"]["connected"])

    def test_sockets_are_their_owners_alone(self, server: Serve, tmp_path: Path) -> None:
        for name in ("a.sock", "b.sock", "control"):
            assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600

    def test_another_user_may_be_let_in(self, path: Path, tmp_path: Path) -> None:
        with Serve(path, f"--context=vhost-user:{tmp_path}/a.sock,user=nobody"):
            with attach(tmp_path / "a.sock"):
                pass
            assert stat.S_IMODE((tmp_path / "a.sock").stat().st_mode) == 0o666

    def test_paths_are_escaped_where_they_are_shown(self, path: Path, tmp_path: Path) -> None:
        hostile, shown = "\x1b[2J\x9b\n", r"\x1b[2J\x9b\n"
        where = tmp_path / f"{hostile}cdna serve: forged.sock"
        with Serve(path, f"--context=vhost-user:{where},name=a,mac={A}") as server:
            with Frontend.connect(where) as frontend:
                frontend.send_raw(HEADER.pack(99, VERSION, 0))
                assert frontend.ended()
            told = [
                server.ctl("show", "a"),
                server.ctl("add", f"vhost-user:{tmp_path}/{hostile}b.sock,name=b,mac={B}"),
                server.ctl("add", f"vhost-user:{where},name=c"),  # which is taken
                run("qemu", "a", "--socket", str(path), "--version", "7.2"),
            ]
            for done in told:
                assert all(line.isprintable() for line in (done.stdout + done.stderr).split("\n")), done
            assert f"{shown}cdna serve: forged.sock" in told[0].stdout
            assert f"{shown}b.sock" in told[-3].stdout
            assert r"\x1b[2J\x9b cdna serve: forged.sock is taken" in told[-2].stderr
            assert shown in told[-1].stderr
            _, _, logged = server.end(signal.SIGTERM)
        lines = logged.splitlines()
        assert lines
        assert all(line.isprintable() and line.startswith("cdna serve: ") for line in lines)

    @pytest.mark.parametrize("poll", ["busy", "adaptive"])
    def test_ways_to_poll(self, path: Path, contexts: list[str], tmp_path: Path, poll: str) -> None:
        with (
            Serve(path, *contexts, "--poll", poll),
            attach(tmp_path / "a.sock") as alice,
            attach(tmp_path / "b.sock") as bob,
        ):
            talk(alice, bob)

    def test_a_frontend_that_listens(self, path: Path, tmp_path: Path) -> None:
        where = tmp_path / "vm.sock"
        with Serve(path, f"--context=vhost-user:{where},mode=client") as server:
            for _ in range(2):  # it connects again when the first has gone
                with socket.socket(socket.AF_UNIX) as listener:
                    listener.bind(str(where))
                    listener.listen()
                    listener.settimeout(DEADLINE)
                    sock, _ = listener.accept()
                where.unlink()
                with Frontend(sock) as frontend:
                    frontend.negotiate()
                    frontend.sync()
            assert listed(server)["vm"]["mode"] == "client"

    def test_a_rate_is_held(self, path: Path, contexts: list[str], tmp_path: Path) -> None:
        contexts[0] += ",rate=4M"
        with Serve(path, *contexts) as server:
            with attach(tmp_path / "a.sock") as alice, attach(tmp_path / "b.sock"):
                start = time.monotonic()
                big = frame(address(B), address(A), size=1500)
                while time.monotonic() < start + 1:
                    alice.send([big] * 32)
                    alice.reclaim()
                bits = 8 * counters(server, "a")["tx_bytes"]
                took = time.monotonic() - start
            assert 1e6 < bits < took * 4e6 + 2e6  # a full bucket's worth comes at once

    def test_no_privilege_is_needed(self, path: Path, contexts: list[str], tmp_path: Path) -> None:
        with (
            Serve(path, *contexts, unprivileged=True) as server,
            attach(tmp_path / "a.sock") as alice,
            attach(tmp_path / "b.sock") as bob,
        ):
            talk(alice, bob)
            assert server.end(signal.SIGTERM)[0] == 0

    def test_capture(self, server: Serve, tmp_path: Path) -> None:
        capture = subprocess.Popen(
            [*CDNA, "capture", "a", "--socket", str(server.path), "-w", "-", "-c", "20"],
            stdout=subprocess.PIPE,
        )
        with attach(tmp_path / "a.sock") as alice, attach(tmp_path / "b.sock"):
            frames = [frame(address(B), address(A), number) for number in range(20)]

            def ended() -> bool:
                alice.send(frames)
                alice.reclaim()
                return capture.poll() is not None

            wait_for(ended)
        recorded, _ = capture.communicate(timeout=DEADLINE)
        assert frames[0] in recorded
        assert capture.returncode == 0


class TestControl:
    def test_a_context_comes_and_goes(self, server: Serve, tmp_path: Path) -> None:
        added = server.ctl("add", f"vhost-user:{tmp_path}/late.sock,mac={B[:-1]}c,vlan=5")
        assert (added.stdout, added.stderr) == (f"late: {tmp_path}/late.sock, {B[:-1]}c\n", "")
        with attach(tmp_path / "late.sock") as late:
            assert listed(server)["late"]["vlan"] == 5
            assert server.ctl("remove", "late").returncode == 0
            assert late.frontend.ended()
        assert not (tmp_path / "late.sock").exists()

    def test_link(self, server: Serve, tmp_path: Path) -> None:
        with attach(tmp_path / "a.sock") as alice, attach(tmp_path / "b.sock") as bob:
            talk(alice, bob)
            assert server.ctl("link", "bob", "down").returncode == 0
            assert listed(server)["bob"]["link"] == "down"
            assert server.ctl("link", "bob", "up").returncode == 0
        wait_for(lambda: not listed(server)["bob"]["connected"])
        with attach(tmp_path / "a.sock") as alice, attach(tmp_path / "b.sock") as bob:
            talk(alice, bob)

    def test_settings(self, server: Serve) -> None:
        assert server.ctl("set", "a", "rate=10M", "weight=3", "vlan=7").returncode == 0
        a = listed(server)["a"]
        assert (a["rate"], a["weight"], a["vlan"]) == (1e7, 3, 7)
        refused = server.ctl("set", "a", "protection=none")
        assert refused.stderr == (
            "cdna ctl: setting 'protection': a guest that runs can change "
            "vlan, weight, rate, storm, flood, anti_spoof, promiscuous, memory\n"
        )

    def test_memory(self, server: Serve, tmp_path: Path) -> None:
        """What a frontend may lend: refused, shown, and given."""
        assert server.ctl("set", "bob", "memory=4M").returncode == 0
        with pytest.raises(ConnectionError):
            attach(tmp_path / "b.sock")
        assert re.search("^ *memory +4M$", server.ctl("show", "bob").stdout, re.MULTILINE)
        wait_for(lambda: listed(server)["bob"]["memory_refused"] == 1)
        assert "this guest maps up to 4194304 (memory=)" in listed(server)["bob"]["last_error"]
        assert 'cdna_context_memory_refused{context="bob"} 1' in server.ctl("metrics").stdout
        assert server.ctl("set", "bob", "memory=1G").returncode == 0
        with attach(tmp_path / "a.sock") as alice, attach(tmp_path / "b.sock") as bob:
            talk(alice, bob)
            assert listed(server)["bob"]["mapped"] == 8 << 20
            refused = server.ctl("set", "bob", "memory=1M")
            assert "the guest maps 8388608 bytes now" in refused.stderr
        assert server.ctl("set", "bob", "memory=0").returncode == 0
        assert listed(server)["bob"]["memory"] is None

    def test_a_guest_that_breaks_a_rule_is_stopped_and_reset(self, server: Serve, tmp_path: Path) -> None:
        with attach(tmp_path / "a.sock") as alice, attach(tmp_path / "b.sock") as bob:
            talk(alice, bob)
            bob.tx[0].add([Buffer(1 << 50, 60)])  # nowhere in its memory
            bob.tx[0].kick(always=True)
            wait_for(lambda: listed(server)["bob"]["state"] == "faulted")
            assert "FAULT_" in listed(server)["bob"]["fault"]
            assert "bob is stopped: FAULT_" in server.ctl("list").stdout
            assert counters(server, "bob")["faults"] == 1
            assert server.ctl("reset", "bob").returncode == 0
            assert (listed(server)["bob"]["state"], listed(server)["bob"]["fault"]) == ("running", None)
        with attach(tmp_path / "a.sock") as alice, attach(tmp_path / "b.sock") as bob:
            talk(alice, bob)

    def test_a_message_that_cannot_be(self, server: Serve, tmp_path: Path) -> None:
        with Frontend.connect(tmp_path / "a.sock") as frontend:
            frontend.send_raw(HEADER.pack(Request.SET_FEATURES, VERSION, 1 << 30))
            assert frontend.ended()
        assert "SET_FEATURES" in str(listed(server)["a"]["last_error"])
        status, _, err = server.end(signal.SIGTERM)
        assert (status, len([line for line in err.splitlines() if "SET_FEATURES" in line])) == (0, 1)


class TestTheEnd:
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_signals(self, path: Path, contexts: list[str], tmp_path: Path, number: int) -> None:
        totals = tmp_path / "totals.json"
        with (
            Serve(path, *contexts, "--json", str(totals)) as server,
            attach(tmp_path / "a.sock") as alice,
            attach(tmp_path / "b.sock") as bob,
        ):
            talk(alice, bob)
            status, out, _ = server.end(number)
        assert status == 0
        assert [line.split()[:2] for line in out.splitlines()[2:]] == [["a", "20"], ["bob", "0"]]
        assert [row["tx_frames"] for row in json.loads(totals.read_text())["guests"]] == [20, 0]
        assert sorted(tmp_path.iterdir()) == [totals]

    def test_killed_it_starts_again_and_guests_come_back(
        self, path: Path, contexts: list[str], tmp_path: Path
    ) -> None:
        with (
            Serve(path, *contexts) as server,
            attach(tmp_path / "a.sock") as alice,
            attach(tmp_path / "b.sock") as bob,
        ):
            talk(alice, bob)
            server.end(signal.SIGKILL)
            assert (tmp_path / "a.sock").exists()
            with Serve(path, *contexts):
                for guest, name in ((alice, "a"), (bob, "b")):
                    guest.reconnect(tmp_path / f"{name}.sock")
                talk(alice, bob)

    def test_it_tells_a_service_manager(self, path: Path, contexts: list[str], tmp_path: Path) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.bind(str(tmp_path / "notify"))
            manager.settimeout(DEADLINE)
            process = subprocess.Popen(
                [*CDNA, "serve", "--socket", str(path), *contexts],
                stdout=subprocess.DEVNULL,
                env={**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify")},
            )
            try:
                assert manager.recv(100) == b"READY=1"
                process.terminate()
                assert manager.recv(100) == b"STOPPING=1"
            finally:
                process.kill()
                process.wait()


@needs_namespaces
def test_kinds_share_one_nic(path: Path, tmp_path: Path) -> None:
    config = tmp_path / "lab.toml"
    config.write_text(
        f'poll = "busy"\nmetrics = "{tmp_path}/metrics"\n'
        '[[guest]]\nname = "web"\n'
        f'[[context]]\nkind = "vhost-user"\npath = "{tmp_path}/vm.sock"\nmac = "{A}"\nqueues = 2\n'
        '[[context]]\nkind = "synthetic"\nname = "gen"\nto = "vm"\nrate = "10M"\n'
    )
    with Serve(path, "--config", str(config)) as server:
        guests = listed(server)
        assert [guest["kind"] for guest in guests.values()] == ["namespace", "vhost-user", "synthetic"]
        assert [guest["addresses"][:1] for guest in guests.values()] == [["10.77.0.1/24"], [], []]
        with attach(tmp_path / "vm.sock") as vm:
            wait_for(lambda: len(vm.recv()) > 0)
            arp = b"\xff" * 6 + address(A) + bytes.fromhex("08060001080006040001") + address(A)
            arp += bytes([10, 77, 0, 9]) + bytes(6) + bytes([10, 77, 0, 1])
            web = address(guests["web"]["mac"])

            def answered() -> bool:
                vm.send([arp.ljust(60, b"\0")])
                vm.reclaim()
                return any(got[6:14] == web + b"\x08\x06" for got in vm.recv())

            wait_for(answered)
        assert "programs run inside namespaces only" in server.exec("vm", "true").stderr
        assert server.exec("web", "true").returncode == 0
        assert server.end(signal.SIGTERM)[0] == 0
    assert list(tmp_path.iterdir()) == [config]


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ([], "no contexts: give --context vhost-user:PATH, or --config FILE"),
        (["--context", "vm"], "give one of namespace:NAME, vhost-user:PATH, synthetic:NAME"),
        (["--context", "tap:x"], "give one of namespace:NAME, vhost-user:PATH, synthetic:NAME"),
        (["--context", "vhost-user:"], "give one of namespace:NAME"),
        (["--context", "vhost-user:/nowhere/x.sock"], "there is no directory '/nowhere'; make it first"),
        (["--context", "vhost-user:/tmp/" + "x" * 110], "longer than the 107 bytes"),
        (["--context", "vhost-user:/tmp"], "a directory; give the path of a socket in it"),
        (
            ["--context", "vhost-user:/tmp/3.sock"],
            "no name is given, and that of its socket, 3: give 1 to 63 letters",
        ),
        (["--context", "vhost-user:/tmp/x.sock,speed=9"], "unknown setting 'speed'; a vhost-user guest has"),
        (["--context", "vhost-user:/tmp/x.sock,rate"], "'rate' has no value; give KEY=VALUE"),
        (["--context", "vhost-user:/tmp/x.sock,rate=1,rate=2"], "'rate' is given twice"),
        (["--context", "vhost-user:/tmp/x.sock,rate=fast"], "rate fast: give bits a second"),
        (["--context", "vhost-user:/tmp/x.sock,queues=9"], "queues 9: give a whole number from 1 to 8"),
        (["--context", "vhost-user:/tmp/x.sock,mode=both"], "mode both: give one of server, client"),
        (["--context", "vhost-user:/tmp/x.sock,packed=yes"], "packed yes: give one of on, off"),
        (["--context", "vhost-user:/tmp/x.sock,memory=5T"], "memory 5T: give a size such as 512M or 4G"),
        (["--context", "vhost-user:/tmp/x.sock,memory=512"], "memory 512: give a size such as 512M or 4G"),
        (["--context", "namespace:x,memory=1G"], "unknown setting 'memory'; a namespace guest has"),
        (
            ["--context", "vhost-user:/tmp/x.sock,features=-rss,-gro"],
            "features: '-gro': give -NAME or +NAME of any_layout, csum, ctrl_guest_offloads",
        ),
        (["--context", "vhost-user:/tmp/x.sock,features=rss"], "features: 'rss': give -NAME or +NAME of"),
        (["--context", "vhost-user:/tmp/x.sock,features=-rss,+rss"], "features: rss is given twice"),
        (
            ["--context", "vhost-user:/tmp/x.sock,features=-csum,+host_tso4"],
            "features: +host_tso4 needs csum, which is not offered; leave one out",
        ),
        (
            ["--context", "vhost-user:/tmp/x.sock,features=+rss"],
            "guest x: features +rss needs queues=2 or more; give both",
        ),
        (
            ["--context", "vhost-user:/tmp/x.sock,packed=off,features=+ring_packed"],
            "guest x: packed=off and features +ring_packed: give one of the two",
        ),
        (["--context", "vhost-user:/tmp/x.sock,user=nobody9"], "user nobody9: no user of this machine"),
        (["--context", "synthetic:gen,to=vm"], "there is no guest 'vm' to send to"),
        (["--context", "synthetic:g", "--context", "synthetic:g"], "guest g: there are two of this name"),
        (["--context", "synthetic:g", "--poll", "lazy"], "--poll lazy: give one of adaptive, busy"),
        (["--context", "synthetic:g", "--wire", "x"], "unknown wire 'x'"),
        (["--context", "synthetic:g", "--metrics", "x"], "--metrics 'x': give a port"),
        (["--context", "synthetic:g", "--metrics", "192.0.2.1:1"], "give another address"),
        (["--context", "synthetic:g", "--config", "x"], "--context and --config: the file says it all"),
    ],
)
def test_mistakes_end_in_one_line(path: Path, argv: list[str], said: str) -> None:
    done = run("serve", "--socket", str(path), "--for", "1", *argv)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("cdna serve: ")
    assert said in line
    assert not path.exists()


def test_two_contexts_at_one_path(path: Path, tmp_path: Path) -> None:
    both = [f"--context=vhost-user:{tmp_path}/x.sock,name={name}" for name in ("a", "b")]
    done = run("serve", "--socket", str(path), *both)
    assert f"guest b: socket {tmp_path}/x.sock is taken by a; give another" in done.stderr


def test_features_are_withheld_and_added(server: Serve, tmp_path: Path) -> None:
    rest = f"{tmp_path}/c.sock,queues=2,features=-guest_csum,+rss,-ring_packed,rate=1G"
    assert server.ctl("add", f"vhost-user:{rest}").returncode == 0
    shown = json.loads(server.ctl("show", "c", "--json").stdout)
    offered = set(shown["offered"])
    assert "VIRTIO_NET_F_RSS" in offered
    assert not {"VIRTIO_NET_F_GUEST_CSUM", "VIRTIO_NET_F_GUEST_TSO4", "VIRTIO_F_RING_PACKED"} & offered
    assert "VIRTIO_NET_F_GUEST_ECN" not in offered  # it needs what needs what is withheld
    with attach(str(tmp_path / "c.sock"), ALL_PACKED) as guest:
        assert set(names(guest.frontend.features, Feature)) == offered - {"VHOST_F_LOG_ALL"}
    assert "VIRTIO_NET_F_RSS" not in json.loads(server.ctl("show", "bob", "--json").stdout)["offered"]


def test_a_path_that_another_server_listens_on(server: Serve, tmp_path: Path) -> None:
    done = run("serve", "--socket", str(tmp_path / "other"), f"--context=vhost-user:{tmp_path}/a.sock")
    assert done.returncode == 2
    assert f"cannot listen on '{tmp_path}/a.sock'" in done.stderr
    with attach(tmp_path / "a.sock"):  # the first one's is as it was
        pass
