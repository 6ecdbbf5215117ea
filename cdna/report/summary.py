"""What the figures say, in sentences. Every number in them is computed from the runs."""

from dataclasses import dataclass
from statistics import median

from cdna.bench.result import BARE_RING, GUEST_TO_WIRE, BenchResult, BenchRow
from cdna.compare.disturbance import Disturbance
from cdna.compare.paths import paths
from cdna.compare.result import Comparison, Ratio, Run, ratio_of
from cdna.compare.vm.result import P99

MARK = "*"
DIRECTIONS = {"tx": "Transmit", "rx": "Receive"}
DOMAINS = {"process": "domains are processes", "inline": "all domains in one process, no switches"}


def frames(size: int | str) -> str:
    """What the load is made of: "1514 B frames", "imix", "frames of file x.pcap"."""
    if isinstance(size, int):
        return f"{size} B frames"
    return "IMIX" if size == "imix" else f"frames of {size}"


def number_of(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def spread(ratio: Ratio, dash: str, digits: int = 2) -> str:
    """2.31 (2.25-2.40): the median and the quartiles; 2.31 when there was one pair."""
    between = middle_half(ratio, dash, digits)
    return f"{ratio.median:.{digits}f} ({between})" if between else f"{ratio.median:.{digits}f}"


def middle_half(ratio: Ratio, dash: str, digits: int = 2) -> str:
    """2.25-2.40, the quartiles, or nothing when there was one pair."""
    return "" if ratio.pairs < 2 else f"{ratio.low:.{digits}f}{dash}{ratio.high:.{digits}f}"


@dataclass(frozen=True)
class Finding:
    """What one direction says at its largest number of guests; None where there is nothing to compare."""

    run: Run
    baseline: Run | None
    to_baseline: Ratio | None
    to_fewest: float | None  # throughput over that with the smallest number of guests
    fewest: int
    to_none: Ratio | None  # validated over none


def findings(comparison: Comparison) -> list[Finding]:
    """One for each direction (and kind of domains) and each path but baselines, in the order measured."""
    return [
        _finding(comparison, of_path)
        for runs in comparison.sections().values()
        for path in paths().values()
        if not path.baseline and (of_path := [run for run in runs if run.path == path.name])
    ]


def _finding(comparison: Comparison, runs: list[Run]) -> Finding:
    most = [run for run in runs if run.guests == runs[-1].guests]
    main = next((run for run in most if run.case.contender.is_main), most[0])
    fewest = comparison.find(main, guests=runs[0].guests)
    none = comparison.find(main, protection="none")
    return Finding(
        run=main,
        baseline=comparison.baseline(main),
        to_baseline=comparison.ratio(main),
        to_fewest=None
        if fewest is None or fewest is main or not fewest.mpps
        else _middle(main) / _middle(fewest),
        fewest=runs[0].guests,
        to_none=None if none is None or none is main else ratio_of(main, none),
    )


def _middle(run: Run) -> float:
    """Throughput for a ratio between runs that took no turns: the median slice, or the whole."""
    return median(run.slices) if run.slices and median(run.slices) > 0 else run.mpps


def sentences(comparison: Comparison, dash: str = "-") -> list[str]:
    """A sentence or two for each direction."""
    return [_sentence(finding, dash) for finding in findings(comparison)]


def _sentence(finding: Finding, dash: str) -> str:
    run = finding.run
    guests = number_of(run.guests, "guest")
    where = "" if run.domains == "process" else f" ({run.domains})"
    parts = [f"moves {run.mpps:.2f} Mpps ({run.gbps:.1f} Gb/s)"]
    if finding.to_baseline is not None and finding.baseline is not None:
        path, variant, _ = finding.baseline.case.contender
        rival = f"the {path.label} ({variant})" if variant else f"the {path.label}"
        parts.append(f"{spread(finding.to_baseline, dash)} times {rival}")
    if finding.to_fewest is not None:
        parts.append(f"{finding.to_fewest:.2f} of itself with {number_of(finding.fewest, 'guest')}")
    if finding.to_none is not None:
        parts.append(f"{spread(finding.to_none, dash, 3)} of itself without protection")
    idle = f"; the host is then {run.profile.idle:.0%} idle" if run.profile.idle >= 0.005 else ""
    contender = run.case.contender
    name = f"{contender.path.label} {contender.variant}".rstrip()
    return f"{DIRECTIONS[run.direction]}{where}, {guests}: {name} {_list(parts)}{idle}."


def _list(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def disturbance_sentences(comparison: Comparison) -> list[str]:
    """Sentences about slices in which other programs or the hypervisor had the cores; none if none had."""
    rows = [run.disturbance for run in comparison.runs]
    rows += [run.disturbance for run in comparison.vm if run.quantity != P99]  # p99: of the median's slices
    repeated, kept = sum(row.repeated for row in rows), sum(row.disturbed for row in rows)
    said = []
    if repeated:
        said.append(f"Repeated: {number_of(repeated, 'slice')}, as other programs had the cores meanwhile.")
    if kept:
        worst = max(row.share for row in rows if row.disturbed)
        said.append(
            f"Disturbed machine: {number_of(kept, 'slice')} of the rows marked {MARK} "
            f"had no quiet repetition; others took up to {worst:.0%} of a core. "
            "These figures are of a busy machine: measure again."
        )
    return said


def mark(disturbance: Disturbance) -> str:
    """Behind the name of a row whose figures others disturbed."""
    return f" {MARK}" if disturbance.disturbed else ""


def bench_sentences(result: BenchResult, dash: str = "-") -> list[str]:
    """What the rows say about validation, about the bare ring and about idle contexts."""
    said = []
    for row in result.rows:
        if row.path != GUEST_TO_WIRE or row.protection != "validated":
            continue
        parts = _bench_parts(result, row, dash)
        if parts:
            idle = f", {row.contexts} contexts assigned" if row.contexts > 1 else ""
            said.append(f"{row.path}, {row.size} B, validated{idle}: {_list(parts)}.")
    return said


def _bench_parts(result: BenchResult, row: BenchRow, dash: str) -> list[str]:
    if row.contexts > 1:
        one = result.to_one_context(row)
        return [] if one is None else [f"{spread(one, dash)} of the throughput with one"]
    parts = []
    none, ring = result.to_none(row), result.to_bare_ring(row)
    if none is not None:
        parts.append(f"{spread(none, dash, 3)} of the throughput without protection")
    if ring is not None and row.path != BARE_RING:
        parts.append(f"{spread(ring, dash)} of the bare ring")
    if row.ratio_to_memcpy is not None:
        parts.append(f"{row.ratio_to_memcpy:.2f} of memcpy")
    return parts
