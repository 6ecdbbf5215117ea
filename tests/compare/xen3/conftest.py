"""Two domains of a Xen hypervisor, and whole bridges that are closed at the end."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cdna.compare.paths.xen3.domain import Hypervisor
from cdna.memory import Memory
from tests.support.xen import ALICE, BOB, Bench, build_bench


@pytest.fixture
def hypervisor() -> Hypervisor:
    """Domain 0 is Alice's, domain 1 Bob's: 8 pages and 8 empty page-table entries each; 16 in the heap."""
    xen = Hypervisor(Memory(64 * 4096), heap_pages=16)
    for domid in (ALICE, BOB):
        xen.add_domain(domid, 8, 8, grant_entries=16, maptracks=4, ports=8, headroom=4)
    return xen


@pytest.fixture
def bench() -> Iterator[Callable[..., Bench]]:
    """`build_bench`, with what it built closed after the test."""
    built = []

    def build(*args: Any, **options: Any) -> Bench:
        built.append(build_bench(*args, **options))
        return built[-1]

    yield build
    for bench in built:
        bench.close()
        bench.machine.close()
