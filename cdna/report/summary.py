"""What the figures say, in sentences. Every number in them is computed from the runs."""

from dataclasses import dataclass
from statistics import median

from cdna.bench.result import BARE_RING, GUEST_TO_WIRE, BenchResult, BenchRow
from cdna.compare.disturbance import Disturbance
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

    cdna: Run
    bridge: Run | None
    to_bridge: Ratio | None
    to_fewest: float | None  # throughput over that with the smallest number of guests
    fewest: int
    to_none: Ratio | None  # validated over none


def findings(comparison: Comparison) -> list[Finding]:
    """One for each direction (and kind of domains) that CDNA was measured in, in the order measured."""
    return [
        finding
        for runs in comparison.sections().values()
        if (finding := _finding(comparison, [run for run in runs if run.path == "cdna"])) is not None
    ]


def _finding(comparison: Comparison, runs: list[Run]) -> Finding | None:
    if not runs:
        return None
    most = [run for run in runs if run.guests == runs[-1].guests]
    cdna = next((run for run in most if run.protection == "validated"), most[0])
    fewest = comparison.find(cdna, guests=runs[0].guests)
    none = comparison.find(cdna, protection="none")
    return Finding(
        cdna=cdna,
        bridge=comparison.baseline(cdna),
        to_bridge=comparison.ratio(cdna),
        to_fewest=None
        if fewest is None or fewest is cdna or not fewest.mpps
        else _middle(cdna) / _middle(fewest),
        fewest=runs[0].guests,
        to_none=None if none is None or none is cdna else ratio_of(cdna, none),
    )


def _middle(run: Run) -> float:
    """Throughput for a ratio between runs that took no turns: the median slice, or the whole."""
    return median(run.slices) if run.slices and median(run.slices) > 0 else run.mpps


def sentences(comparison: Comparison, dash: str = "-") -> list[str]:
    """A sentence or two for each direction."""
    return [_sentence(finding, dash) for finding in findings(comparison)]


def _sentence(finding: Finding, dash: str) -> str:
    cdna = finding.cdna
    guests = number_of(cdna.guests, "guest")
    where = "" if cdna.domains == "process" else f" ({cdna.domains})"
    parts = [f"moves {cdna.mpps:.2f} Mpps ({cdna.gbps:.1f} Gb/s)"]
    if finding.to_bridge is not None and finding.bridge is not None:
        receive = finding.bridge.receive
        bridge = f"the bridge ({receive})" if receive else "the bridge"
        parts.append(f"{spread(finding.to_bridge, dash)} times {bridge}")
    if finding.to_fewest is not None:
        parts.append(f"{finding.to_fewest:.2f} of itself with {number_of(finding.fewest, 'guest')}")
    if finding.to_none is not None:
        parts.append(f"{spread(finding.to_none, dash, 3)} of itself without protection")
    idle = f"; the host is then {cdna.profile.idle:.0%} idle" if cdna.profile.idle >= 0.005 else ""
    name = cdna.case.contender.replace("cdna", "CDNA")
    return f"{DIRECTIONS[cdna.direction]}{where}, {guests}: {name} {_list(parts)}{idle}."


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
