"""What a comparison of virtual machines has measured."""

from dataclasses import dataclass, fields
from typing import Any

from cdna.compare.disturbance import QUIET, Disturbance
from cdna.compare.vm.plan import VmCase
from cdna.errors import ConfigError

THROUGHPUT, MEDIAN, P99 = "throughput", "median", "p99"


@dataclass(frozen=True)
class HostCpu:
    """Host CPU that was used while a case was measured, 1 being a whole core.

    `guests` is QEMU, in user mode and in the kernel; `server` is `cdna serve`, likewise; `kernel` is what the
    kernel did outside of both: interrupts, softirqs and its threads.
    """

    guests: float
    server: float
    kernel: float

    @property
    def total(self) -> float:
        return self.guests + self.server + self.kernel


@dataclass(frozen=True)
class VmRun:
    """A figure of one case.

    `value` is in `unit`: "Gb/s" of TCP payload, "kpps" of UDP datagrams that arrived, or "us" of round trip,
    the median or the 99th percentile of all of them. `slices` holds the figure of each turn, in the order in
    which the paths took turns. `histogram` is the round trips in microseconds as an HdrHistogram (V2,
    base64), with the median alone.
    """

    path: str
    load: str
    quantity: str
    unit: str
    value: float
    seconds: float
    cpu: HostCpu
    slices: tuple[float, ...] = ()
    samples: int = 0
    histogram: str | None = None
    disturbance: Disturbance = QUIET

    @property
    def case(self) -> VmCase:
        return VmCase(self.path, self.load)

    @property
    def group(self) -> tuple[str, str]:
        """What figures that may be compared have in common: load and quantity."""
        return self.load, self.quantity

    @property
    def less_is_better(self) -> bool:
        return self.quantity != THROUGHPUT

    @classmethod
    def from_tree(cls, index: int, row: Any) -> "VmRun":
        """From JSON. ConfigError: it is none of ours."""
        try:
            known = {field.name: row[field.name] for field in fields(cls) if field.name in row}
            known["disturbance"] = Disturbance(**row.get("disturbance", {}))
            return cls(**{**known, "cpu": HostCpu(**row["cpu"]), "slices": tuple(row.get("slices", ()))})
        except (KeyError, TypeError) as error:
            what = f"comparison: figure {index} of virtual machines"
            raise ConfigError(f"{what} is not one of cdna compare --json's ({error})") from None
