"""What is tried out for real. Nobody knows what the machine of a test allows, so the answers are compared."""

import errno
import os
import socket
import sys

import pytest

from cdna.doctor.host import Host, output_of, try_out
from cdna.doctor.trial import TRIALS


@pytest.mark.parametrize("name", TRIALS)
def test_a_trial_answers_and_leaves_nothing(name: str) -> None:
    before = (socket.if_nameindex(), os.stat("/proc/self/ns/net").st_ino)
    trial = try_out(name)
    assert trial.works or (trial.step and errno.errorcode[trial.errno])
    assert (socket.if_nameindex(), os.stat("/proc/self/ns/net").st_ino) == before


def test_af_packet_is_what_this_process_can_open() -> None:
    expected = 0
    try:
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close()
    except OSError as error:
        expected = error.errno or 0
    assert try_out("af-packet").errno == expected


def test_a_trial_that_cannot_be_run() -> None:
    assert not try_out("no such trial").works


def test_output_of() -> None:
    assert output_of([sys.executable, "-c", "print('1.2')"]) == "1.2\n"
    assert output_of([sys.executable, "-c", "raise SystemExit(1)"]) is None
    assert output_of(["/nonexistent/program"]) is None


def test_this_machine() -> None:
    host = Host()
    assert host.read("proc/sys/kernel/osrelease") == os.uname().release
    assert host.affinity == os.sched_getaffinity(0)
    assert host.read("proc/nonexistent") is None
