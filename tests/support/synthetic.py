"""Synthetic results: made-up figures in the shape of real ones. Nothing in here was measured."""

import random

from cdna.bench.result import (
    BARE_RING,
    GUEST_TO_WIRE,
    PATHS,
    BenchPlan,
    BenchResult,
    BenchRow,
)
from cdna.compare.result import Case, Comparison, Interrupts, Plan, Profile, Run
from cdna.compare.vm.plan import LATENCY, TCP, UDP, VmPlan
from cdna.compare.vm.result import MEDIAN, P99, THROUGHPUT, HostCpu, VmRun

HOST = {"cpu": "Synthetic CPU", "cores": 2, "kernel": "Linux 0.0", "tsc_mhz": 2000.0, "date": "2000-01-01"}

_BASE = {"cdna validated": 2.0, "cdna none": 2.02, "bridge": 0.9, "bridge flip": 0.5, "bridge copy": 0.6}


def synthetic_run(case: Case, **changes: object) -> Run:
    """A run of this case with made-up figures: the same for the same case."""
    dice = random.Random(str(case))
    base = _BASE.get(case.contender.name, 1.8)
    slowdown = 1 + (0.001 if case.path == "cdna" else 0.03) * (case.guests - 1)
    slices = tuple(base / slowdown * dice.uniform(0.97, 1.03) for _ in range(4))
    mpps = sum(slices) / len(slices)
    bridge = case.path == "bridge"
    vmm, driver, idle = (0.2, 0.45, 0.0) if bridge else (0.1, 0.0, 0.5)
    idle *= 1 / slowdown**20
    figures: dict[str, object] = {
        "frames": int(mpps * 1e6),
        "lost": 0,
        "seconds": 1.0,
        "mpps": mpps,
        "gbps": mpps * 8 * (case.size if isinstance(case.size, int) else 340) / 1e3,
        "profile": Profile(vmm, driver, 1 - vmm - driver - idle, idle),
        "host_cycles_per_frame": 2000 * (1 - idle) / mpps,
        "interrupts": Interrupts(13_000.0, 8_839.0 if bridge else 0.0, 13_659.0 * case.guests),
        "sent": int(mpps * 1e6) + 10,
        "received": int(mpps * 1e6) + 10,
        "slices": slices,
    }
    return Run(
        path=case.path,
        direction=case.direction,
        guests=case.guests,
        size=case.size,
        protection=case.protection,
        domains=case.domains,
        receive=case.receive,
        **{**figures, **changes},  # type: ignore[arg-type]
    )


def synthetic_comparison(plan: Plan | None = None) -> Comparison:
    """A made-up result for every case of the plan."""
    return Comparison(HOST, [synthetic_run(case) for case in (plan or Plan()).cases()])


def synthetic_vm_comparison(plan: VmPlan | None = None) -> Comparison:
    """A made-up result for every case of the plan."""
    figures = {
        TCP: [(THROUGHPUT, "Gb/s", 0.25)],
        UDP: [(THROUGHPUT, "kpps", 5.0)],
        LATENCY: [(MEDIAN, "us", 800.0), (P99, "us", 3000.0)],
    }
    runs = []
    for group in (plan or VmPlan()).groups():
        for quantity, unit, base in figures[group[0].load]:
            for case in group:
                better = 1.0 if case.path == "bridge" else 2.0 if quantity == THROUGHPUT else 0.5
                value = base * better
                cpu = HostCpu(1.2, 0.3 if case.path == "cdna" else 0.0, 0.1)
                slices = (value, value * 0.8, value * 1.25)
                runs.append(VmRun(case.path, case.load, quantity, unit, value, 6.0, cpu, slices))
    return Comparison({**HOST, "vm": "2 guests a path, QEMU 0.0 (TCG), Linux 0.0"}, vm=runs)


def synthetic_bench(plan: BenchPlan | None = None) -> BenchResult:
    """A made-up result for every row of the plan."""
    plan = plan or BenchPlan()
    rows = []
    for size in plan.sizes:
        rows.append(BenchRow(BARE_RING, size, None, 30.0, 30.0 * size * 8 / 1e3, 1.0, slices=(30.0, 30.0)))
        for path in PATHS:
            rows += [_row(path, size, mode, 1) for mode in plan.protection]
        rows += [_row(GUEST_TO_WIRE, size, "validated", n) for n in plan.contexts if n > 1]
    return BenchResult(HOST, rows)


def _row(path: str, size: int, mode: str, contexts: int) -> BenchRow:
    mpps = 24.0 if mode == "none" else 23.0 if contexts > 1 else 23.5
    return BenchRow(
        path=path,
        size=size,
        protection=mode,
        mpps=mpps,
        gbps=mpps * size * 8 / 1e3,
        seconds=1.0,
        memcpy_mpps=100.0,
        ratio_to_memcpy=mpps / 100,
        spread=(mpps / 101, mpps / 99),
        contexts=contexts,
        slices=(mpps, mpps),
    )
