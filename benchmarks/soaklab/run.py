"""A soak from its beginning to its end: turns, rests, samples, and what is said of them."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cdna import Machine
from cdna.compare.hostinfo import host_facts
from cdna.fuzz.hostile_process import HostileProcess
from cdna.vmm.vhost_user import VhostUserServer

from .frames import Counts, Wrong
from .honest import Natives, Part, Remotes, VirtualMachines, Visitors
from .hostile import Frontends, InThread, Mallory, Processes
from .samples import Trend, held, trend

PARTS = ("native", "visitors", "remote", "vhost-user", "namespaces", "attackers")
SAMPLES = 240  # of a soak
LEAST = 5.0  # seconds between two, but for a short soak, which has four
MEMORY = 48 << 20  # bytes of the machine


@dataclass
class Result:
    seconds: float = 0.0
    seed: int = 0
    host: dict[str, Any] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)  # parts, and why
    honest: dict[str, Counts] = field(default_factory=dict)
    hostile: dict[str, dict[str, dict[str, int]]] = field(default_factory=dict)
    times: list[float] = field(default_factory=list)  # of the samples, seconds
    samples: dict[str, dict[str, list[float]]] = field(default_factory=dict)  # by process, by name
    rates: list[float] = field(default_factory=list)  # honest frames a second before each sample
    trends: dict[str, list[Trend]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    @property
    def frames(self) -> int:
        return sum(counts.sent for counts in self.honest.values())

    @property
    def lost(self) -> int:
        return sum(counts.lost for counts in self.honest.values())

    @property
    def acts(self) -> int:
        return sum(sum(kind["acts"].values()) for kind in self.hostile.values())

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "frames": self.frames, "lost": self.lost, "acts": self.acts}


class Soak:
    """parts: of PARTS."""

    def __init__(self, seconds: float, seed: int, parts: list[str]) -> None:
        self.seconds = seconds
        self.parts = list(parts)
        self.result = Result(seed=seed, host=host_facts())
        self._honest: list[Part] = []
        self._hostile: list[Any] = []
        self._exit = contextlib.ExitStack()

    def run(self, tell: Callable[[str], None]) -> Result:
        result = self.result
        level = logging.getLogger("cdna").level
        logging.getLogger("cdna").setLevel(logging.CRITICAL)  # thousands of faults, all of them meant
        self._exit.callback(logging.getLogger("cdna").setLevel, level)
        with self._exit:
            self._begin()
            begun = time.monotonic()
            try:
                self._turns(begun, tell)
            except Wrong as wrong:
                result.failures.append(str(wrong))
            result.seconds = time.monotonic() - begun
            self._count()
        self._judge()
        return result

    # --- who takes part -----------------------------------------------------------------------------------

    def _begin(self) -> None:
        folder = Path(self._exit.enter_context(tempfile.TemporaryDirectory(prefix="cdna-soak-")))
        seed, parts = self.result.seed, self.parts
        process = HostileProcess() if "attackers" in parts else None  # forked before there is a machine
        if "namespaces" in parts:
            self._namespaces()
        self.machine = machine = Machine(MEMORY, wire="null", contexts=24)
        self._exit.callback(machine.close)
        server = VhostUserServer(machine.vmm, control_share=1.0)
        self._exit.callback(server.close)
        if "native" in parts:
            self._honest.append(Natives(machine, seed))
        if "visitors" in parts:
            self._honest.append(Visitors(machine, seed))
        if "remote" in parts:
            self._honest.append(Remotes(machine, seed, folder))
        if "vhost-user" in parts:
            self._honest.append(VirtualMachines(machine, seed, folder, server))
        if process is not None:
            self._hostile = [
                Mallory(machine),
                Processes(machine, seed, folder, process),
                InThread(Frontends(seed, folder, server)),
            ]
        for part in (*self._honest, *self._hostile):
            self._exit.callback(part.close)
        machine.start()

    def _namespaces(self) -> None:
        missing = [program for program in ("nsenter",) if shutil.which(program) is None]
        if os.geteuid() != 0 or missing:
            self.result.left_out["namespaces"] = f"needs {' '.join(missing)}" if missing else "needs root"
            return
        from .namespaces import Namespaces

        self._honest.append(self._exit.enter_context(Namespaces()))

    # --- turns and rests ----------------------------------------------------------------------------------

    def _turns(self, begun: float, tell: Callable[[str], None]) -> None:
        every = max(min(LEAST, self.seconds / 4), self.seconds / SAMPLES)
        sampled, frames = begun, 0
        while True:
            for part in self._honest:
                for hostile in self._hostile:
                    hostile.turn()
                self._named(part.name, part.turn)
            now = time.monotonic()
            if now - sampled < every and now - begun < self.seconds:
                continue
            for part in (*self._honest, *self._hostile):
                self._named(part.name, part.rest)
            self._count()
            self._sample(now - begun, (self.result.frames - frames) / (now - sampled))
            tell(self._line(now - begun))
            sampled, frames = time.monotonic(), self.result.frames
            if now - begun >= self.seconds:
                return

    def _named(self, name: str, act: Callable[[], object]) -> None:
        try:
            act()
        except Wrong as wrong:
            raise Wrong(f"{name}: {wrong}") from None

    def _count(self) -> None:
        self.result.honest = {part.name: part.counts for part in self._honest}
        self.result.hostile = {
            part.name: {"acts": dict(part.acts), "faults": dict(part.faults)} for part in self._hostile
        }

    def _sample(self, at: float, rate: float) -> None:
        self.result.times.append(at)
        self.result.rates.append(rate)
        now = {"soak": held(self.machine)}
        for part in self._honest:
            if (pid := getattr(part, "pid", None)) is not None:
                now[part.name] = held(None, pid)
        for process, values in now.items():
            for name, value in values.items():
                self.result.samples.setdefault(process, {}).setdefault(name, []).append(value)

    def _line(self, at: float) -> str:
        last = {name: values[-1] for name, values in self.result.samples["soak"].items()}
        return (
            f"{at:7.0f} of {self.seconds:.0f} s  {self.result.frames / 1e6:.2f} M frames, "
            f"{self.result.lost} lost, {self.result.acts} attacks  {last['pss']:.1f} MiB, "
            f"{last['descriptors']:.0f} descriptors, {last['mappings']:.0f} mappings"
        )

    # --- what is said of it -------------------------------------------------------------------------------

    def _judge(self) -> None:
        result = self.result
        for name, counts in result.honest.items():
            if counts.lost:
                result.failures.append(f"{name}: {counts.lost} frames are lost")
        for process, samples in result.samples.items():
            result.trends[process] = [trend(name, result.times, values) for name, values in samples.items()]
            result.failures += [
                f"{process}: {line.name} grow by {line.growth:.1f} over the run (allowed: {line.tolerance:g})"
                for line in result.trends[process]
                if line.grows
            ]


def summary(result: Result) -> str:
    """The tables of a soak, as text."""
    lines = [f"{result.seconds:.0f} seconds, seed {result.seed}", ""]
    lines.append(
        f"{'honest guests':22}{'frames sent':>14}{'received':>14}{'dropped':>10}{'lost':>8}{'came':>8}"
    )
    for name, counts in result.honest.items():
        dropped = counts.dropped.total()
        lines.append(
            f"{name:22}{counts.sent:14,}{counts.received:14,}{dropped:10,}{counts.lost:8,}{counts.comings:8,}"
        )
    for name, why in result.left_out.items():
        lines.append(f"{name:22}left out: {why}")
    lines += ["", f"{'hostile guests':22}{'attacks':>14}  stopped or sent away"]
    for name, kind in result.hostile.items():
        faults = ", ".join(f"{reason} {n:,}" for reason, n in sorted(kind["faults"].items()))
        lines.append(f"{name:22}{sum(kind['acts'].values()):14,}  {faults}")
    for process, trends in result.trends.items():
        lines += [
            "",
            f"{'held by ' + process:22}{'first':>10}{'last':>10}{'most':>10}{'growth':>10}{'allowed':>10}",
        ]
        for line in trends:
            figures = (line.first, line.last, line.most, line.growth, line.tolerance)
            lines.append(f"{line.name:22}" + "".join(f"{figure:10.1f}" for figure in figures))
    lines += ["", *(f"FAILED: {failure}" for failure in result.failures)]
    if not result.failures:
        lines.append("No frame was lost, and nothing grows.")
    return "\n".join(lines)
