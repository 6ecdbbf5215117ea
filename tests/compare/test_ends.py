"""However a comparison ends, nothing of it is left: no process, no file, and no wait for what is dead."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cdna.cli import output
from cdna.compare.paths.cdna.guest import CdnaGuest
from cdna.compare.plan import Case
from cdna.compare.runner import Worker
from cdna.compare.slice import Slice
from cdna.errors import ResourceError
from cdna.guests.synthetic import SyntheticGuest
from cdna.machine import Machine
from cdna.nic.null_wire import NullWire
from cdna.nic.traffic import Load
from cdna.report.style import Style

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

PEER = bytes.fromhex("02cdffffffff")


def children(pid: int) -> list[int]:
    """Of a process with one thread, in the order in which they were started."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def wait_for_children(pid: int, n: int) -> list[int]:
    while len(found := children(pid)) < n:
        os.sched_yield()
    return found


@pytest.fixture
def piece():
    """A slice with one guest that transmits, ready to run."""
    load = Load.parse("1514")
    machine = Machine(4 << 20, wire=NullWire(load, flows=1), contexts=4)
    piece = Slice(machine, False)
    driver = machine.attach("guest", mac="02:cd:01:00:00:00", tx_ring=64, rx_ring=64)
    guest = CdnaGuest(piece.host, SyntheticGuest(driver, load, 0, bytes.fromhex("02cd01000000"), PEER))
    yield piece
    del guest
    machine.close()  # would wait for a NIC that is dead, if it thought that it lives
    assert not machine.nic.alive
    assert machine.memory.free_pages == machine.memory.pages


def test_told_to_end(piece):
    stop, told = os.pipe()
    os.close(told)
    with pytest.raises(ResourceError, match="told to end"):
        piece.run(60.0, 0.05, stop)
    os.close(stop)
    assert not children(os.getpid())


@pytest.mark.parametrize(
    ("victim", "message"), [(0, "the NIC's process died"), (1, "a domain's process died with status 9")]
)
def test_a_process_is_killed(piece, victim, message):
    killer = os.fork()
    if killer == 0:  # it is the first child; those of the slice come behind it
        try:
            os.kill(wait_for_children(os.getppid(), 3)[1 + victim], signal.SIGKILL)
        finally:
            os._exit(0)
    with pytest.raises(ResourceError, match=f"{message}|died before it began"):
        piece.run(10.0, 0.05)
    os.waitpid(killer, 0)
    assert not children(os.getpid())


def test_the_worker_ends_in_the_middle_of_a_slice_when_its_command_is_gone():
    worker = Worker()
    process = worker._process
    assert process.stdin is not None
    case = '{"path": "cdna", "direction": "tx", "guests": 2, "size": 1514, "protection": "validated", '
    case += '"domains": "process", "receive": null}'
    process.stdin.write(f'{{"case": {case}, "seconds": 60, "line_rate": 0, "verify": false}}\n')
    process.stdin.flush()
    domains = wait_for_children(process.pid, 3)
    worker.close()
    assert process.returncode == 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in domains)


def test_the_worker_is_of_the_same_package_in_any_directory(tmp_path, monkeypatch):
    (tmp_path / "cdna").mkdir()
    (tmp_path / "cdna/__init__.py").write_text("raise SystemExit('the wrong package')")
    (tmp_path / "json.py").write_text("raise SystemExit('the wrong module')")
    monkeypatch.chdir(tmp_path)
    worker = Worker()
    plan = type("Plan", (), {"line_rate": 0.0, "verify": False})
    result = worker.run(Case("cdna", "tx", 1, 1514, "validated", "inline"), plan, 0.001)
    worker.close()
    assert result["sent"] == result["received"]


def test_the_worker_says_nothing_when_nobody_reads_its_answer():
    code = "from cdna.compare.worker import _answer; import os; os.close(0); print(_answer('x'))"
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-c", code.replace("print(", "assert not (")],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


def test_standard_output_is_closed(monkeypatch):
    monkeypatch.setattr("sys.stdout", None)
    assert output.style() == Style()
    with pytest.raises(ResourceError, match="standard output: closed; give a place"):
        output.show("a table")
