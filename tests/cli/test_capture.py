"""`cdna capture` beside a lab: files, pipes, and every way in which a capture ends."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cdna.errors import CdnaError
from cdna.lab.capture import LabCapture, capture_handlers, list_interfaces
from cdna.lab.control import ControlClient, ControlServer
from cdna.machine import Machine
from tests.cli.conftest import Cdna
from tests.support.capture_lab import FakeLab
from tests.support.pcapng import read_pcapng

# A test run in the background ignores SIGINT, and so would what it starts.
SCRIPT = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from cdna.cli import main
sys.exit(main())
"""
COMMAND = [sys.executable, "-c", SCRIPT, "capture"]
DEADLINE = 60  # seconds


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[FakeLab]:
    lab = FakeLab(tmp_path / "lab.sock")
    yield lab
    lab.close()


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@contextlib.contextmanager
def capturing(lab: FakeLab, *argv: str, **options: object) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [*COMMAND, "--socket", lab.path, *argv],
        stderr=subprocess.PIPE, text=True, **options,  # type: ignore[call-overload]
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def numbers(path: Path) -> list[int]:
    return [int.from_bytes(packet.data[14:18], "big") for packet in read_pcapng(path).packets]


def test_count(cdna: Cdna, lab: FakeLab, tmp_path: Path) -> None:
    ended = cdna("capture", "alice", "-w", str(tmp_path / "x"), "-c", "100", "--socket", lab.path)
    assert ended.status == 0
    assert ended.err == f"cdna capture: 100 frames written to {tmp_path}/x, 0 lost\n"
    assert ended.out == ""
    capture = read_pcapng(tmp_path / "x")
    assert {(p.interface, p.comment, p.outbound) for p in capture.packets} == {("alice.0", "sent", True)}
    first = numbers(tmp_path / "x")[0]
    assert numbers(tmp_path / "x") == list(range(first, first + 100))
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o600
    wait_for(lambda: not lab.captures())


