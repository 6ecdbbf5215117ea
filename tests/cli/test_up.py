"""`cdna up`, `exec` and `ctl` as a user runs them: processes, signals, files, and what is left behind."""

import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Cdna
from tests.support.lab import CDNA, Up, needs_namespaces, run, unique, user_namespaces_work, wait_for
from tests.support.open_files import open_files

TOTALS = {"guest", "tx_frames", "tx_bytes", "rx_frames", "rx_bytes", "drops", "faults", "interrupts"}

# A server that says when it listens, and a client of it; the port comes from the kernel.
ECHO = (
    "import socket, sys\n"
    "s = socket.create_server(('', 0), family=socket.AF_INET6, dualstack_ipv6=True)\n"
    "print(s.getsockname()[1], flush=True)\n"
    "c, peer = s.accept()\n"
    "c.sendall(c.recv(100).upper()); print(peer[0].removeprefix('::ffff:'))\n"
)
CALL = (
    "import socket, sys\n"
    "s = socket.create_connection((sys.argv[1], int(sys.argv[2])), 30)\n"
    "s.sendall(b'hello'); print(s.recv(100).decode())\n"
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lab.sock"


@pytest.fixture
def up(path: Path) -> Iterator[Up]:
    with Up(path, "--guests", "2") as up:
        yield up


def talk(up: Up, source: str, to: str) -> None:
    """A TCP connection from a guest to another's name, with an answer."""
    server = up.start(to, [sys.executable, "-c", ECHO])
    assert server.stdout is not None
    port = server.stdout.readline().strip()
    done = up.exec(source, sys.executable, "-c", CALL, to, port)
    _, err = server.communicate(timeout=60)
    assert (done.stdout, done.returncode, err) == ("HELLO\n", 0, "")


@needs_namespaces
class TestUp:
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
    def test_signals_end_it_with_totals(self, path: Path, tmp_path: Path, number: int) -> None:
        result = tmp_path / "totals.json"
        with Up(path, "--guests", "2", "--json", str(result)) as up:
            assert up.first_line == f"lab is up: 2 guests, socket {path}\n"
            talk(up, "g1", "g2")
            status, out, err = up.end(number)
        assert (status, err) == (0, "")
        assert out.splitlines()[0].split()[0] == "guest"
        totals = json.loads(result.read_text())
        assert [row["guest"] for row in totals["guests"]] == ["g1", "g2"]
        assert totals["guests"][0].keys() >= TOTALS
        assert totals["guests"][0]["tx_frames"] > 0
        assert not path.exists()

    def test_for_a_while(self, path: Path) -> None:
        done = run("up", "--socket", str(path), "--guests", "web,db", "--for", "0.2")
        assert (done.returncode, done.stderr) == (0, "")
        assert [line.split()[0] for line in done.stdout.splitlines()[3:]] == ["web", "db"]

    def test_a_file_says_it_all(self, path: Path, tmp_path: Path) -> None:
        config = tmp_path / "lab.toml"
        config.write_text(
            'net = ["10.9.0.0/24", "fd09::/64"]\n'
            "[defaults]\nweight = 3\n"
            '[[guest]]\nname = "web"\nmac = "02:00:00:00:00:09"\naddress = "10.9.0.7"\n'
            'rate = "100M"\nvlan = 5\n'
            '[[guest]]\nname = "db"\nvlan = 5\nprotection = "iommu:shared"\n'
        )
        with Up(path, "--config", str(config)) as up:
            web, db = json.loads(up.ctl("list", "--json").stdout)["guests"]
            talk(up, "db", "web")
        assert (web["mac"], web["addresses"], web["rate"]) == ("02:00:00:00:00:09", ["10.9.0.7/24"], 1e8)
        assert (web["vlan"], web["weight"], db["protection"]) == (5, 3, "iommu:shared")
        assert db["addresses"] == ["10.9.0.2/24", "fd09::2/64"]

    def test_killed_it_leaves_nothing_that_hinders(self, path: Path) -> None:
        tap, net = unique()
        options = ("--guests", "2", "--wire", f"tap:{tap}", "--net", net)
        with Up(path, *options) as first:
            status, _, _ = first.end(signal.SIGKILL)
        assert status == -signal.SIGKILL
        with Up(path, *options) as second:
            talk(second, "g1", "g2")
            assert second.end(signal.SIGTERM)[0] == 0
        assert not path.exists()
        wait_for(lambda: tap not in {name for _, name in socket.if_nameindex()})

    def test_a_second_one_is_told_of_the_first(self, up: Up) -> None:
        done = run("up", "--socket", str(up.path), "--guests", "1")
        assert done.returncode == 2
        assert done.stderr.startswith(
            f"cdna up: a lab is already running at {up.path} (pid {up.process.pid})"
        )
        talk(up, "g2", "g1")

    def test_host_and_guests(self, path: Path) -> None:
        tap, net = unique()
        with Up(path, "--guests", "1", "--wire", f"tap:{tap}", "--net", net) as up:
            server = up.start("g1", [sys.executable, "-c", ECHO])
            assert server.stdout is not None
            port = int(server.stdout.readline())
            (guest,) = json.loads(up.ctl("list", "--json").stdout)["guests"]
            with socket.create_connection((guest["addresses"][0].split("/")[0], port), 30) as sock:
                sock.sendall(b"hello")
                assert sock.recv(100) == b"HELLO"
                mine = sock.getsockname()[0]
            assert server.communicate(timeout=60)[0].strip() == mine
            assert f"{mine}\thost\n" in up.exec("g1", "cat", "/etc/hosts").stdout

    @pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
    def test_a_file_by_curl(self, up: Up, tmp_path: Path) -> None:
        content = os.urandom(1 << 20) * 48
        (tmp_path / "big").write_bytes(content)
        serve = "import functools, http.server as h, sys\n" + (
            "handler = functools.partial(h.SimpleHTTPRequestHandler, directory=sys.argv[1])\n"
            "s = h.ThreadingHTTPServer(('0.0.0.0', 0), handler)\n"
            "print(s.server_port, flush=True); s.serve_forever()"
        )
        server = up.start("g2", [sys.executable, "-c", serve, str(tmp_path)])
        assert server.stdout is not None
        port = server.stdout.readline().strip()
        copy = tmp_path / "copy"
        done = up.exec(
            "g1", "curl", "-4", "-sS", "--max-time", "60", "-o", str(copy), f"http://g2:{port}/big"
        )
        server.kill()
        server.communicate()
        assert (done.returncode, done.stderr) == (0, "")
        assert hashlib.sha256(copy.read_bytes()).digest() == hashlib.sha256(content).digest()


@needs_namespaces
class TestExec:
    def test_status_and_output_are_the_programs(self, up: Up) -> None:
        done = up.exec("g1", "sh", "-c", "echo out; echo err >&2; exit 7")
        assert (done.returncode, done.stdout, done.stderr) == (7, "out\n", "err\n")

    def test_signals_reach_the_program(self, up: Up) -> None:
        process = up.start("g1", ["sh", "-c", "echo ready; exec sleep 60"])
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.terminate()
        process.communicate(timeout=60)
        assert process.returncode == -signal.SIGTERM

    def test_what_it_sees(self, up: Up) -> None:
        done = up.exec("g1", "sh", "-c", "pwd; uname -n; cat /etc/hosts; ls /sys/class/net >/dev/null")
        cwd, node, *hosts = done.stdout.splitlines()
        assert (cwd, node) == (os.getcwd(), "g1")
        assert "10.77.0.2\tg2" in hosts
        assert "fd77::2\tg2" in hosts

    def test_the_host_does_not_see_it(self, up: Up) -> None:
        before = Path("/etc/hosts").read_text(), Path("/proc/self/mounts").read_text(), os.uname().nodename
        up.exec("g1", "true")
        after = Path("/etc/hosts").read_text(), Path("/proc/self/mounts").read_text(), os.uname().nodename
        assert before == after

    def test_names_of_guests_that_come_later(self, up: Up) -> None:
        code = (
            "import socket, time\n"
            "print('ready', flush=True)\n"
            "while True:\n"
            "    try: print(socket.gethostbyname('late')); break\n"
            "    except OSError: time.sleep(0.01)\n"
        )
        process = up.start("g1", [sys.executable, "-c", code])
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert up.ctl("add", "late").returncode == 0
        assert process.communicate(timeout=60)[0] == "10.77.0.3\n"

    def test_options_of_the_program_are_its_own(self, up: Up) -> None:
        path = str(up.path)
        for argv in (
            ["--socket", path, "g1", "sh", "-c", "echo $0", "--socket"],
            ["g1", "--socket", path, "--", "sh", "-c", "echo $0", "--socket"],
            ["g1", f"--socket={path}", "sh", "-c", "echo $0", "--socket"],
        ):
            done = run("exec", *argv)
            assert (done.returncode, done.stdout) == (0, "--socket\n")

    @pytest.mark.parametrize(
        ("command", "said"),
        [
            (["no-such-program"], "no such program"),
            (["/no/such/program"], "no such program"),
            (["/etc/hosts"], "permission denied"),
            (["/"], "permission denied"),
            ([], "no command; give one"),
        ],
    )
    def test_what_cannot_be_run(self, up: Up, command: list[str], said: str) -> None:
        done = up.exec("g1", *command)
        assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
        assert said in done.stderr

    def test_no_such_guest(self, up: Up) -> None:
        done = up.exec("g9", "true")
        assert (done.returncode, done.stderr) == (
            2,
            "cdna exec: no guest 'g9': give one of this lab (g1, g2)\n",
        )

    def test_a_program_outlives_its_lab(self, up: Up) -> None:
        code = "import socket; print('ready', flush=True); input(); print(socket.if_nameindex())"
        process = subprocess.Popen(
            [*CDNA, "exec", "--socket", str(up.path), "g1", "--", sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert up.end(signal.SIGTERM)[0] == 0
        out, _ = process.communicate("\n", timeout=60)
        assert "eth0" not in out
        assert "lo" in out


@needs_namespaces
class TestCtl:
    def test_a_guests_life(self, up: Up) -> None:
        added = up.ctl("add", "db", "--rate", "100M", "--address", "10.77.0.9")
        assert (added.returncode, added.stdout.split(",")[0]) == (0, "db: 10.77.0.9/24")
        talk(up, "g1", "db")
        assert up.ctl("set", "db", "rate=1G", "weight=2", "protection=none").returncode == 0
        talk(up, "db", "g2")
        row = json.loads(up.ctl("list", "--json").stdout)["guests"][2]
        assert (row["rate"], row["weight"], row["protection"]) == (1e9, 2, "none")
        assert up.ctl("remove", "db").returncode == 0
        assert up.ctl("remove", "db").stderr == "cdna ctl: no guest 'db': give one of this lab (g1, g2)\n"
        talk(up, "g1", "g2")

    def test_tables(self, up: Up) -> None:
        listed = up.ctl("list").stdout
        assert re.search(" [0-9a-f]2(:[0-9a-f]{2}){5} ", listed)
        assert "wire null: link up\n" in listed
        assert "tx frames/s" in up.ctl("stats").stdout
        assert "rx_drop_no_buffer" in up.ctl("stats", "g1").stdout
        assert json.loads(up.ctl("stats", "g1", "--json").stdout)["tx_frames"] >= 0
        assert [row["guest"] for row in json.loads(up.ctl("stats", "--json").stdout)["guests"]] == [
            "g1",
            "g2",
        ]

    def test_link(self, up: Up) -> None:
        assert up.ctl("link", "g1", "down").returncode == 0
        assert carrier(up) == "0\n"
        assert "down" in up.ctl("list").stdout
        assert up.ctl("link", "g1", "up").returncode == 0
        talk(up, "g1", "g2")
        assert up.ctl("link", "wire", "down").returncode == 0
        assert "wire null: link down\n" in up.ctl("list").stdout

    @pytest.mark.parametrize(
        ("argv", "said"),
        [
            (("link", "g1", "sideways"), "give up or down"),
            (("link", "g9", "up"), "no guest 'g9'"),
            (("set", "g1", "rate"), "no value"),
            (("set", "g1", "rate=1M", "rate=2M"), "given twice"),
            (("set", "g1", "rate=fast"), "rate fast: give bits a second"),
            (
                ("set", "g1", "colour=red"),
                "can change vlan, weight, rate, storm, flood, anti_spoof, promiscuous, protection, gro",
            ),
            (("add", "9"), "name 9: give 1 to 63 letters"),
            (("add", "x", "--address", "10.77.0.1"), "taken by g1"),
            (("stats", "g9"), "no guest 'g9'"),
        ],
    )
    def test_what_cannot_be(self, up: Up, argv: tuple[str, ...], said: str) -> None:
        done = up.ctl(*argv)
        assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
        assert done.stderr.startswith("cdna ctl: ")
        assert said in done.stderr


def carrier(up: Up) -> str:
    """What the guest's device says of its cable, asked without sysfs, which shows the host's devices."""
    code = (
        "from pyroute2 import IPRoute\n"
        "with IPRoute() as n: print(n.get_links(ifname='eth0')[0].get('carrier'))"
    )
    return up.exec("g1", sys.executable, "-c", code).stdout


@needs_namespaces
@pytest.mark.skipif(not user_namespaces_work(), reason="user namespaces are not allowed here")
class TestUnprivileged:
    def test_guests(self, path: Path) -> None:
        with Up(path, "--guests", "2", unprivileged=True) as up:
            talk(up, "g1", "g2")
            assert up.ctl("add", "late").returncode == 0
            talk(up, "late", "g1")
            assert up.exec("g1", "no-such-program").returncode == 2
            status, _, err = up.end(signal.SIGTERM)
        assert (status, err) == (0, "")
        assert not path.exists()

    def test_a_tap_that_is_not_there(self, path: Path) -> None:
        tap, _ = unique()
        done = run("up", "--socket", str(path), "--guests", "1", "--wire", f"tap:{tap}", unprivileged=True)
        assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
        assert f"sudo ip tuntap add dev {tap} mode tap user $USER" in done.stderr
        assert not path.exists()


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ((), "give --guests N, or --config FILE"),
        (("--guests", "-1"), "0 to 1024"),
        (("--guests", "1025"), "0 to 1024"),
        (("--guests", "a,a"), "two of this name"),
        (("--guests", "a,,b"), "1 to 63 letters"),
        (("--guests", ""), "1 to 63 letters"),
        (("--guests", "wire"), "wire: has another meaning in a lab"),
        (("--guests", "a,all"), "all: has another meaning in a lab"),
        (("--guests", "1", "--net", "10.0.0.1/24"), "an address in 10.0.0.0/24"),
        (("--guests", "1", "--net", "everything"), "such as 10.77.0.0/24"),
        (("--guests", "300"), "give a larger network"),
        (("--guests", "1", "--host", "10.1.1.1"), "none of the lab's networks"),
        (("--guests", "1", "--vlan", "5000"), "--vlan 5000: give 1 to 4094"),
        (("--guests", "1", "--rate", "fast"), "--rate fast: give bits a second"),
        (("--guests", "1", "--weight", "0"), "--weight 0: give a whole number"),
        (("--guests", "1", "--protection", "iommu"), "--protection iommu: give one of"),
        (("--guests", "1", "--mtu", "100000"), "--mtu 100000: give"),
        (("--guests", "1", "--gateway", "1.1.1.1"), "--gateway 1.1.1.1: no neighbour"),
        (("--guests", "1", "--for", "0"), "--for '0': give a time"),
        (("--guests", "1", "--for", "nan"), "--for 'nan': give a time"),
        (("--guests", "1", "--cpu", "x"), "--cpu x: give a whole number"),
        (("--guests", "1", "--json", "/no/such/place/x.json"), "no directory"),
        (("--guests", "1", "--config", "x.toml"), "--guests and --config"),
        (("--config", "/no/such/file.toml"), "no such file"),
        (("--config", "/dev/null", "--rate", "1M"), "--rate and --config"),
    ],
)
def test_nonsense(cdna: Cdna, tmp_path: Path, argv: tuple[str, ...], said: str) -> None:
    ended = cdna("up", "--socket", str(tmp_path / "lab.sock"), *argv)
    assert (ended.status, ended.out, len(ended.err.splitlines())) == (2, "", 1)
    assert ended.err.startswith("cdna up: ")
    assert said in ended.err
    assert list(tmp_path.iterdir()) == []


@needs_namespaces
@pytest.mark.parametrize(
    ("wire", "said"),
    [
        ("tap:averyveryverylongname", "1 to 15 bytes"),
        ("tap:a b", "no white space"),
        ("tap:lo", "no tap"),
        ("tap:\udcff", "printable characters"),
        ("pcap:/dev/zero", "a device, not a capture file"),
        ("token-ring", "unknown wire 'token-ring'"),
        ("", "unknown wire ''"),
    ],
)
def test_wires_that_cannot_be(cdna: Cdna, tmp_path: Path, wire: str, said: str) -> None:
    fds = open_files()
    ended = cdna("up", "--socket", str(tmp_path / "lab.sock"), "--guests", "1", "--wire", wire)
    assert (ended.status, len(ended.err.splitlines())) == (2, 1)
    assert said in ended.err
    assert list(tmp_path.iterdir()) == []
    assert open_files() == fds


@pytest.mark.parametrize("command", [("ctl", "list"), ("ctl", "stats"), ("exec", "g1", "--", "true")])
def test_no_lab(
    cdna: Cdna, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    ended = cdna(*command)
    assert (ended.status, ended.out) == (2, "")
    assert ended.err == (
        f"cdna {command[0]}: no lab is running at {tmp_path}/cdna/lab.sock: "
        "start one with cdna up or serve, or give its --socket\n"
    )


@needs_namespaces
def test_default_socket_leaves_no_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    done = run("up", "--guests", "1", "--for", "0.05")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"lab is up: 1 guest, socket {tmp_path}/cdna/lab.sock\n")
    assert list(tmp_path.iterdir()) == []
