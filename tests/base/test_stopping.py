"""Signals end every wait: for a FIFO that nobody opens, for a reader that takes nothing, at the start."""

import contextlib
import fcntl
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cdna.base.descriptors import write_patiently
from cdna.base.stopping import Stop, stop_signals
from cdna.interrupts import held
from cdna.nic.capture import CaptureWriter
from tests.support.lab import CDNA, DEADLINE, needs_namespaces, wait_for


@pytest.fixture
def stop() -> Iterator[Stop]:
    with stop_signals() as stop:
        yield stop


def ask() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_at_once(stop: Stop) -> None:
    with pytest.raises(KeyboardInterrupt), stop.at_once():
        ask()
    assert stop.is_set()
    ask()  # what is undone behind it is not interrupted
    with pytest.raises(KeyboardInterrupt), stop.at_once():
        pytest.fail("a signal that came before was not heeded")


def test_what_is_held_is_whole(stop: Stop) -> None:
    done = []

    def work() -> None:
        with stop.at_once(), held():
            with held():
                ask()
                done.append("inner")
            done.append("outer")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == ["inner", "outer"]


def test_soon_ends_a_wait_and_cuts_nothing_that_goes_on(stop: Stop) -> None:
    reader, writer = os.pipe()
    with stop.soon():
        ask()
        assert os.write(writer, b"all of it") == 9

    def fill() -> None:
        with stop.soon():
            ask()
            while True:
                os.write(writer, bytes(4096))  # until the pipe is full

    with pytest.raises(KeyboardInterrupt):
        fill()
    os.close(reader)
    os.close(writer)


def full_pipe() -> tuple[int, int]:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, bytes(4096))
    os.set_blocking(writer, True)
    return reader, writer


def test_a_reader_that_takes_nothing_is_given_up() -> None:
    reader, writer = full_pipe()
    with pytest.raises(TimeoutError, match="its reader takes nothing"):
        write_patiently(writer, b"x", lambda: True)
    os.read(reader, 4096)
    assert write_patiently(writer, b"x", lambda: True) == 1
    os.close(reader)
    with pytest.raises(BrokenPipeError):
        write_patiently(writer, bytes(1 << 20), lambda: False)
    os.close(writer)


@pytest.mark.parametrize("suffix", ["pcap", "pcapng"])
def test_a_capture_whose_reader_takes_nothing(tmp_path: Path, suffix: str) -> None:
    fifo = tmp_path / f"fifo.{suffix}"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, 4096)
    writer = CaptureWriter(fifo, lambda: True)

    def fill() -> None:
        for _ in range(200):
            writer.write(bytes(1000), 0)
        writer.flush()

    with pytest.raises(TimeoutError, match="its reader takes nothing"):
        fill()
    os.close(reader)
    with contextlib.suppress(BrokenPipeError):
        writer.close()


@needs_namespaces
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_fifo_that_nobody_opens(tmp_path: Path, number: signal.Signals) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    process = subprocess.Popen(
        [*CDNA, "up", "--guests=0", f"--socket={tmp_path / 'sock'}", f"--wire=pcap:{fifo}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(lambda: "partner" in Path(f"/proc/{process.pid}/wchan").read_text())
    process.send_signal(number)
    assert process.communicate(timeout=DEADLINE) == ("", "cdna up: interrupted\n")
    assert process.returncode == 130
    assert list(tmp_path.iterdir()) == [fifo]


@needs_namespaces
def test_a_signal_while_guests_start_leaves_nothing(tmp_path: Path) -> None:
    sockets = tmp_path / "sockets"
    sockets.mkdir()
    contexts = [f"--context=vhost-user:{sockets}/v{n}" for n in range(50)]
    process = subprocess.Popen(
        [*CDNA, "serve", f"--socket={tmp_path / 'sock'}", *contexts],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(lambda: any(sockets.iterdir()) or process.poll() is not None)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=DEADLINE)
    assert (process.returncode, "cdna serve: interrupted" in err) in ((130, True), (0, False)), out + err
    assert list(tmp_path.iterdir()) == [sockets]
    assert not any(sockets.iterdir())