def test_seconds_and_snapshot_length(cdna: Cdna, lab: FakeLab, tmp_path: Path) -> None:
    argv = ("all", "-w", str(tmp_path / "x"), "-s", "18", "--for", "0.2", "-B", "1")
    ended = cdna("capture", *argv, "--socket", lab.path)
    assert ended.status == 0
    capture = read_pcapng(tmp_path / "x")
    assert [(i.name, i.snaplen) for i in capture.interfaces] == [("alice.0", 18), ("bob.1", 18)]
    assert {(len(p.data), p.length) for p in capture.packets} == {(18, 60)}
    assert capture.interfaces[0].received == len(capture.of("alice.0"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_a_complete_file(lab: FakeLab, tmp_path: Path, number: int) -> None:
    path = tmp_path / "x"
    with capturing(lab, "all", "-w", str(path)) as process:
        wait_for(lambda: path.exists() and path.stat().st_size > 10_000)
        process.send_signal(number)
        _, err = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0
    capture = read_pcapng(path)
    assert err == f"cdna capture: {len(capture.packets)} frames written to {path}, 0 lost\n"
    assert sum(i.received or 0 for i in capture.interfaces) == len(capture.packets)
    seen = numbers(path)[::2]
    assert seen == list(range(seen[0], seen[0] + len(seen)))


def test_the_labs_end_is_the_captures(lab: FakeLab, tmp_path: Path) -> None:
    path = tmp_path / "x"
    with capturing(lab, "bob", "-w", str(path)) as process:
        wait_for(lambda: path.exists() and path.stat().st_size > 10_000)
        lab.close()
        _, err = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0
    assert read_pcapng(path).interfaces[0].dropped == 0
    assert len(err.splitlines()) == 1


def test_a_pipe_that_is_closed_ends_it_quietly(lab: FakeLab) -> None:
    with capturing(lab, "all", "-w", "-", stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        os.read(process.stdout.fileno(), 100)
        process.stdout.close()
        assert process.wait(timeout=DEADLINE) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""
    wait_for(lambda: not lab.captures())


def test_a_program_that_is_killed_leaves_nothing_in_the_lab(lab: FakeLab, tmp_path: Path) -> None:
    with capturing(lab, "all", "-w", str(tmp_path / "x")) as process:
        wait_for(lab.captures)
        process.kill()
        wait_for(lambda: not lab.captures())


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full, which behaves as a full disk does")
def test_a_full_disk(cdna: Cdna, lab: FakeLab) -> None:
    ended = cdna("capture", "all", "-w", "/dev/full", "--socket", lab.path)
    assert ended.status == 2
    assert ended.err == "cdna capture: /dev/full: no space left on device; it ends with frame 0\n"


@pytest.mark.skipif(shutil.which("tshark") is None, reason="no tshark")
def test_a_pipe_to_tshark(lab: FakeLab) -> None:
    with capturing(lab, "all", "-w", "-", "-c", "20", stdout=subprocess.PIPE) as process:
        fields = ["-T", "fields", "-e", "frame.interface_name", "-e", "frame.comment"]
        done = subprocess.run(
            ["tshark", "-r", "-", *fields],
            stdin=process.stdout,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
        )
    assert set(done.stdout.splitlines()) == {"alice.0\tsent", "bob.1\treceived"}
    assert len(done.stdout.splitlines()) == 20


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("-w", "x"), "give guests or contexts of the lab, or all"),
        (("all",), "give -w FILE"),
        (("all", "-w", ""), "give -w FILE"),
        (("nobody", "-w", "x"), "'nobody' to capture: give all, or one of alice, bob"),
        (("alice", "x\n" * 99, "-w", "x"), "to capture: give all"),
        (("all", "-w", "no/x"), "no/x: cannot write this capture"),
        (("all", "-w", "."), "cannot write this capture"),
        (("all", "-w", "x" * 300), "cannot write this capture"),
        (("all", "-w", "x\0y"), "cannot write this capture"),
        (("all", "-w", "x", "-s", "-1"), "-s -1: give 1 to 262144"),
        (("all", "-w", "x", "-s", "much"), "-s"),
        (("all", "-w", "x", "-c", "-5"), "-c -5"),
        (("all", "-w", "x", "--for", "0"), "--for 0"),
        (("all", "-w", "x", "--for", "nan"), "--for nan"),
        (("all", "-w", "x", "-B", "0"), "-B 0: give 1 to 1024 MiB"),
        (("all", "-w", "x", "--bogus"), "--bogus"),
    ],
)
def test_nonsense(
    cdna: Cdna,
    lab: FakeLab,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    argv: tuple[str, ...],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = cdna("capture", *argv, "--socket", lab.path)
    assert ended.status == 2
    assert len(ended.err.splitlines()) == 1
    assert ended.err.startswith("cdna capture: ")
    assert said in ended.err
    assert list(tmp_path.iterdir()) == [tmp_path / "lab.sock"]
    wait_for(lambda: not lab.captures())


def test_no_lab(cdna: Cdna, tmp_path: Path) -> None:
    ended = cdna("capture", "all", "-w", str(tmp_path / "x"), "--socket", str(tmp_path / "none"))
    assert ended.status == 2
    assert "no lab is running" in ended.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "fields",
    [
        {"contexts": 7},
        {"contexts": [["alice"]]},
        {"contexts": []},
        {"contexts": None},
        {"snaplen": "all"},
        {"snaplen": -1},
        {"buffer": 1 << 31},
        {"buffer": None},
        {"filter": "tcp"},
    ],
)
def test_requests_of_nonsense_are_refused(lab: FakeLab, fields: dict[str, object]) -> None:
    with ControlClient(lab.path) as client:
        with pytest.raises(CdnaError):
            client.call("capture", **fields)
        assert not lab.captures()
        reply, fds = client.call("capture", contexts=["alice"])  # and the session goes on
        assert reply["ok"]
        os.close(fds[0])


def test_interfaces_are_listed(lab: FakeLab) -> None:
    assert list_interfaces(lab.path) == [
        {"name": "alice.0", "guest": "alice", "context": 0, "mac": "02:cd:0a:00:00:00"},
        {"name": "bob.1", "guest": "bob", "context": 1, "mac": "02:cd:0a:00:00:01"},
    ]


def test_a_large_nic_is_listed_whole(tmp_path: Path) -> None:
    machine = Machine(contexts=600)
    server = ControlServer(str(tmp_path / "s"), capture_handlers(machine))  # type: ignore[arg-type]
    for i in range(600):
        machine.attach(f"g{i}", tx_ring=8, rx_ring=8, buffer_size=64)
    assert [i["context"] for i in list_interfaces(str(tmp_path / "s"))] == list(range(600))
    with LabCapture(str(tmp_path / "s"), "all") as capture:
        assert capture.reader.produced > 0
    server.close()
    machine.close()
