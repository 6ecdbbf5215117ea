"""`cdna compare` for real, for moments: every frame arrives, whole; no figure of speed is looked at."""

from pathlib import Path

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.utils import wrpcap

from cdna.compare.plan import Plan
from cdna.compare.result import Comparison, Run
from cdna.compare.runner import SLICES, measure
from cdna.progress import Progress

pytestmark = pytest.mark.alone

SECONDS = 0.1  # a case


def check(plan: Plan) -> Comparison:
    """Measures a plan and checks all that must hold whatever the machine."""
    seen: list[Progress[Run]] = []
    result = measure(plan, seen.append)
    assert [run.case for run in result.runs] == plan.cases()
    for run in result.runs:
        check_run(run)
    assert Comparison.from_json(result.to_json()) == result
    assert [run for progress in seen for run in progress.finished] == result.runs
    assert (seen[0].done, seen[-1].done) == (0, seen[-1].total)
    return result


def check_run(run: Run) -> None:
    assert run.lost == 0, run
    assert run.sent == run.received > 0, run
    assert 0 < run.frames <= run.received, run
    assert len(run.slices) == SLICES
    profile = run.profile
    shares = (profile.vmm, profile.driver_domain, profile.guests, profile.idle)
    assert all(0 <= share <= 1 for share in shares), run
    assert sum(shares) == pytest.approx(1)
    assert profile.guests > 0, run
    assert (profile.driver_domain > 0) == (run.path == "bridge"), run
    assert run.interrupts.physical_per_s > 0, run
    assert run.interrupts.guest_per_s > 0, run
    assert (run.interrupts.driver_domain_per_s > 0) == (run.path == "bridge"), run


@pytest.mark.parametrize("size", [64, "imix", 9000])
def test_processes(size: int | str) -> None:
    check(Plan((2,), size=size, protection=("validated", "none"), seconds=SECONDS, verify=True))


def test_one_and_two_guests_inline() -> None:
    protection = ("validated", "none", "iommu:shared")
    plan = Plan((1, 2), size="imix", protection=protection, domains=("inline",), seconds=SECONDS, verify=True)
    check(plan)


@pytest.mark.parametrize("strategy", ["single-use", "shared", "persistent", "direct-map"])
def test_iommu_strategies(strategy: str) -> None:
    plan = Plan((1,), path=("cdna",), protection=(f"iommu:{strategy}",), seconds=SECONDS, verify=True)
    check(plan)


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    """Ten frames of many lengths."""
    head = Ether(dst="02:00:00:00:00:02", src="02:00:00:00:00:01") / IP(dst="192.0.2.1") / UDP(dport=9)
    packets = [head / bytes((i + j) & 0xFF for j in range(18 + 160 * i)) for i in range(10)]
    wrpcap(str(tmp_path / "small.pcap"), packets)
    return tmp_path / "small.pcap"


def test_frames_of_a_capture(capture: Path) -> None:
    plan = Plan((2,), size=str(capture), protection=("validated",), seconds=SECONDS, verify=True)
    check(plan)
