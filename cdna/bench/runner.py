"""Measures the native path: every contender in turns, one host thread and the NIC on a core each."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median

from cdna.base.units import parse_mac
from cdna.bench import native
from cdna.bench.result import (
    BARE_RING,
    GUEST_TO_GUEST,
    GUEST_TO_WIRE,
    PATHS,
    WIRE_TO_GUEST,
    BenchPlan,
    BenchResult,
    BenchRow,
)
from cdna.compare.hostinfo import host_facts
from cdna.compare.result import quartiles
from cdna.errors import WrongFrame
from cdna.guest_driver.queues import memory_needed
from cdna.guests.driver import Driver
from cdna.guests.synthetic import SyntheticGuest
from cdna.machine import Machine
from cdna.nic.generator import GeneratorWire
from cdna.nic.null_wire import NullWire
from cdna.nic.traffic import Load
from cdna.nic.wire import Wire, cycle_rate
from cdna.progress import OnProgress, Progress, ignore

SLICES = 5
RING = 256  # descriptors
STRIDE = 2112  # bytes from buffer to buffer: room for any frame of 1500, and an odd number of cache lines
BURST = 32  # frames between the NIC and its wire
PEER = bytes.fromhex("02cdffffffff")

Measure = Callable[[float], tuple[int, float]]  # seconds -> (frames, seconds they took)


@dataclass(frozen=True)
class Contender:
    """What is measured, and what it is compared with: the memcpy of its path and size."""

    path: str
    size: int
    protection: str | None
    contexts: int
    measure: Measure


def measure(plan: BenchPlan, on_progress: OnProgress[BenchRow] = ignore) -> BenchResult:
    """Measures a plan. ResourceError: the machine has no memory left."""
    cpus = sorted(os.sched_getaffinity(0))
    rows: list[BenchRow] = []
    contenders = {size: list(_contenders(plan, size, cpus[-1])) for size in plan.sizes}
    done, total = 0, SLICES * sum(map(len, contenders.values()))
    for size in plan.sizes:
        slices: dict[int, list[tuple[int, float]]] = {}
        for _ in range(SLICES):
            for number, contender in enumerate(contenders[size]):
                name = " ".join(filter(None, (contender.path, f"{size} B", contender.protection)))
                on_progress(Progress(done, total, name))
                slices.setdefault(number, []).append(contender.measure(plan.seconds / SLICES))
                done += 1
        finished = tuple(_rows(contenders[size], slices))
        rows += finished
        on_progress(Progress(done, total, f"{size} B", finished))
    facts = host_facts(tsc_mhz=cycle_rate() / 1e6, host_core=cpus[0], nic_core=cpus[-1])
    return BenchResult(facts, rows)


@contextmanager
def _on_host_core() -> Iterator[None]:
    """The calling thread stays on the first core; the NIC has the last."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


# --- the contenders ---------------------------------------------------------------------------------------


