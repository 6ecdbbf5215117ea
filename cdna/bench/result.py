"""What `cdna bench` measures and what it has measured."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from cdna.base.units import PROTECTIONS
from cdna.compare.plan import SIZES, check_each, check_seconds, check_size
from cdna.compare.result import Ratio, ratio_of

GUEST_TO_WIRE = "guest-to-wire"
WIRE_TO_GUEST = "wire-to-guest"
GUEST_TO_GUEST = "guest-to-guest"
BARE_RING = "bare-ring"  # two threads, one ring, no NIC: the reference for short frames

PATHS = (GUEST_TO_WIRE, WIRE_TO_GUEST, GUEST_TO_GUEST)


@dataclass(frozen=True)
class BenchPlan:
    """The settings of `cdna bench`. Raises `BadSetting` for one that cannot be.

    `contexts` are the numbers of contexts assigned, one of them active, that the path from guest to wire
    is measured with.
    """

    sizes: tuple[int, ...] = (64, 1514)
    seconds: float = 0.5
    protection: tuple[str, ...] = PROTECTIONS
    contexts: tuple[int, ...] = (1, 1024)

    def __post_init__(self) -> None:
        check_each("sizes", self.sizes, f"{SIZES}, e.g. 64,1514")
        for size in self.sizes:
            check_size("sizes", size, f"{SIZES}, e.g. 64,1514")
        check_seconds(self.seconds)


@dataclass(frozen=True)
class BenchRow:
    """One path, measured. `gbps` is bytes of frames x 8, without preamble, gap and FCS.

    `memcpy_mpps` is memcpy of the same frames over the same working set, measured in turns with the path;
    `spread` is the quartiles of `ratio_to_memcpy` over pairs of slices. `contexts` were assigned,
    all but the ones in use idle. `slices` holds the Mpps of each slice.
    """

    path: str
    size: int
    protection: str | None
    mpps: float
    gbps: float
    seconds: float
    memcpy_mpps: float | None = None
    ratio_to_memcpy: float | None = None
    spread: tuple[float, float] | None = None
    contexts: int = 1
    slices: tuple[float, ...] = ()


@dataclass(frozen=True)
class BenchResult:
    """All rows of one invocation, and the host that they ran on."""

    host: Mapping[str, Any]
    rows: list[BenchRow] = field(default_factory=list)

    def find(self, path: str, size: int, protection: str | None = None, contexts: int = 1) -> BenchRow | None:
        """The row of this path, size, protection and number of contexts."""
        key = path, size, protection, contexts
        return next((r for r in self.rows if (r.path, r.size, r.protection, r.contexts) == key), None)

    def to_bare_ring(self, row: BenchRow) -> Ratio | None:
        """Throughput over the bare ring's at the same size."""
        ring = self.find(BARE_RING, row.size)
        return None if ring is None or row.path == BARE_RING else ratio_of(row, ring)

    def to_none(self, row: BenchRow) -> Ratio | None:
        """Throughput over that of the same path without protection."""
        none = self.find(row.path, row.size, "none", row.contexts)
        return None if none is None or none is row else ratio_of(row, none)

    def to_one_context(self, row: BenchRow) -> Ratio | None:
        """Throughput over that of the same path with one context assigned."""
        one = self.find(row.path, row.size, row.protection)
        return None if one is None or one is row else ratio_of(row, one)

    def to_json(self) -> str:
        """{"host": {...}, "runs": [{...}]}, a line a row."""
        host = json.dumps(dict(self.host), allow_nan=False)
        rows = ",\n".join(json.dumps(asdict(row), allow_nan=False) for row in self.rows)
        return f'{{"host": {host}, "runs": [\n{rows}\n]}}\n'
