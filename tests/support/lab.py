"""Labs and servers for tests, in a process of their own, and what keeps tests on one machine apart."""

from __future__ import annotations

import ctypes
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

import pytest

from cdna.lab.privilege import is_privileged

CDNA = [sys.executable, "-c", "import sys; from cdna.cli import main; sys.exit(main())"]
DEADLINE = 60  # seconds
PR_CAPBSET_DROP = 24  # linux/prctl.h
LAST_CAPABILITY = 40
CAP_SETFCAP = 31  # user_namespaces(7): who maps user 0 needs it; any other user needs none

needs_namespaces = pytest.mark.skipif(
    not (is_privileged() and os.path.exists("/dev/net/tun")),
    reason="needs root and /dev/net/tun",
)


def user_namespaces_work() -> bool:
    code = "from cdna.lab.privilege import gain; gain()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, preexec_fn=drop_capabilities)
    return done.returncode == 0


def unique() -> tuple[str, str]:
    """The name of a tap and a network that no other run of these tests uses at the same time."""
    pid = os.getpid()
    return f"cdt{pid % 10**9}", f"10.{64 + pid // 250 % 128}.{pid % 250}.0/24"


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def wait_until_still(read: Callable[[], object]) -> None:
    """Waits until what is read has stayed the same for many looks."""
    before, looks = read(), 0

    def still() -> bool:
        nonlocal before, looks
        now = read()
        looks = looks + 1 if now == before else 0
        before = now
        return looks > 20

    wait_for(still)


def drop_capabilities() -> None:
    """In a child that is about to run a program: root then has no rights but those to its files."""
    libc = ctypes.CDLL(None)
    for capability in range(LAST_CAPABILITY + 1):
        if capability != CAP_SETFCAP:
            libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)


def run(
    *argv: str, timeout: float = DEADLINE, unprivileged: bool = False
) -> subprocess.CompletedProcess[str]:
    """`cdna` with these arguments, to its end."""
    return subprocess.run(
        [*CDNA, *argv],
        capture_output=True,
        text=True,
        timeout=timeout,
        preexec_fn=drop_capabilities if unprivileged else None,
    )


class Up:
    """A `cdna up` that runs, or another command that does so; it is ready when this is made."""

    command = "up"

    def __init__(
        self, path: Path, *argv: str, unprivileged: bool = False, cgroup: Path | None = None
    ) -> None:
        self.path = path
        self.unprivileged = unprivileged

        def prepare() -> None:
            if cgroup is not None:
                (cgroup / "cgroup.procs").write_text(str(os.getpid()))
            if unprivileged:
                drop_capabilities()

        self.process = subprocess.Popen(
            [*CDNA, self.command, "--socket", str(path), *argv],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=prepare if unprivileged or cgroup is not None else None,
        )
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], DEADLINE)
        self.first_line = self.process.stdout.readline() if ready else ""
        if not self.first_line:
            if not ready:
                self.process.kill()  # an engine that is always busy would take a core from all later tests
            raise AssertionError(self.process.communicate(timeout=DEADLINE)[1])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()

    def end(self, signal: int) -> tuple[int, str, str]:
        """Status, output and errors after a signal."""
        self.process.send_signal(signal)
        out, err = self.process.communicate(timeout=DEADLINE)
        return self.process.returncode, out, err

    def ctl(self, command: str, *argv: str) -> subprocess.CompletedProcess[str]:
        return run("ctl", command, "--socket", str(self.path), *argv, unprivileged=self.unprivileged)

    def exec(self, guest: str, *command: str) -> subprocess.CompletedProcess[str]:
        return run("exec", "--socket", str(self.path), guest, "--", *command, unprivileged=self.unprivileged)

    def start(self, guest: str, command: Sequence[str]) -> subprocess.Popen[str]:
        """A program inside a guest, which goes on running."""
        return subprocess.Popen(
            [*CDNA, "exec", "--socket", str(self.path), guest, "--", *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=drop_capabilities if self.unprivileged else None,
        )


class Serve(Up):
    """A `cdna serve` that runs. What it logs goes with what it says at its end."""

    command = "serve"
