"""Host CPU by who used it, from /proc."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass

from cdna.compare.vm.result import HostCpu
from cdna.vm.machine import cpu_times


@dataclass(frozen=True)
class Reading:
    """Seconds so far: of the clock, of QEMU, of the server (user mode, kernel), of the whole kernel."""

    clock: float
    guests: tuple[float, float]
    server: tuple[float, float]
    kernel: float

    @classmethod
    def now(cls, guests: Sequence[int], server: int | None) -> "Reading":
        """guests, server: process ids."""
        times = [cpu_times(pid) for pid in guests]
        return cls(
            time.monotonic(),
            (sum(user for user, _ in times), sum(system for _, system in times)),
            (0.0, 0.0) if server is None else cpu_times(server),
            _kernel_seconds(),
        )

    def since(self, before: "Reading") -> HostCpu:
        """What was used between two readings."""
        span = max(self.clock - before.clock, 1e-9)
        guests = [now - then for now, then in zip(self.guests, before.guests, strict=True)]
        server = [now - then for now, then in zip(self.server, before.server, strict=True)]
        rest = self.kernel - before.kernel - guests[1] - server[1]
        return HostCpu(sum(guests) / span, sum(server) / span, max(0.0, rest) / span)


def _kernel_seconds() -> float:
    """Seconds that all cores have spent in the kernel, interrupts included (proc(5), stat)."""
    with open("/proc/stat", encoding="ascii") as file:
        _user, _nice, system, _idle, _iowait, irq, softirq, *_ = (
            int(word) for word in file.readline().split()[1:]
        )
    return (system + irq + softirq) / os.sysconf("SC_CLK_TCK")
