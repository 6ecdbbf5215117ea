"""What a comparison has measured, its JSON, and the ratios taken from it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import reduce
from statistics import median, quantiles
from typing import Any, Protocol

from cdna.compare.disturbance import QUIET, Disturbance
from cdna.compare.path import ComparisonPath
from cdna.compare.paths import reference_of
from cdna.compare.plan import Case, Plan
from cdna.compare.vm.result import VmRun
from cdna.errors import ConfigError

__all__ = ["Case", "Comparison", "Interrupts", "Plan", "Profile", "Ratio", "Run", "ratio_of"]


@dataclass(frozen=True)
class Profile:
    """Where the cycles of the host core went, as fractions that sum to 1."""

    vmm: float
    driver_domain: float
    guests: float
    idle: float

    @classmethod
    def of_cycles(cls, vmm: float, driver_domain: float, guests: float, idle: float) -> "Profile":
        """From the cycles charged to each; none at all counts as idle."""
        total = vmm + driver_domain + guests + idle
        if total <= 0:
            return cls(0.0, 0.0, 0.0, 1.0)
        return cls(vmm / total, driver_domain / total, guests / total, idle / total)


@dataclass(frozen=True)
class Interrupts:
    """Interrupts a second: the NIC's, and the virtual ones that the VMM posted."""

    physical_per_s: float
    driver_domain_per_s: float
    guest_per_s: float


@dataclass(frozen=True)
class Run:
    """One case, measured.

    `frames` is what arrived while it was measured and what `mpps` and `gbps` count; `gbps` is bytes of
    these frames x 8, without preamble, gap and FCS. `sent`, `received` and `lost` count the whole run,
    drain included. `slices` holds the Mpps of each slice, in the order in which the contenders of a group
    took turns.
    """

    path: str
    direction: str
    guests: int
    size: int | str
    protection: str
    domains: str
    frames: int
    lost: int
    seconds: float
    mpps: float
    gbps: float
    profile: Profile
    host_cycles_per_frame: float
    interrupts: Interrupts
    sent: int = 0
    received: int = 0
    receive: str | None = None
    slices: tuple[float, ...] = ()
    disturbance: Disturbance = QUIET

    @property
    def case(self) -> Case:
        return Case(
            self.path, self.direction, self.guests, self.size, self.protection, self.domains, self.receive
        )

    @property
    def group(self) -> tuple[str, str, int, int | str]:
        """What runs that may be compared have in common: domains, direction, guests, size."""
        return self.domains, self.direction, self.guests, self.size


@dataclass(frozen=True)
class Ratio:
    """A ratio of throughputs over `pairs` pairs of slices: the median, and the quartiles `low` and `high`.

    Half of the pairs lie between the quartiles: one pair that was disturbed does not move them far.
    """

    median: float
    low: float
    high: float
    pairs: int


class Measured(Protocol):
    """What a ratio is taken of."""

    @property
    def mpps(self) -> float: ...
    @property
    def slices(self) -> tuple[float, ...]: ...


def ratio_of(run: Measured, to: Measured) -> Ratio | None:
    """The throughput of `run` over that of `to`, slice by slice; None when `to` moved nothing.

    Runs that were not measured in turns (another number of slices) are compared as a whole, one pair.
    """
    return ratio_of_slices((run.mpps, run.slices), (to.mpps, to.slices))


def ratio_of_slices(
    ours: tuple[float, Sequence[float]], theirs: tuple[float, Sequence[float]]
) -> Ratio | None:
    """The ratio of two figures, each a whole and its slices; None when the other one is nothing."""
    pairs: list[tuple[float, float]] = []
    if len(ours[1]) == len(theirs[1]):
        pairs = [(a, b) for a, b in zip(ours[1], theirs[1], strict=True) if b > 0]
    if not pairs:
        pairs = [(ours[0], theirs[0])] if theirs[0] > 0 else []
    if not pairs:
        return None
    ratios = [a / b for a, b in pairs]
    return ratio_over(ratios)


def ratio_over(ratios: Sequence[float]) -> Ratio:
    """The median and the quartiles of one or more pairs."""
    return Ratio(median(ratios), *quartiles(ratios), len(ratios))


def quartiles(values: Sequence[float]) -> tuple[float, float]:
    """The bounds of the middle half of one or more values."""
    if len(values) < 2:
        return values[0], values[0]
    low, _, high = quantiles(values, n=4, method="inclusive")
    return low, high


def _faster(one: Run, other: Run) -> Run:
    ratio = ratio_of(other, one)
    return other if ratio is None or ratio.median > 1 else one


