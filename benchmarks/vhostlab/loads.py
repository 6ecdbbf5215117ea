"""Who sends what to whom in one turn, and what arrives, in millions of frames a second.

Frames are counted where they arrive, all over the same interval; the first ones, which find cold caches and
untouched memory, are not. A turn fails where frames do not arrive, have another size, or get lost unseen.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from cdna.errors import ResourceError

from .backends import Backend, Reading, Role, Setup, reading
from .frontends import attach, loop_bursts
from .profile import recorded
from .testpmd import Testpmd

WARM = 0.3  # seconds between the first frames and the first reading
FIRST = 1000  # frames
UNEVEN = 512  # frames that may lie between a counter of frames and its counter of bytes, read after it
PATIENCE = 20.0  # seconds until the first frames have arrived, or the last ones


def guest_to_nic(backend: type[Backend], setup: Setup, size: int, seconds: float, ports: int = 1) -> float:
    """Guests send, the backend takes: all of it, which is checked when they have stopped."""
    with turn(backend, setup, Role.SINK, size, ports) as (served, guests):
        guests.start("txonly")
        with profiled(served):
            rate = mpps(served.name, served.received, size, seconds)
        guests.stop()
        sent = sum(port.tx_frames for port in guests.stats())
        wait_for(
            f"{served.name}: not all that guests sent has arrived", lambda: served.received().frames == sent
        )
        return rate


def nic_to_guest(backend: type[Backend], setup: Setup, size: int, seconds: float, ports: int = 1) -> float:
    """The backend sends, guests take."""
    with turn(backend, setup, Role.SOURCE, size, ports) as (served, guests):
        guests.start("rxonly")
        with profiled(served):
            return mpps(served.name, lambda: reading(guests), size, seconds)


def guest_to_guest(backend: type[Backend], setup: Setup, size: int, seconds: float) -> float:
    """Two guests send to each other; the sum of what both receive."""
    with turn(backend, setup, Role.SWITCH, size, 2) as (served, guests):
        guests.start("io", first_bursts=loop_bursts(setup))
        with profiled(served):
            return mpps(served.name, lambda: reading(guests), size, seconds)


def over_taps(setup: Setup, size: int, seconds: float) -> float:
    """As guest_to_guest, by taps on a kernel bridge."""
    from .bridge import tap_bridge

    with tap_bridge(setup, size) as guests:
        guests.start("io", first_bursts=loop_bursts(setup))
        return mpps("tap bridge", lambda: reading(guests), size, seconds)


@contextlib.contextmanager
def turn(
    backend: type[Backend], setup: Setup, role: Role, size: int, ports: int
) -> Iterator[tuple[Backend, Testpmd]]:
    """A backend and a testpmd attached to it, which end with the turn."""
    with (
        tempfile.TemporaryDirectory(prefix="cdna-dpdk-") as place,
        backend(Path(place), setup, role, ports=ports, size=size) as served,
        attach(served, size, to_each_other=role is Role.SWITCH) as guests,
    ):
        yield served, guests
        served.check()


def profiled(served: Backend) -> contextlib.AbstractContextManager[None]:
    """Records where the backend's cycles go, where that is wanted."""
    begin = served.setup.profile
    if not begin:
        return contextlib.nullcontext()
    return recorded(served.pid, Path(f"{begin}-{served.name.replace(' ', '-')}-{served.ports}.perf"))


def mpps(who: str, read: Callable[[], Reading], size: int, seconds: float) -> float:
    """Frames of `size` bytes that arrive while `seconds` pass."""
    begun = read().frames
    wait_for(f"{who}: no frames arrive", lambda: read().frames > begun + FIRST)
    time.sleep(WARM)
    before = read()
    time.sleep(seconds)
    after = read()
    frames, octets = after.frames - before.frames, after.bytes - before.bytes
    if not frames:
        raise ResourceError(f"{who}: no frames arrive any longer")
    if abs(octets - frames * size) > UNEVEN * size:
        raise ResourceError(f"{who}: {frames} frames of {size} bytes arrived with {octets} bytes")
    return frames / (after.at - before.at) * 1e-6


def wait_for(problem: str, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise ResourceError(problem)
        time.sleep(0.01)
