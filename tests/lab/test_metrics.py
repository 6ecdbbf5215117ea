"""Metrics as Prometheus reads them, from a lab and over HTTP."""

import contextlib
import http.client
import re
import select
import socket
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cdna.base.control_time import SharedTime
from cdna.errors import CdnaError
from cdna.lab.guest_plans import context_settings, guest_plan
from cdna.lab.lab import Lab
from cdna.lab.metrics import CONTENT_TYPE, Metrics, metrics_text
from cdna.lab.metrics_server import ANSWERS, CONNECTIONS, REQUEST_BYTES, MetricsServer
from cdna.lab.plan import NETS, LabPlan
from tests.support.lab import wait_for, wait_until_still
from tests.support.turns import due

SAMPLE = re.compile(r'([a-z_]+)(?:\{((?:[a-z]+="(?:[^"\\\n]|\\[\\"n])*",?)*)\})? (-?[0-9.e+-]+)\n')
LABEL = re.compile(r'([a-z]+)="((?:[^"\\]|\\.)*)"')

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def parsed(text: str) -> Samples:
    """Every sample, of a text in which each metric has its HELP and TYPE once, before its samples."""
    samples: Samples = {}
    name = kind = ""
    seen = set()
    for line in text.splitlines(keepends=True):
        if line.startswith("# HELP "):
            name = line.split()[2]
            assert name not in seen
            seen.add(name)
        elif line.startswith("# TYPE "):
            _, _, typed, kind = line.split()
            assert typed == name
        else:
            match = SAMPLE.fullmatch(line)
            assert match is not None, line
            assert match[1] == name
            assert name.endswith("_total") == (kind == "counter")
            labels = frozenset(LABEL.findall(match[2] or ""))
            assert (name, labels) not in samples
            samples[name, labels] = float(match[3])
    return samples


def of(samples: Samples, name: str, **labels: str) -> float:
    return samples[name, frozenset(labels.items())]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    contexts = (
        "synthetic:sink,rate=5M,weight=3",
        "synthetic:gen,to=sink,rate=5M",
        "synthetic:lost,to=sink,vlan=7",
    )
    plans = [guest_plan("", context_settings("", text), {}, NETS) for text in contexts]
    with Lab(LabPlan(tuple(plans))) as lab:
        wait_for(lambda: lab.counters("sink")["rx_frames"] > 10)
        for guest in ("gen", "lost"):
            lab.set_link(guest, False)
            lab.change(guest, {"rate": 0})
        wait_until_still(lambda: lab.snapshot()[1])
        yield lab


def test_what_a_context_did(lab: Lab) -> None:
    samples, counters = parsed(metrics_text(lab)), lab.counters("sink")
    for name in ("rx_frames", "rx_bytes", "interrupts", "doorbells", "faults"):
        assert of(samples, f"cdna_context_{name}_total", context="sink") == counters[name]
    assert of(samples, "cdna_context_rate_limit_bits", context="sink") == 5e6
    assert of(samples, "cdna_context_weight", context="sink") == 3
    assert of(samples, "cdna_context_link_up", context="sink") == 1
    assert of(samples, "cdna_context_link_up", context="gen") == 0
    assert of(samples, "cdna_wire_tx_frames_total", wire="null") == lab.wire()["tx_frames"]
    assert of(samples, "process_cpu_seconds_total") > 0


def test_whose_time_the_core_had(lab: Lab) -> None:
    """Of contexts that have sent and received, by what for; what it shows is what the NIC says."""
    samples, times = parsed(metrics_text(lab)), lab.times()
    for guest in ("sink", "gen"):
        for activity in ("transmit", "control"):
            labels = {"context": guest, "activity": activity}
            shown = of(samples, "cdna_context_core_seconds_total", **labels)
            assert shown == pytest.approx(times[guest][activity] / 1e9, abs=1e-9)
        worst = of(samples, "cdna_context_worst_round_seconds", context=guest)
        assert worst == pytest.approx(times[guest]["worst_round"] / 1e9, abs=1e-9)
    assert times["gen"]["transmit"] > 0
    assert times["gen"]["control"] > 0  # its rate and its link were changed
    assert of(samples, "cdna_nic_core_seconds_total", activity="other") > 0
    assert of(samples, "cdna_nic_worst_round_seconds") > 0


def test_every_drop_has_its_reason(lab: Lab) -> None:
    samples = parsed(metrics_text(lab))
    for guest in ("sink", "gen", "lost"):
        for name, value in lab.counters(guest).items():
            direction, drop, reason = name.partition("_drop_")
            if drop:
                labels = {"context": guest, "direction": direction, "reason": reason}
                assert of(samples, "cdna_context_dropped_frames_total", **labels) == value


def test_text_is_escaped() -> None:
    metrics = Metrics()
    metrics.gauge("some", 'a "help"\nof \\ two lines', 1.5, label='quote " back \\ line\n')
    metrics.count("other", "", 1e20)
    metrics.gauge("some", "", 2)
    assert metrics.text() == (
        '# HELP some a "help"\\nof \\\\ two lines\n# TYPE some gauge\n'
        'some{label="quote \\" back \\\\ line\\n"} 1.5\nsome 2\n'
        "# HELP other_total \n# TYPE other_total counter\nother_total 100000000000000000000\n"
    )


def test_what_a_terminal_would_obey_is_escaped() -> None:
    metrics = Metrics()
    metrics.gauge("some", "help", 1, label="web\x1b[2J\r\u2028\ud800")
    assert metrics.text().splitlines()[-1] == r'some{label="web\\x1b[2J\\r\\u2028\\ud800"} 1'
    assert metrics.text().encode().decode().replace("\n", "").isprintable()


