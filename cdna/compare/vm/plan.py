"""What a comparison of virtual machines measures."""

from dataclasses import dataclass, field

from cdna.compare.paths import paths
from cdna.compare.plan import check_choices, check_seconds

TCP, UDP, LATENCY = "tcp", "udp", "latency"
LOADS = (TCP, UDP, LATENCY)
UDP_PAYLOAD = 64 - 14 - 20 - 8  # bytes: with Ethernet, IPv4 and UDP a frame of 64, without the FCS


def vm_paths() -> tuple[str, ...]:
    """The names of the paths that connect virtual machines."""
    return tuple(path.name for path in paths().values() if path.vm)


@dataclass(frozen=True)
class VmCase:
    """One thing to measure: a load between two guests on one path."""

    path: str
    load: str

    def __str__(self) -> str:
        return f"virtual machines, {self.load}, {self.path}"


@dataclass(frozen=True)
class VmPlan:
    """The settings of a comparison of virtual machines. Raises `BadSetting` for one that cannot be.

    `seconds` is what each case is measured for, all its turns together.
    """

    path: tuple[str, ...] = field(default_factory=vm_paths)
    load: tuple[str, ...] = LOADS
    seconds: float = 6.0

    def __post_init__(self) -> None:
        check_choices("path", self.path, vm_paths())
        check_choices("load", self.load, LOADS)
        check_seconds(self.seconds)

    def groups(self) -> list[tuple[VmCase, ...]]:
        """The cases, in groups of what is compared: the same load on each path."""
        return [tuple(VmCase(path, load) for path in self.path) for load in self.load]
