"""Measures a plan: contenders of a group take turns in slices, and every ratio is taken slice by slice."""

from __future__ import annotations

import json
import os
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from typing import Any

from cdna.children import python
from cdna.compare.disturbance import Disturbance, Taken, undisturbed
from cdna.compare.hostinfo import host_facts
from cdna.compare.plan import Case, Plan
from cdna.compare.result import Comparison, Interrupts, Profile, Run
from cdna.errors import CdnaError, ResourceError
from cdna.nic.traffic import Load
from cdna.progress import OnProgress, Progress, ignore

SLICES = 5  # turns of each contender; odd, so that the median ratio is one that was measured


class Worker:
    """The process that runs slices."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            python("cdna.compare.worker"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, case: Case, plan: Plan, seconds: float) -> dict[str, Any]:
        """Runs one slice. CdnaError: what the worker says went wrong."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        task = {"case": asdict(case), "seconds": seconds, "line_rate": plan.line_rate, "verify": plan.verify}
        try:
            self._process.stdin.write(json.dumps(task) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise ResourceError(f"{case}: the measuring process died with status {self._process.wait()}")
        result: dict[str, Any] = json.loads(line)
        if "error" in result:
            raise CdnaError(result["error"])
        return result

    def close(self) -> None:
        """Ends the worker and, with it, all processes of a slice under way."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


@contextmanager
def _worker() -> Iterator[Worker]:
    worker = Worker()
    try:
        yield worker
    finally:
        worker.close()


def measure(plan: Plan, on_progress: OnProgress[Run] = ignore) -> Comparison:
    """Measures every case of a plan. CdnaError: a wrong frame, a process that died, a bad capture file."""
    Load.parse(str(plan.size), verify=plan.verify)  # a bad capture file is told before anything starts
    cpus = sorted(os.sched_getaffinity(0))
    rate = 0.0
    runs: list[Run] = []
    done, total = 0, len(plan.cases()) * SLICES
    with _worker() as worker:
        for group in plan.groups():
            slices: dict[Case, list[dict[str, Any]]] = {case: [] for case in group}
            again: Counter[Case] = Counter()
            finished: tuple[Run, ...] = ()
            for number in range(SLICES):
                for case in group:
                    on_progress(Progress(done, total, str(case)))
                    kept, taken, repeated = undisturbed(partial(_slice, worker, case, plan), again[case])
                    slices[case].append({**kept, "taken": taken})
                    again[case] += repeated
                    rate = kept["cycles_per_second"]
                    done += 1
                    if number == SLICES - 1:
                        finished += (_run(case, slices[case], again[case]),)
            runs += finished
            on_progress(Progress(done, total, str(group[-1]), finished))
    facts = host_facts(tsc_mhz=rate / 1e6, host_core=cpus[0], nic_core=cpus[-1])
    return Comparison(facts, runs)


def _slice(worker: Worker, case: Case, plan: Plan) -> tuple[dict[str, Any], Taken]:
    result = worker.run(case, plan, plan.seconds / SLICES)
    return result, Taken(**result["taken"])


def _run(case: Case, slices: list[dict[str, Any]], repeated: int) -> Run:
    """The sum of a case's slices."""

    def total(name: str) -> float:
        return float(sum(piece[name] for piece in slices))

    def cycles(account: str) -> float:
        return float(sum(piece["cycles"][account] for piece in slices))

    seconds, frames = total("seconds"), int(total("frames"))
    busy = cycles("vmm") + cycles("driver_domain") + cycles("guests")
    return Run(
        path=case.path,
        direction=case.direction,
        guests=case.guests,
        size=case.size,
        protection=case.protection,
        domains=case.domains,
        receive=case.receive,
        frames=frames,
        sent=int(total("sent")),
        received=int(total("received")),
        lost=int(total("sent") - total("received")),
        seconds=seconds,
        mpps=frames / seconds / 1e6,
        gbps=total("bytes") * 8 / seconds / 1e9,
        profile=Profile.of_cycles(cycles("vmm"), cycles("driver_domain"), cycles("guests"), cycles("idle")),
        host_cycles_per_frame=busy / frames if frames else 0.0,
        interrupts=Interrupts(
            total("physical_interrupts") / seconds,
            total("driver_domain_interrupts") / seconds,
            total("guest_interrupts") / seconds,
        ),
        slices=tuple(piece["frames"] / piece["seconds"] / 1e6 for piece in slices),
        disturbance=Disturbance.of([piece["taken"] for piece in slices], repeated),
    )
