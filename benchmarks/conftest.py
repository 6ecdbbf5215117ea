"""What the unit benchmarks stand on: a NIC with running contexts, and a record of each operation's time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from cdna.abi import DESC_DTYPE, PAGE_BYTES, Protection
from cdna.memory import Memory
from cdna.nic.device import Nic
from cdna.nic.null_wire import NullWire
from cdna.settings import parse_protection
from cdna.vmm.tables import Tables

UNITS = pytest.StashKey[list[tuple[str, float]]]()
ROUNDS = 200  # of a benchmark that has to put something back between its rounds


class Rig:
    """A NIC whose contexts all run, and the VMM's tables; each context has `pages` pages of its own.

    Nobody runs the engine, and no context has a driver, so 1024 of them are made in a moment.
    """

    def __init__(
        self, contexts: int, protection: str = "none", *, ring: int = 8, pages: int = 1, polled: bool = False
    ) -> None:
        self.mode, _ = parse_protection(protection)
        self.ring = ring
        self.memory = Memory(contexts * pages * PAGE_BYTES)
        self.wire = NullWire()
        self.nic = Nic(self.memory, self.wire, contexts, max_ring=ring)
        self.tables = Tables(self.nic)
        io_pages = pages if self.mode == Protection.PROTECTION_IOMMU else 0
        self.first_page = [self.memory.allocate(pages, self.domain(i)) for i in range(contexts)]
        for i in range(contexts):
            self.nic.configure(
                i,
                owner=self.domain(i),
                protection=self.mode,
                mac=self.mac(i),
                tx_ring=ring,
                rx_ring=ring,
                seq_modulus=1 << 32,
                io_pages=io_pages,
                polled=polled,
            )
            self.tables.open_context(i, self.domain(i), -1, io_pages)
            if io_pages:
                self.tables.map_guest(i, self.first_page[i], pages)
            self.nic.start(i)

    @staticmethod
    def domain(context: int) -> int:
        return context + 1

    @staticmethod
    def mac(context: int) -> bytes:
        return bytes([0x02, 0xCD, 0, 0, context >> 8, context & 0xFF])

    def address(self, context: int) -> int:
        """What the first byte of a context's memory is called in its descriptors."""
        return 0 if self.mode == Protection.PROTECTION_IOMMU else self.first_page[context] * PAGE_BYTES

    def descriptors(self, context: int, n: int, stride: int, length: int) -> np.ndarray:
        """`n` descriptors of buffers of `length` bytes, `stride` bytes apart."""
        desc = np.zeros(n, DESC_DTYPE)
        desc["addr"] = self.address(context) + stride * np.arange(n, dtype=np.uint64)
        desc["len"] = length
        return desc

    def fill_receive_ring(self, context: int, stride: int, length: int) -> None:
        """Writes the receive ring; posting is the producer index alone, any number of times."""
        ring = self.nic.rings_view(context).view(np.uint8)
        size = self.ring * DESC_DTYPE.itemsize
        ring[size : 2 * size] = self.descriptors(context, self.ring, stride, length).view(np.uint8)

    def close(self) -> None:
        self.wire.close()


@pytest.fixture
def make_rig() -> Iterator[Callable[..., Rig]]:
    rigs: list[Rig] = []

    def make(*arguments: Any, **options: Any) -> Rig:
        rigs.append(Rig(*arguments, **options))
        return rigs[-1]

    yield make
    for rig in rigs:
        rig.close()


@pytest.fixture
def unit(benchmark: Any, request: pytest.FixtureRequest) -> Callable[..., Any]:
    """`unit(operations, function, *arguments)`: benchmarks a call that does so many operations.

    The record gets nanoseconds an operation and operations a second, at the fastest call. `setup` runs
    before each call, outside of the time.
    """

    def run(operations: int, function: Callable[..., Any], *arguments: Any, setup: Any = None) -> Any:
        if setup is None:
            result = benchmark(function, *arguments)
        else:
            result = benchmark.pedantic(function, args=arguments, setup=setup, rounds=ROUNDS, warmup_rounds=5)
        if benchmark.stats is not None:
            seconds = benchmark.stats.stats.min / operations
            benchmark.extra_info["ns_per_operation"] = round(seconds * 1e9, 3)
            benchmark.extra_info["operations_per_second"] = round(1 / seconds)
            request.config.stash.setdefault(UNITS, []).append((request.node.nodeid, seconds))
        return result

    return run


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    rows = config.stash.get(UNITS, [])
    if rows:
        terminalreporter.section("units, at the fastest")
        terminalreporter.line(f"{'ns':>10} {'M/s':>10}  one operation of")
    for name, seconds in rows:
        terminalreporter.line(f"{seconds * 1e9:10.2f} {1e-6 / seconds:10.2f}  {name}")
