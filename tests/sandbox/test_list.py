"""The list of system calls: what is outside ends a process, what is inside does not; none is too many."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cdna.sandbox import filter, trace
from cdna.sandbox.calls import CALLS
from tests.sandbox.derive import read, report

# Runs each piece of code in a child of its own that keeps to the filter; says what became of it.
TRIALS = """
import ctypes, fcntl, json, mmap, os, resource, signal, socket, sys, threading
from cdna.lab.kinds import KINDS
from cdna.nic.wires import WIRES
from cdna.sandbox import filter
REGISTRIES = {"wire": WIRES, "guest": KINDS}
libc = ctypes.CDLL(None, use_errno=True)
for name, (code, *entry) in json.loads(sys.stdin.read()).items():
    child = os.fork()
    if child == 0:
        go = threading.Event()
        before = threading.Thread(target=lambda: (go.wait(), os.fork()), daemon=True)
        before.start()
        filter.make_filter(entry and REGISTRIES[entry[0]][entry[1]].permits().calls).load()
        try:
            exec(code)
        finally:
            os._exit(7)
    _, status = os.waitpid(child, 0)
    print(json.dumps([name, os.waitstatus_to_exitcode(status)]))
"""
PASSED = 7

needs_seccomp = pytest.mark.skipif(filter.trouble() is not None, reason=str(filter.trouble()))
x86 = pytest.mark.skipif(os.uname().machine != "x86_64", reason="the numbers are those of x86-64")

INSIDE = {
    "files": "os.close(os.open('/dev/null', os.O_RDONLY))",
    "memory": "mmap.mmap(-1, 4096).close()",
    "a thread": "t = threading.Thread(target=os.getpid); t.start(); t.join()",
    "a Unix socket": "socket.socket(socket.AF_UNIX).close()",
    "a memory file": "fcntl.fcntl(os.memfd_create('x', os.MFD_ALLOW_SEALING), fcntl.F_ADD_SEALS, 2)",
}
OUTSIDE = {
    "a program": "os.execv('/bin/true', ['true'])",
    "a process": "os.fork()",
    "a process by another thread": "go.set(); before.join()",
    "memory that is code": "mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC)",
    "memory that becomes code": (
        "m = mmap.mmap(-1, 4096); at = ctypes.addressof(ctypes.c_char.from_buffer(m)); "
        "libc.mprotect(ctypes.c_void_p(at), 4096, 5)"
    ),
    "the network": "socket.socket(socket.AF_INET)",
    "a raw socket": "socket.socket(socket.AF_PACKET, socket.SOCK_RAW)",
    "netlink": "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
    "an ioctl": "fcntl.ioctl(0, 0x5412, b'x')",  # TIOCSTI: types into the terminal
    "an fcntl": "fcntl.fcntl(0, fcntl.F_SETOWN, os.getpid())",
    "a signal": "os.kill(os.getppid(), 0)",
    "another process's memory": "libc.ptrace(0, 0, 0, 0)",
    "a mount": "libc.mount(b'none', b'/', b'tmpfs', 0, None)",
    "a namespace": "libc.unshare(0x40000000)",
    "a user namespace": "libc.unshare(0x10000000)",
    "another user": "os.setuid(1)",
    "a limit": "resource.getrlimit(resource.RLIMIT_NOFILE)",
    "io_uring": "libc.syscall(425, 1, 0)",
    "undoing it": "libc.prctl(22, 2, 0)",
    "a mode": "os.chmod('/dev/null', 0o666)",
}


OUTSIDE_X86 = {
    "a process by clone": "libc.syscall(56, 17, 0, 0, 0, 0)",
    "a thread in a namespace": "libc.syscall(56, 0x40010900, 0, 0, 0, 0)",
    "a signal to another process": "libc.syscall(234, os.getppid(), os.getppid(), 0)",
    "bpf": "libc.syscall(321, 0, 0, 0)",
    "x32": "libc.syscall(0x40000000 + 39)",
}
OF_A_PART = {
    "wire tap": "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
    "wire packet": "fcntl.ioctl(socket.socket(socket.AF_UNIX), 0x8913, b'lo' + bytes(38))",  # SIOCGIFFLAGS
    "guest namespace": "os.pidfd_open(os.getpid())",
}


@pytest.fixture(scope="module")
def became() -> dict[str, int]:
    """The status that each trial has ended with, by its name."""
    trials = {name: (code,) for name, code in {**INSIDE, **OUTSIDE, **OUTSIDE_X86}.items()}
    for part, code in OF_A_PART.items():
        trials |= {f"with {part}": (code, *part.split()), f"without {part}": (code,)}
    ethtool = "fcntl.ioctl(socket.socket(socket.AF_UNIX), 0x8946, b'lo'.ljust(40, b'\\0'))"  # SIOCETHTOOL
    trials["ethtool"] = (ethtool, "wire", "tap")
    trials["nf_tables"] = ("socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)", "wire", "tap")
    done = subprocess.run(
        [sys.executable, "-c", TRIALS], input=json.dumps(trials), capture_output=True, text=True, timeout=60
    )
    return dict(json.loads(line) for line in done.stdout.splitlines())


@needs_seccomp
@pytest.mark.parametrize("what", INSIDE)
def test_a_call_inside_passes(became: dict[str, int], what: str) -> None:
    assert became[what] == PASSED


@needs_seccomp
@pytest.mark.parametrize("what", OUTSIDE)
def test_a_call_outside_ends_the_process(became: dict[str, int], what: str) -> None:
    assert became[what] == -signal.SIGSYS


@x86
@needs_seccomp
@pytest.mark.parametrize("what", OUTSIDE_X86)
def test_a_raw_call_outside_ends_the_process(became: dict[str, int], what: str) -> None:
    assert became[what] == -signal.SIGSYS


@needs_seccomp
@pytest.mark.parametrize("part", OF_A_PART)
def test_a_part_allows_what_it_is_for(became: dict[str, int], part: str) -> None:
    assert (became[f"without {part}"], became[f"with {part}"]) == (-signal.SIGSYS, PASSED)


@needs_seccomp
def test_netlink_is_for_routes(became: dict[str, int]) -> None:
    """A tap's server may set its addresses, and has no way into the kernel's firewall."""
    assert became["nf_tables"] == -signal.SIGSYS


@needs_seccomp
def test_a_tap_s_server_changes_no_device_by_ethtool(became: dict[str, int]) -> None:
    assert became["ethtool"] == -signal.SIGSYS


def test_a_new_thread_is_made_by_clone() -> None:
    """clone3 has its flags in memory; the C library takes clone where there is none."""
    assert [call.name for call in CALLS if call.absent] == ["clone3"]


@needs_seccomp
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: a server is traced by its child")
@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
@pytest.mark.timeout(600)
def test_the_list_is_what_servers_need(tmp_path: Path) -> None:
    """No less, and no more: all that `test_serving` does, traced."""
    tests = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            str(Path(__file__).with_name("test_serving.py")),
        ],
        env={**os.environ, trace.TO: str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert tests.returncode == 0, tests.stdout
    needed = read(sorted(tmp_path.iterdir()))
    assert not needed.outside, report(needed)
    assert not needed.surplus(), report(needed)
