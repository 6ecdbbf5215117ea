"""What other programs and a hypervisor took of the cores while something was measured.

A slice of `cdna compare` has processes pinned to two cores. The domains' core always runs one of them, for
an idle host spins: what they did not get of its time, others had. The NIC may sleep, so for its core it is
the time that it was ready to run and waited (`run_delay` of proc(5)'s schedstat). Either way, what the
hypervisor stole counts as well. Involuntary switches are counted, but do not judge a slice: domains take
turns on their core.

Loads that are not pinned are judged by the user time of processes outside of this one's family.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

LIMIT = 0.02  # of a core's time that others may have in a slice
SLACK = 0.003  # seconds beside, for the start and the end
LOAD_LIMIT = 0.1  # of a core's time, beside a load that is not pinned
LOAD_SLACK = 0.2  # seconds beside: the kernel counts in ticks
REPEATS = 3  # of disturbed slices of one case; of each, the least disturbed one is kept

_TICK = os.sysconf("SC_CLK_TCK")
_STEAL = 8  # field of a line of /proc/stat, the name counted (proc(5))
_CPUCLOCK_SCHED = 2  # linux/posix-timers_types.h: the time that a process has run, of any process

Result = TypeVar("Result")


@dataclass(frozen=True)
class Taken:
    """What others had of the cores in one slice. share: of a core's time, on the core where it was most.

    switches: involuntary context switches of the processes. stolen: seconds, by the hypervisor.
    """

    share: float = 0.0
    switches: int = 0
    stolen: float = 0.0
    disturbed: bool = False


@dataclass(frozen=True)
class Disturbance:
    """What others had in all slices of a case that were kept, as in `Taken`; share: the greatest.

    repeated: slices that were measured anew. disturbed: slices that were kept although they were disturbed.
    """

    repeated: int = 0
    disturbed: int = 0
    share: float = 0.0
    switches: int = 0
    stolen: float = 0.0

    @classmethod
    def of(cls, slices: Sequence[Taken], repeated: int) -> Disturbance:
        return cls(
            repeated,
            sum(taken.disturbed for taken in slices),
            round(max((taken.share for taken in slices), default=0.0), 4),
            sum(taken.switches for taken in slices),
            round(sum(taken.stolen for taken in slices), 3),
        )


QUIET = Disturbance()


def undisturbed(measure: Callable[[], tuple[Result, Taken]], before: int) -> tuple[Result, Taken, int]:
    """The least disturbed result of `measure`, which is repeated while disturbed; and how often it was.

    before: how often slices of this case were repeated; there are REPEATS in all.
    """
    tries = [measure()]
    while tries[-1][1].disturbed and before + len(tries) <= REPEATS:
        tries.append(measure())
    result, taken = min(tries, key=lambda one: (one[1].disturbed, one[1].share))
    return result, taken, len(tries) - 1


# --- pinned processes ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CoresReading:
    """So far, in seconds: of the clock, of the domains, of the NIC's waiting; stolen: by core."""

    clock: float
    ran: float
    waited: float
    stolen: dict[int, float]
    switches: int

    @classmethod
    def now(cls, nic: int, domains: Sequence[int], cores: Iterable[int]) -> CoresReading:
        """nic, domains: process ids, also of processes that ended and were not waited for."""
        return cls(
            time.monotonic(),
            sum(map(_ran, domains)),
            _waited(nic),
            stolen_seconds(cores),
            sum(map(_switches, (nic, *domains))),
        )

    def since(self, before: CoresReading, host_core: int, nic_core: int) -> Taken:
        """What others had between two readings."""
        span = max(self.clock - before.clock, 1e-9)
        stolen = {core: seconds - before.stolen[core] for core, seconds in self.stolen.items()}
        lost = [max(span - (self.ran - before.ran), stolen[host_core])] if host_core != nic_core else []
        lost.append(self.waited - before.waited + stolen[nic_core])
        share = min(1.0, max(0.0, *lost) / span)
        switches = self.switches - before.switches
        return Taken(share, switches, sum(stolen.values()), share * span > LIMIT * span + SLACK)