@dataclass(frozen=True)
class Comparison:
    """All runs of one invocation, and the host that they ran on (`cdna.compare.hostinfo`).

    `vm`: the figures of virtual machines, which are none of `runs`.
    """

    host: Mapping[str, Any]
    runs: list[Run] = field(default_factory=list)
    vm: list[VmRun] = field(default_factory=list)

    def groups(self) -> dict[tuple[str, str, int, int | str], list[Run]]:
        """The runs that may be compared with each other, in the order measured."""
        groups: dict[tuple[str, str, int, int | str], list[Run]] = {}
        for run in self.runs:
            groups.setdefault(run.group, []).append(run)
        return groups

    def sections(self) -> dict[tuple[str, str, int | str], list[Run]]:
        """The runs by domains, direction and size, each a table: by guests, then in the order measured."""
        sections: dict[tuple[str, str, int | str], list[Run]] = {}
        for run in sorted(self.runs, key=lambda run: run.guests):
            sections.setdefault((run.domains, run.direction, run.size), []).append(run)
        order = list(dict.fromkeys((run.domains, run.direction, run.size) for run in self.runs))
        return {key: sections[key] for key in order}

    @property
    def reference(self) -> ComparisonPath:
        """The path that ratios are to."""
        return reference_of({run.path for run in self.runs} | {run.path for run in self.vm})

    def baseline(self, run: Run) -> Run | None:
        """The reference that `run` is compared with: of its variants, the fastest one of the group.

        That is the one to which no other has a ratio above 1, so the row marked 1 is never the slower one.
        """
        path = self.reference.name
        rivals = [other for other in self.runs if other.group == run.group and other.path == path]
        return reduce(_faster, rivals) if rivals else None

    def ratio(self, run: Run) -> Ratio | None:
        """The throughput of `run` over its baseline's, or None when there is none to compare with."""
        baseline = self.baseline(run)
        return None if baseline is None else ratio_of(run, baseline)

    def vm_ratio(self, run: VmRun) -> Ratio | None:
        """The figure of virtual machines over the reference's, or None when there is none."""
        path = self.reference.name
        rival = next((one for one in self.vm if one.group == run.group and one.path == path), None)
        return (
            None if rival is None else ratio_of_slices((run.value, run.slices), (rival.value, rival.slices))
        )

    def find(self, run: Run, **changes: object) -> Run | None:
        """The run that differs from `run` in `changes` alone, e.g. guests=1."""
        wanted = {**asdict(run.case), **changes}
        return next((other for other in self.runs if asdict(other.case) == wanted), None)

    def to_json(self) -> str:
        """{"host": {...}, "runs": [{...}], "vm": [{...}]}, a line a run; "vm" only if there are any."""
        host = json.dumps(dict(self.host), allow_nan=False)
        runs = ",\n".join(json.dumps(asdict(run), allow_nan=False) for run in self.runs)
        vm = ",\n".join(json.dumps(asdict(run), allow_nan=False) for run in self.vm)
        return f'{{"host": {host}, "runs": [\n{runs}\n]' + (f', "vm": [\n{vm}\n]' if vm else "") + "}\n"

    @classmethod
    def from_json(cls, text: str) -> "Comparison":
        """Reads what `to_json` wrote. Raises `ConfigError` for anything else."""
        try:
            tree = json.loads(text)
        except ValueError as error:
            raise ConfigError(f"comparison: not JSON ({error}); give what --json wrote") from None
        kinds = {"host": dict, "runs": list}
        if not isinstance(tree, dict) or any(not isinstance(tree.get(k), kinds[k]) for k in kinds):
            raise ConfigError("comparison: no host and runs in it; give what --json wrote")
        vm = tree.get("vm", [])
        if not isinstance(vm, list):
            raise ConfigError("comparison: vm is no list; give what --json wrote")
        return cls(
            tree["host"],
            [_run(i, row) for i, row in enumerate(tree["runs"])],
            [VmRun.from_tree(i, row) for i, row in enumerate(vm)],
        )


def _run(index: int, row: Any) -> Run:
    try:
        known = {key: row[key] for key in _RUN_KEYS if key in row}
        known["profile"] = Profile(**row["profile"])
        known["interrupts"] = Interrupts(**row["interrupts"])
        known["slices"] = tuple(row.get("slices", ()))
        known["disturbance"] = Disturbance(**row.get("disturbance", {}))
        return Run(**known)
    except (KeyError, TypeError) as error:
        raise ConfigError(f"comparison: run {index} is not one of cdna compare --json's ({error})") from None


_RUN_KEYS: Sequence[str] = tuple(f.name for f in fields(Run))