def _contenders(plan: BenchPlan, size: int, nic_cpu: int) -> Iterator[Contender]:
    stride = max(STRIDE, (size + 63) // 64 * 64 | 64)
    pool, burst = (RING, stride), (BURST, (size + 63) // 64 * 64)
    for path, source, to in (
        (GUEST_TO_WIRE, pool, burst),
        (WIRE_TO_GUEST, burst, pool),
        (GUEST_TO_GUEST, pool, pool),
    ):
        yield Contender("memcpy " + path, size, None, 1, _memcpy(size, source, to))
    yield Contender(BARE_RING, size, None, 1, _bare_ring(size, stride, nic_cpu))
    for path in PATHS:
        for protection in plan.protection:
            yield Contender(path, size, protection, 1, _native(path, size, protection, stride, 1, nic_cpu))
    for contexts in plan.contexts:
        if contexts > 1 and "validated" in plan.protection:
            run = _native(GUEST_TO_WIRE, size, "validated", stride, contexts, nic_cpu)
            yield Contender(GUEST_TO_WIRE, size, "validated", contexts, run)


def _memcpy(size: int, source: tuple[int, int], to: tuple[int, int]) -> Measure:
    def run(seconds: float) -> tuple[int, float]:
        with _on_host_core():
            return native.memcpy_frames(size, source, to, seconds)

    return run


def _bare_ring(size: int, stride: int, nic_cpu: int) -> Measure:
    def run(seconds: float) -> tuple[int, float]:
        with _on_host_core():
            return native.bare_ring_frames(size, stride, nic_cpu, seconds)

    return run


def _native(path: str, size: int, protection: str, stride: int, contexts: int, nic_cpu: int) -> Measure:
    def run(seconds: float) -> tuple[int, float]:
        load = Load.fixed(size)
        wire: Wire = GeneratorWire(load) if path == WIRE_TO_GUEST else NullWire(load, flows=1)
        idle = max(0, contexts - 2)
        memory = 2 * memory_needed(RING, RING, stride) + idle * memory_needed(8, 8, 64) + (1 << 20)
        machine = Machine(memory, wire=wire, contexts=max(32, contexts))
        try:
            return _run(machine, wire, load, path, protection, stride, idle, nic_cpu, seconds)
        finally:
            machine.close()

    return run


def _run(
    machine: Machine,
    wire: Wire,
    load: Load,
    path: str,
    protection: str,
    stride: int,
    idle: int,
    nic_cpu: int,
    seconds: float,
) -> tuple[int, float]:
    drivers = [
        machine.attach(name, protection=protection, tx_ring=RING, rx_ring=RING, buffer_size=stride)
        for name in ("guest", "peer")
    ]
    for number in range(idle):
        machine.attach(f"idle{number}", tx_ring=8, rx_ring=8, buffer_size=64)
    guest, peer = drivers
    target = _mac(peer) if path == GUEST_TO_GUEST else PEER
    sender = SyntheticGuest(guest, load, 0, _mac(guest), target)
    receiver = SyntheticGuest(peer, load, 0, _mac(peer), _mac(guest))
    if isinstance(wire, GeneratorWire):
        wire.add_flow(_mac(peer), PEER, window=1 << 30, context=peer.context.index, buffer_size=stride)
        wire.follow(machine.nic)
    machine.nic.start_engine(nic_cpu)
    with _on_host_core():
        if path == GUEST_TO_WIRE:
            counted = native.guest_to_wire(sender, wire, seconds)
        elif path == WIRE_TO_GUEST:
            counted = native.wire_to_guest(receiver, seconds)
        else:
            counted = native.guest_to_guest(sender, receiver, RING, seconds)
    machine.nic.stop_engine()
    problem = receiver.first_bad or (wire.first_bad if isinstance(wire, NullWire) else None)
    if problem:
        raise WrongFrame(f"{path}, {protection}: {problem}")
    return counted


def _mac(driver: Driver) -> bytes:
    return parse_mac(driver.context.mac)


# --- rows -------------------------------------------------------------------------------------------------


def _rows(contenders: list[Contender], slices: dict[int, list[tuple[int, float]]]) -> Iterator[BenchRow]:
    mpps = {n: [frames / seconds / 1e6 for frames, seconds in pieces] for n, pieces in slices.items()}
    memcpy = {
        c.path.removeprefix("memcpy "): mpps[n] for n, c in enumerate(contenders) if c.path[:7] == "memcpy "
    }
    for number, contender in enumerate(contenders):
        if contender.path.startswith("memcpy "):
            continue
        frames, seconds = map(sum, zip(*slices[number], strict=True))
        reference = memcpy.get(contender.path, memcpy[GUEST_TO_WIRE])
        ratios = [own / other for own, other in zip(mpps[number], reference, strict=True)]
        yield BenchRow(
            path=contender.path,
            size=contender.size,
            protection=contender.protection,
            mpps=frames / seconds / 1e6,
            gbps=frames / seconds * contender.size * 8 / 1e9,
            seconds=seconds,
            memcpy_mpps=median(reference),
            ratio_to_memcpy=median(ratios),
            spread=quartiles(ratios),
            contexts=contender.contexts,
            slices=tuple(mpps[number]),
        )
