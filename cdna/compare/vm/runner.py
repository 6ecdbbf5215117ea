"""Measures a plan: all guests boot once, then the paths take turns under each load."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from dataclasses import replace
from functools import partial
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

from cdna.compare.disturbance import Disturbance, Taken, undisturbed, watched
from cdna.compare.hostinfo import host_facts
from cdna.compare.paths import path_named
from cdna.compare.result import Comparison
from cdna.compare.vm.cpu import Reading
from cdna.compare.vm.loads import LOADS, Turn
from cdna.compare.vm.plan import LATENCY, VmCase, VmPlan
from cdna.compare.vm.result import MEDIAN, P99, THROUGHPUT, HostCpu, VmRun
from cdna.compare.vm.scene import GUESTS, VmScene
from cdna.errors import ResourceError
from cdna.lab.privilege import is_privileged
from cdna.progress import OnProgress, Progress, ignore
from cdna.vm import image

if TYPE_CHECKING:
    from collections.abc import Sequence

TURNS = 3  # of each path under each load; odd, so that the median ratio is one that was measured
LONGEST = 60_000_000  # microseconds, of a round trip that the histogram can hold
DIGITS = 3  # that the histogram tells apart


def measure(plan: VmPlan, on_progress: OnProgress[VmRun] = ignore) -> Comparison:
    """Measures every case of a plan. ResourceError: what the machine lacks, or a guest that failed."""
    _check_machine()
    runs: list[VmRun] = []
    groups = plan.groups()
    done, total = 0, sum(map(len, groups)) * TURNS
    with contextlib.ExitStack() as stack:
        on_progress(Progress(done, total, "guests boot"))
        scenes = {path: stack.enter_context(_scene(path)) for path in plan.path}
        for scene in scenes.values():
            scene.wait_ready()
        for group in groups:
            turns: dict[VmCase, list[tuple[Turn, HostCpu]]] = {case: [] for case in group}
            kept: dict[VmCase, list[Taken]] = {case: [] for case in group}
            again: Counter[VmCase] = Counter()
            for number in range(TURNS):
                for case in _rotated(group, number):
                    on_progress(Progress(done, total, str(case)))
                    take = partial(_turn, case, scenes[case.path], plan.seconds / TURNS)
                    turn, taken, repeated = undisturbed(partial(watched, take), again[case])
                    turns[case].append(turn)
                    kept[case].append(taken)
                    again[case] += repeated
                    done += 1
            figures = [
                _with(_runs(case, turns[case], plan.seconds), Disturbance.of(kept[case], again[case]))
                for case in group
            ]
            finished = [run for same in zip(*figures, strict=True) for run in same]  # paths side by side
            runs += finished
            on_progress(Progress(done, total, str(group[-1]), tuple(finished)))
    return Comparison({**host_facts(), **_facts()}, vm=runs)


def _with(runs: list[VmRun], disturbance: Disturbance) -> list[VmRun]:
    return [replace(run, disturbance=disturbance) for run in runs]


def _scene(name: str) -> VmScene:
    side = path_named(name).vm
    assert side is not None  # the plan takes no others
    return side.load()(name)


def _check_machine() -> None:
    if lacking := image.missing():
        raise ResourceError(f"virtual machines need {', '.join(lacking)}; make peers installs them")
    if not is_privileged() or not os.path.exists("/dev/net/tun"):
        raise ResourceError("virtual machines need root and /dev/net/tun; run as root")
    try:
        import hdrh.histogram  # noqa: F401
    except ImportError:
        raise ResourceError("percentiles need hdrhistogram: pip install 'cdna[vm]'") from None


def _facts() -> dict[str, Any]:
    qemu, linux = image.qemu_version(), image.kernel().version
    return {"vm": f"{len(GUESTS)} guests a path, QEMU {qemu} (TCG), Linux {linux}"}


def _rotated(group: Sequence[VmCase], number: int) -> Sequence[VmCase]:
    first = number % len(group)
    return [*group[first:], *group[:first]]


def _turn(case: VmCase, scene: VmScene, seconds: float) -> tuple[Turn, HostCpu]:
    pids = [guest.pid for guest in scene.guests]
    before = Reading.now(pids, scene.server)
    _, load = LOADS[case.load]
    turn = load(scene, seconds)
    return turn, Reading.now(pids, scene.server).since(before)


def _runs(case: VmCase, turns: Sequence[tuple[Turn, HostCpu]], seconds: float) -> list[VmRun]:
    """The figures of a case: one of a throughput, two of a latency."""
    unit, _ = LOADS[case.load]
    cpus = [cpu for _, cpu in turns]
    cpu = HostCpu(
        fmean(cpu.guests for cpu in cpus),
        fmean(cpu.server for cpu in cpus),
        fmean(cpu.kernel for cpu in cpus),
    )
    if case.load != LATENCY:
        values = tuple(turn.value for turn, _ in turns)
        return [VmRun(case.path, case.load, THROUGHPUT, unit, median(values), seconds, cpu, values)]
    return _latencies(case, unit, [turn.round_trips for turn, _ in turns], seconds, cpu)


def _latencies(
    case: VmCase, unit: str, turns: Sequence[Sequence[float]], seconds: float, cpu: HostCpu
) -> list[VmRun]:
    parts, whole = [_histogram(times) for times in turns], _histogram([t for times in turns for t in times])
    runs = []
    for quantity, percent in ((MEDIAN, 50.0), (P99, 99.0)):
        value, *slices = (float(one.get_value_at_percentile(percent)) for one in (whole, *parts))
        encoded = whole.encode().decode("ascii") if quantity == MEDIAN else None
        count = int(whole.get_total_count())
        runs.append(
            VmRun(case.path, case.load, quantity, unit, value, seconds, cpu, tuple(slices), count, encoded)
        )
    return runs


def _histogram(times: Sequence[float]) -> Any:
    from hdrh.histogram import HdrHistogram

    histogram = HdrHistogram(1, LONGEST, DIGITS)
    for time in times:
        histogram.record_value(max(1, round(time)))
    return histogram
