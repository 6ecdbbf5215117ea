"""What is tried out for real. Nobody knows what the machine of a test allows, so the answers are compared."""

import errno
import os
import socket
import sys
from collections.abc import Callable

import pytest

from cdna.doctor import trials
from cdna.extend import trial as common
from cdna.extend.host import Host, output_of, try_out
from cdna.lab.kinds.vhost_user import kvm_trial
from cdna.nic.wires import packet_trial, tap_trial

TRIALS = (
    common.network_namespace,
    common.user_namespace,
    tap_trial.tap,
    tap_trial.tap_offloads,
    packet_trial.af_packet,
    trials.af_xdp,
    trials.memfd_seal,
    trials.libseccomp,
    trials.landlock,
    trials.io_uring,
    kvm_trial.kvm,
)


@pytest.mark.parametrize("tried", TRIALS)
def test_a_trial_answers_and_leaves_nothing(tried: Callable[[], None]) -> None:
    before = (socket.if_nameindex(), os.stat("/proc/self/ns/net").st_ino)
    trial = try_out(tried)
    assert trial.works or (trial.step and errno.errorcode[trial.errno])
    assert (socket.if_nameindex(), os.stat("/proc/self/ns/net").st_ino) == before


def test_af_packet_is_what_this_process_can_open() -> None:
    expected = 0
    try:
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close()
    except OSError as error:
        expected = error.errno or 0
    assert try_out(packet_trial.af_packet).errno == expected


def test_a_trial_that_cannot_be_run() -> None:
    assert not try_out(test_output_of).works  # its file imports pytest


def test_output_of() -> None:
    assert output_of([sys.executable, "-c", "print('1.2')"]) == "1.2\n"
    assert output_of([sys.executable, "-c", "raise SystemExit(1)"]) is None
    assert output_of(["/nonexistent/program"]) is None


def test_this_machine() -> None:
    host = Host()
    assert host.read("proc/sys/kernel/osrelease") == os.uname().release
    assert host.affinity == os.sched_getaffinity(0)
    assert host.read("proc/nonexistent") is None