def get(connection: http.client.HTTPConnection, path: str, method: str = "GET") -> tuple[int, str, str]:
    connection.request(method, path)
    answer = connection.getresponse()
    body = answer.read().decode()
    connection.close()
    return answer.status, answer.getheader("Content-Type") or "", body


@pytest.mark.parametrize("address", ["0", ":0", "127.0.0.1:0"])
def test_over_tcp(lab: Lab, address: str) -> None:
    with MetricsServer(address, lab) as server:
        host, _, port = server.address.rpartition(":")
        assert host == "127.0.0.1"
        connection = http.client.HTTPConnection(host, int(port), timeout=30)
        status, kind, body = get(connection, "/metrics")
        assert (status, kind) == (200, CONTENT_TYPE)
        assert of(parsed(body), "cdna_context_weight", context="sink") == 3
        assert get(connection, "/metrics", "HEAD") == (200, CONTENT_TYPE, "")
        assert get(connection, "/")[0] == 404
        assert get(connection, "/metrics", "POST")[0] == 501
        with pytest.raises(CdnaError, match=f"--metrics 127.0.0.1:{port}: address already in use"):
            MetricsServer(f"127.0.0.1:{port}", lab)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)), 30)


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=30)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(30)
        self.sock.connect(str(self.path))


def test_over_a_unix_socket(lab: Lab, tmp_path: Path) -> None:
    path = tmp_path / "metrics"
    for _ in range(2):
        with MetricsServer(str(path), lab):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert get(UnixConnection(path), "/metrics")[:2] == (200, CONTENT_TYPE)
        assert not path.exists()


def test_a_client_that_says_nothing_holds_nobody_up(lab: Lab) -> None:
    with MetricsServer("0", lab) as server:
        host, _, port = server.address.rpartition(":")
        with socket.create_connection((host, int(port)), 30):
            assert get(http.client.HTTPConnection(host, int(port), timeout=30), "/metrics")[0] == 200


@pytest.mark.parametrize("address", ["", "host", "1:x", "127.0.0.1:70000", "no.such.host.invalid:1", "[::1"])
def test_addresses_that_cannot_be(lab: Lab, address: str) -> None:
    with pytest.raises(CdnaError, match=r"--metrics .*give"):
        MetricsServer(address, lab)


def connected(server: MetricsServer) -> socket.socket:
    host, _, port = server.address.rpartition(":")
    return socket.create_connection((host, int(port)), 30)


def scraped(server: MetricsServer) -> int:
    host, _, port = server.address.rpartition(":")
    return get(http.client.HTTPConnection(host, int(port), timeout=30), "/metrics")[0]


def test_idle_connections_have_a_bound(lab: Lab) -> None:
    with MetricsServer("0", lab, patience=1e6) as server, contextlib.ExitStack() as clients:
        threads = threading.active_count()
        socks = [clients.enter_context(connected(server)) for _ in range(CONNECTIONS + 8)]
        assert scraped(server) == 200
        assert threading.active_count() == threads
        assert [sock.recv(1, socket.MSG_DONTWAIT) for sock in socks[:9]] == [b""] * 9  # the oldest


def test_a_request_that_comes_byte_by_byte_has_a_deadline(lab: Lab) -> None:
    with MetricsServer("0", lab, patience=0.05) as server, connected(server) as sock:
        for _ in range(REQUEST_BYTES - 1):
            sock.send(b"G")
            if select.select([sock], [], [], 0.005)[0]:
                break
        else:
            pytest.fail("its connection goes on")
        assert scraped(server) == 200


def test_a_request_that_is_too_long(lab: Lab) -> None:
    with MetricsServer("0", lab) as server, connected(server) as sock:
        sock.sendall(b"G" * (REQUEST_BYTES + 1))
        assert sock.recv(100).split()[1] == b"431"


def test_answers_that_are_not_read_have_a_bound(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "x" * (8 << 20)
    monkeypatch.setattr("cdna.lab.metrics_server.metrics_text", lambda lab: text)
    with MetricsServer("0", lab) as server, contextlib.ExitStack() as clients:
        socks = [clients.enter_context(connected(server)) for _ in range(ANSWERS + 1)]
        for sock in socks:
            sock.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            assert select.select([sock], [], [], 30)[0]
        sizes = []
        for sock in socks:
            with sock.makefile("rb") as file:
                sizes.append(len(file.read()))
        assert sizes[0] < len(text)
        assert all(size > len(text) for size in sizes[1:])


def test_who_connects_without_end_waits(lab: Lab, tmp_path: Path) -> None:
    """Each connection costs an eighth of a second here, and time stands still: the sixth is taken later."""
    now, used = [1000.0], [0.0]

    def cost() -> float:
        used[0] += 0.125
        return used[0]

    with MetricsServer(str(tmp_path / "metrics"), lab) as server:
        server.clock = lambda: now[0]
        server.arrivals = SharedTime(clock=server.clock, cost=cost).bucket()
        server.wake()
        clients = [socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) for _ in range(8)]
        with contextlib.ExitStack() as undo:
            with server.lock:  # all are there, with their requests, before the first is taken
                for client in clients:
                    undo.enter_context(client)
                    client.settimeout(20)
                    client.connect(server.address)
                    client.send(b"GET /no HTTP/1.0\r\n\r\n")
            wait_for(lambda: 1001.25 in due(server))
            for client in clients[:5]:
                assert client.recv(1 << 16).startswith(b"HTTP/1.0 404")
            assert select.select([clients[5]], [], [], 0)[0] == []
            now[0] += 100
            server.wake()
            assert clients[5].recv(1 << 16).startswith(b"HTTP/1.0 404")
