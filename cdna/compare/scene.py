"""Runs one slice of a case: the same wire and load for every path."""

from typing import Any

from cdna.compare.paths import path_named
from cdna.compare.plan import Case
from cdna.errors import WrongFrame
from cdna.nic.generator import GeneratorWire
from cdna.nic.null_wire import NullWire
from cdna.nic.traffic import Load

WARM_UP = 0.05  # seconds before measuring: page tables filled, rings full, caches warm


def run_slice(
    case: Case, load: Load, seconds: float, line_rate: float, stop_fd: int | None = None
) -> dict[str, Any]:
    """Runs one slice of a case and returns what `Slice.result` counts.

    Raises WrongFrame when a receiver got a frame that it should not have.
    """
    rate = line_rate or None
    if case.direction == "rx":
        wire: NullWire = GeneratorWire(load, max_flows=case.guests, line_rate=rate)
    else:
        wire = NullWire(load, flows=case.guests, line_rate=rate)
    scene = path_named(case.path).make(case, load, wire)
    try:
        if isinstance(wire, GeneratorWire):
            wire.follow(scene.slice.machine.nic)
        result: dict[str, Any] = scene.slice.run(seconds, WARM_UP, stop_fd)
        problem = scene.complaint() or wire.first_bad
        if problem:
            raise WrongFrame(f"{case}: {problem}")
        return result
    finally:
        scene.close()
        scene.slice.machine.close()
