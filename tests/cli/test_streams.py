"""Standard streams of the commands: slow and nonblocking pipes, signals meanwhile, closed descriptors."""

import fcntl
import os
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

from cdna.lab.control import ControlServer, Reply, Request, Session
from tests.support.capture_lab import FakeLab
from tests.support.lab import CDNA, wait_for
from tests.support.pcapng import read_pcapng

TEXT = "a line of the metrics\n" * 20_000  # more than a pipe holds
DEADLINE = 60  # seconds


def metrics(request: Request, session: Session) -> Reply:
    file = os.memfd_create("metrics")
    session.fds = session.close_behind = [file]
    os.write(file, TEXT.encode())
    return {}


@pytest.fixture
def path(tmp_path: Path) -> Iterator[str]:
    with ControlServer(str(tmp_path / "lab.sock"), {"metrics": metrics}) as server:
        yield server.path


def waiting(pipe: int) -> int:
    """Bytes in a pipe."""
    (count,) = struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)))
    return int(count)


@pytest.mark.parametrize("blocking", [True, False])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_pipe_that_is_full_when_signals_come(path: str, unbuffered: str, blocking: bool) -> None:
    reader, writer = os.pipe()
    capacity = fcntl.fcntl(writer, fcntl.F_GETPIPE_SZ)
    os.set_blocking(writer, blocking)
    process = subprocess.Popen(
        [*CDNA, "ctl", "--socket", path, "metrics"],
        stdout=writer,
        env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
    )
    os.close(writer)
    try:
        wait_for(lambda: waiting(reader) == capacity)
        process.send_signal(signal.SIGWINCH)
        process.send_signal(signal.SIGSTOP)
        os.waitpid(process.pid, os.WUNTRACED)
        process.send_signal(signal.SIGCONT)
        with open(reader, encoding="utf-8") as file:
            assert file.read() == TEXT
        assert process.wait(DEADLINE) == 0
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[FakeLab]:
    lab = FakeLab(tmp_path / "lab.sock")
    yield lab
    lab.close()


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)])
def test_messages_never_go_into_a_capture(lab: FakeLab, tmp_path: Path, closed: tuple[int, ...]) -> None:
    out = tmp_path / "out"
    command = [*CDNA, "capture", "alice", "-c", "10", "--socket", lab.path]
    with open(out, "wb") as file:
        done = subprocess.run(
            [*command, "-w", "-" if 1 not in closed else str(out)],
            stdout=file,
            timeout=DEADLINE,
            preexec_fn=lambda: [os.close(fd) for fd in closed],
        )
    assert done.returncode == 0
    assert len(read_pcapng(out).packets) == 10


@pytest.mark.parametrize(
    "argv", [("--version",), ("--help",), ("ctl", "--help"), ("capture", "all", "-w", "-")]
)
def test_standard_output_is_closed(argv: tuple[str, ...]) -> None:
    done = subprocess.run([*CDNA, *argv], stderr=subprocess.PIPE, text=True, preexec_fn=lambda: os.close(1))
    assert done.returncode == 2
    assert "standard output" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_reader_that_has_seen_enough() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([*CDNA, "--help"], stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_program_that_is_started_finds_closed_what_was_closed() -> None:
    code = (
        "import os, subprocess, sys; from cdna.cli import streams; streams.prepare(); "
        "done = subprocess.run(['sh', '-c', 'cat; echo $?; echo x >&2'], stdout=subprocess.PIPE); "
        "os.write(1, done.stdout)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: [os.close(fd) for fd in (0, 2)],
    )
    assert (done.returncode, done.stdout) == (0, "1\n")


def test_standard_error_that_nobody_reads_holds_nothing_up() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    while True:
        try:
            os.write(writer, bytes(4096))
        except BlockingIOError:
            break
    os.set_blocking(writer, True)
    try:
        assert subprocess.run([*CDNA, "ctl", "set"], stderr=writer, timeout=DEADLINE).returncode == 2
    finally:
        os.close(reader)
        os.close(writer)
