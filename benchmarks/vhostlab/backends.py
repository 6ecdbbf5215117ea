"""What serves the sockets, on one core: DPDK's vhost library in dpdk-testpmd, or `cdna serve`.

Either is entered for one turn and listens on `ports` sockets then. `Role` says what it does with the frames;
a reading of its counters is `received`, which counts what has come in from guests.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Any

from cdna.errors import CdnaError, ResourceError
from cdna.vm.server import cdna

from .testpmd import Cores, PortStats, Testpmd

READY_SECONDS = 60.0
PR_SET_PDEATHSIG = 1  # linux/prctl.h
REPLAYED = 256  # frames that our source repeats, for each port
TURN = 32  # of them for one port at a time, as testpmd sends bursts
WIRE_MAC = "02:cd:fe:00:00:00"  # of whoever is behind the wire


class Role(Enum):
    SINK = "takes what guests send"
    SOURCE = "sends to the guests as fast as they take it"
    SWITCH = "carries frames between guests"


@dataclass(frozen=True)
class Setup:
    """What both contenders share: cores, memory, and how the frontends are configured."""

    engine: int = 1
    guests: int = 0
    huge: bool = False
    queue_size: int = 1024
    burst: int = 32
    poll: str = "busy"  # ours; DPDK knows no other
    context: str = ""  # more of our contexts' settings, such as ",queues=4"
    program: tuple[str, ...] = ()  # how our `cdna` is started; by default this one
    options: tuple[str, ...] = ()  # more of ours, such as ("--sandbox", "off")
    frontend: str = ""  # more of virtio-user's settings, such as ",packed_vq=1"
    megabytes: int = 256
    mbufs: int = 16384  # of each testpmd
    profile: str = ""  # files that profiles of the backends go to begin so; empty: none is made

    @property
    def engine_cores(self) -> Cores:
        return Cores((self.engine,), self.guests)

    @property
    def guest_cores(self) -> Cores:
        return Cores((self.guests,), self.engine)


@dataclass(frozen=True)
class Reading:
    """Frames and bytes so far, and when they were read, in seconds."""

    frames: int
    bytes: int
    at: float


def mac(port: int) -> str:
    return f"02:cd:be:00:00:{port:02x}"


class Backend(ABC):
    """Serves `ports` guests of the MAC addresses `mac(port)`; entered, its sockets are there.

    wire: ours, if not the one that the role asks for.
    """

    name: str

    def __init__(
        self, place: Path, setup: Setup, role: Role, *, ports: int, size: int, wire: str | None = None
    ) -> None:
        self.place, self.setup, self.role, self.ports, self.size = place, setup, role, ports, size
        self.wire = wire
        self.exit = contextlib.ExitStack()

    def path(self, port: int) -> Path:
        return self.place / f"{port}.sock"

    @abstractmethod
    def start(self) -> None: ...

    @abstractmethod
    def received(self) -> Reading:
        """What guests have sent and this backend has taken."""

    @abstractmethod
    def check(self) -> None:
        """ResourceError: something went wrong that the counters of frames do not show."""

    @property
    @abstractmethod
    def pid(self) -> int: ...

    def __enter__(self) -> Backend:
        try:
            self.start()
        except BaseException:
            self.exit.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.exit.close()


class DpdkVhost(Backend):
    name = "dpdk vhost"

    def start(self) -> None:
        vdevs = [f"net_vhost{port},iface={self.path(port)},queues=1" for port in range(self.ports)]
        self.testpmd = self.exit.enter_context(
            Testpmd(
                vdevs,
                cores=self.setup.engine_cores,
                huge=self.setup.huge,
                megabytes=self.setup.megabytes,
                mbufs=self.setup.mbufs,
                options=[f"--burst={self.setup.burst}"],
            )
        )
        for port in range(self.ports):
            self.testpmd.command(f"set eth-peer {port} {mac(port)}")
        self.testpmd.command(f"set txpkts {self.size}")
        self.testpmd.start({Role.SINK: "rxonly", Role.SOURCE: "txonly", Role.SWITCH: "io"}[self.role])

    @property
    def pid(self) -> int:
        return self.testpmd.pid

    def received(self) -> Reading:
        return reading(self.testpmd)

    def check(self) -> None:
        check_errors(self.name, self.testpmd.stats())


class CdnaServe(Backend):
    name = "cdna serve"

    def start(self) -> None:
        self.socket = self.place / "control.sock"
        command = [*(self.setup.program or cdna()), "serve", "--socket", str(self.socket)]
        command += ["--cpu", str(self.setup.engine), "--poll", self.setup.poll]
        command += ["--wire", self._wire(), *self.setup.options]
        for port in range(self.ports):
            command += [
                "--context",
                f"vhost-user:{self.path(port)},name=g{port},mac={mac(port)}{self.setup.context}",
            ]
        self._errors = self.exit.enter_context((self.place / "errors").open("w+"))
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._errors,
            preexec_fn=die_with_parent,
        )
        self.exit.callback(end, self.process)
        self._wait()
        self._pin()

    @property
    def pid(self) -> int:
        return self.process.pid

    def _pin(self) -> None:
        """Python's threads go where DPDK's prompt does; the engine has pinned its own."""
        for thread in os.listdir(f"/proc/{self.pid}/task"):
            with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
                if os.sched_getaffinity(int(thread)) != {self.setup.engine}:
                    os.sched_setaffinity(int(thread), {self.setup.guests})

    def _wire(self) -> str:
        if self.wire is not None:
            return self.wire
        if self.role is not Role.SOURCE:
            return "null"
        file = self.place / "source.pcap"
        write_source(file, self.ports, self.size)
        return f"pcap:read={file},loop=0"

    def _wait(self) -> None:
        """Until it answers, and the sockets are there on which it listens."""
        from cdna.lab.control import ControlClient

        deadline = time.monotonic() + READY_SECONDS
        while True:
            try:
                self.client = ControlClient(str(self.socket))
                break
            except CdnaError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise ResourceError(f"{self.name}: {self._said() or 'not ready'}") from None
                time.sleep(0.02)
        self.exit.callback(self.client.close)
        listens = "mode=client" not in self.setup.context
        while listens and not all(self.path(port).exists() for port in range(self.ports)):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise ResourceError(f"{self.name}: {self._said() or 'no sockets'}")
            time.sleep(0.02)

    def _said(self) -> str:
        self._errors.seek(0)
        return self._errors.read().strip().rpartition("\n")[2]

    def stats(self) -> dict[str, Any]:
        """What `cdna ctl stats --json` prints."""
        return dict(self.client.call("stats")[0])

    def received(self) -> Reading:
        before = time.monotonic()
        rows = self.stats()["traffic"]
        at = (before + time.monotonic()) / 2
        return Reading(sum(row["tx_frames"] for row in rows), sum(row["tx_bytes"] for row in rows), at)

    def check(self) -> None:
        if self.process.poll() is not None:
            raise ResourceError(f"{self.name} ended: {self._said()}")
        faults = [row for row in self.stats()["traffic"] if row.get("state") == "faulted"]
        if faults:
            raise ResourceError(f"{self.name}: {faults[0]['guest']} is faulted: {self._said()}")


BACKENDS: dict[str, type[Backend]] = {"cdna": CdnaServe, "dpdk": DpdkVhost}


def reading(testpmd: Testpmd, ports: Sequence[int] | None = None) -> Reading:
    """What a testpmd has received, on all its ports or on some."""
    before = time.monotonic()
    stats = testpmd.stats()
    at = (before + time.monotonic()) / 2
    wanted = stats if ports is None else [stats[port] for port in ports]
    check_errors("dpdk-testpmd", stats)
    return Reading(sum(port.rx_frames for port in wanted), sum(port.rx_bytes for port in wanted), at)


def check_errors(who: str, stats: Sequence[PortStats]) -> None:
    for port, found in enumerate(stats):
        if found.rx_errors:
            raise ResourceError(f"{who}: port {port} has received {found.rx_errors} frames with errors")


def write_source(file: Path, ports: int, size: int) -> None:
    """The frames that our source repeats: as testpmd's txonly makes them, for each guest in turn."""
    from scapy.layers.inet import IP, UDP
    from scapy.layers.l2 import Ether
    from scapy.utils import PcapWriter

    with PcapWriter(str(file), linktype=1) as out:
        for first in range(0, REPLAYED, TURN):
            for port in range(ports):
                headers = Ether(src=WIRE_MAC, dst=mac(port)) / IP(src="198.18.0.1", dst="198.18.0.2") / UDP()
                for frame in range(first, first + TURN):
                    body = bytes((frame + byte) % 256 for byte in range(size - 42))
                    out.write(headers / body)


def die_with_parent() -> None:
    """In a child that is about to run a program: it polls, and must not go on alone."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def end(process: subprocess.Popen[Any]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(READY_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
