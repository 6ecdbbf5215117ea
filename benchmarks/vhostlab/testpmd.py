"""One dpdk-testpmd, driven at its prompt.

The prompt and not `--stats-period`: forwarding begins when it is told to, and counters are read at moments
that the caller chooses, with rates by testpmd's own clock between two reads. When the caller dies, however it
dies, its end of the pipe closes, and testpmd takes that for `quit`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cdna.base.closing import Closing
from cdna.errors import ResourceError

PROGRAM = "dpdk-testpmd"
PACKAGE = "dpdk"
PROMPT = b"testpmd> "
PATIENCE = 60.0  # seconds for an answer; the first touch of all memory comes before the first prompt
QUIT_SECONDS = 15.0
SAID = 4  # last lines of a testpmd that ended, in the error

_PORT = re.compile(r"NIC statistics for port (\d+)")
_COUNTER = re.compile(r"([RT]x-[pb]ps|[RT]X-[a-z]+): +(\d+)")


@dataclass(frozen=True)
class PortStats:
    """A port's counters, and its rates since they were last read."""

    rx_frames: int
    rx_bytes: int
    rx_missed: int
    rx_errors: int
    rx_pps: int
    tx_frames: int
    tx_bytes: int
    tx_errors: int
    tx_pps: int


@dataclass(frozen=True)
class Cores:
    """CPUs: those that forward, and the one of the prompt, whose thread sleeps most of the time."""

    forwarding: tuple[int, ...]
    prompt: int

    @property
    def lcores(self) -> str:
        """As EAL's --lcores has it: the prompt's is number 0."""
        cpus = (self.prompt, *self.forwarding)
        return ",".join(f"{lcore}@{cpu}" for lcore, cpu in enumerate(cpus))


class Testpmd(Closing):
    """A dpdk-testpmd with the virtual devices `vdevs`, ports in that order, that forwards nothing yet.

    huge: its memory is hugepages. megabytes: how much. mbufs: packet buffers, in all. options: testpmd's own.
    enter: a command that runs another, such as nsenter, with the descriptors `pass_fds`.
    """

    __test__ = False  # pytest: the name is DPDK's

    def __init__(
        self,
        vdevs: Sequence[str],
        *,
        cores: Cores,
        huge: bool = False,
        megabytes: int = 512,
        mbufs: int = 16384,
        options: Sequence[str] = (),
        enter: Sequence[str] = (),
        pass_fds: Sequence[int] = (),
    ) -> None:
        need(PROGRAM)
        self._place = tempfile.TemporaryDirectory(prefix="cdna-testpmd-")
        command = [*enter, "stdbuf", "-oL", PROGRAM, "--lcores", cores.lcores]
        # One file for all memory, as a vhost-user message has room for few regions. Without huge pages it is
        # always one, and DPDK 25.11 refuses to be told so.
        command += ["--in-memory", "--single-file-segments"] if huge else ["--no-huge", "--no-shconf"]
        command += ["--iova-mode=va", "-m", str(megabytes)]
        command += ["--no-pci", "--no-telemetry", f"--file-prefix={Path(self._place.name).name}"]
        command += [f"--vdev={vdev}" for vdev in vdevs]
        command += ["--", "-i", f"--nb-cores={len(cores.forwarding)}", f"--total-num-mbufs={mbufs}", *options]
        self.log = b""  # all that it said
        self._read = 0  # of it, by `_answer`
        self._over = False
        self._said = threading.Condition()
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            bufsize=0,
            pass_fds=tuple(pass_fds),
            env=os.environ | {"RUNTIME_DIRECTORY": self._place.name},
        )
        # It says more than a pipe holds while others attach to it, and would wait for a reader.
        self._reader = threading.Thread(target=self._listen, daemon=True)
        self._reader.start()
        try:
            self._answer()
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def command(self, text: str) -> str:
        """What testpmd prints in answer to a line. ResourceError: it does not know it, or has ended."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(text.encode() + b"\n")
        except BrokenPipeError:
            raise self._ended() from None
        answer = self._answer().removeprefix(text).strip()
        if answer.startswith(("Command not found", "Bad arguments")):
            raise ResourceError(f"{PROGRAM}: {text}: {answer.splitlines()[0]}")
        return answer

    def stats(self) -> list[PortStats]:
        """Of each port."""
        _, *parts = _PORT.split(self.command("show port stats all"))
        ports = dict(zip(map(int, parts[::2]), parts[1::2], strict=True))
        return [_port_stats(ports[port]) for port in sorted(ports)]

    def start(self, mode: str, *, first_bursts: int = 0) -> None:
        """Forwards from now on. first_bursts: bursts of new frames that each port sends before."""
        self.command(f"set fwd {mode}")
        self.command(f"start tx_first {first_bursts}" if first_bursts else "start")

    def stop(self) -> str:
        """Forwards no longer. Returns its final statistics."""
        return self.command("stop")

    def kill(self) -> None:
        """As a crash would: nothing is said to the peer."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()  # means quit
        try:
            self._process.wait(QUIT_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
        self._reader.join()
        self._process.stdout.close()
        self._place.cleanup()

    def _listen(self) -> None:
        """Reads what it says, until its end."""
        assert self._process.stdout is not None
        while read := self._process.stdout.read(1 << 16):
            with self._said:
                self.log += read
                self._said.notify_all()
        with self._said:
            self._over = True
            self._said.notify_all()

    def _answer(self) -> str:
        """All up to the next prompt."""
        with self._said:
            self._said.wait_for(lambda: self._over or self.log.find(PROMPT, self._read) >= 0, PATIENCE)
            end = self.log.find(PROMPT, self._read)  # it may have gone on to say something unasked
            if end < 0:
                raise self._ended()
            answer, self._read = self.log[self._read : end], end + len(PROMPT)
        return answer.decode(errors="replace").replace("\r", "")

    def _ended(self) -> ResourceError:
        lines = [line for line in self.log.decode(errors="replace").splitlines() if line.strip()]
        said = "; ".join(line.strip() for line in lines[-SAID:])
        return ResourceError(f"{PROGRAM} {'does not answer' if self.running else 'ended'}: {said}")


def need(program: str = PROGRAM) -> None:
    if shutil.which(program) is None:
        raise ResourceError(f"{program} is missing: apt-get install {PACKAGE}")


def _port_stats(text: str) -> PortStats:
    found = {name: int(value) for name, value in _COUNTER.findall(text)}
    return PortStats(
        rx_frames=found["RX-packets"],
        rx_bytes=found["RX-bytes"],
        rx_missed=found["RX-missed"],
        rx_errors=found["RX-errors"],
        rx_pps=found["Rx-pps"],
        tx_frames=found["TX-packets"],
        tx_bytes=found["TX-bytes"],
        tx_errors=found["TX-errors"],
        tx_pps=found["Tx-pps"],
    )