def _ran(pid: int) -> float:
    return time.clock_gettime((~pid << 3) | _CPUCLOCK_SCHED)


def _waited(pid: int) -> float:
    """Seconds that a process was ready to run and did not; 0 where the kernel does not tell."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text(encoding="ascii").split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return 0.0


def _switches(pid: int) -> int:
    """Involuntary context switches of a process with one thread."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("nonvoluntary_ctxt_switches:"):
            return int(line.split()[1])
    return 0


def stolen_seconds(cores: Iterable[int]) -> dict[int, float]:
    """Seconds of each core that the hypervisor had for others (steal)."""
    wanted = {f"cpu{core}": core for core in cores}
    stolen = dict.fromkeys(wanted.values(), 0.0)
    for line in Path("/proc/stat").read_text(encoding="ascii").splitlines():
        name, *_ = words = line.split()
        if name in wanted and len(words) > _STEAL:
            stolen[wanted[name]] = int(words[_STEAL]) / _TICK
    return stolen


# --- loads that are not pinned ------------------------------------------------------------------------------


@dataclass(frozen=True)
class LoadReading:
    """So far, in seconds: of the clock, user time of all, stolen, of this process's family."""

    clock: float
    user: float
    stolen: float
    own: float
    switches: int

    @classmethod
    def before(cls) -> LoadReading:
        """The reading before a load. Looking through the processes takes long: the clock comes last."""
        family = _family()
        return cls(*_used(), *family)

    @classmethod
    def after(cls) -> LoadReading:
        """The reading after a load: the clock comes first."""
        used = _used()
        return cls(*used, *_family())

    def since(self, before: LoadReading) -> Taken:
        """What others had between two readings. share: of one core's time."""
        span = max(self.clock - before.clock, 1e-9)
        others = max(0.0, self.user - before.user - (self.own - before.own))
        stolen = self.stolen - before.stolen
        switches = max(0, self.switches - before.switches)
        disturbed = others + stolen > LOAD_LIMIT * span + LOAD_SLACK
        return Taken((others + stolen) / span, switches, stolen, disturbed)


def watched(measure: Callable[[], Result]) -> tuple[Result, Taken]:
    """What `measure` returns, and what others had meanwhile."""
    before = LoadReading.before()
    result = measure()
    return result, LoadReading.after().since(before)


def _used() -> tuple[float, float, float]:
    """The clock; user time and stolen time of all cores so far."""
    words = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()
    return time.monotonic(), (int(words[1]) + int(words[2])) / _TICK, int(words[_STEAL]) / _TICK


def _family() -> tuple[float, int]:
    """User time of this process and all descendants, those that ended too; their involuntary switches."""
    parents: dict[int, int] = {}
    users: dict[int, float] = {}
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            try:
                fields = (
                    Path(f"/proc/{entry}/stat")
                    .read_text(encoding="utf-8", errors="replace")
                    .rpartition(")")[2]
                    .split()
                )
            except OSError:  # it has ended
                continue
            parents[int(entry)] = int(fields[1])
            users[int(entry)] = (int(fields[11]) + int(fields[13])) / _TICK
    own = os.getpid()
    family = [pid for pid in parents if _descends(pid, own, parents)]
    return sum(users[pid] for pid in family), sum(map(_task_switches, family))


def _descends(pid: int, ancestor: int, parents: dict[int, int]) -> bool:
    while pid in parents and pid != ancestor:
        pid = parents[pid]
    return pid == ancestor


def _task_switches(pid: int) -> int:
    try:
        return sum(_switches_of(task) for task in Path(f"/proc/{pid}/task").iterdir())
    except OSError:
        return 0


def _switches_of(task: Path) -> int:
    try:
        return _switches(int(task.name))
    except OSError:
        return 0
