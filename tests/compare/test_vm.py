"""Figures of virtual machines: their JSON, their ratios, host CPU. All figures but the last are synthetic."""

import json
import os
import shutil

import pytest

from cdna.compare.result import Comparison
from cdna.compare.vm import runner
from cdna.compare.vm.cpu import Reading
from cdna.compare.vm.loads import Turn
from cdna.compare.vm.plan import LATENCY, TCP, VmCase, VmPlan
from cdna.compare.vm.result import MEDIAN, P99, THROUGHPUT, HostCpu
from cdna.errors import ConfigError, ResourceError
from cdna.vm import image
from tests.support.synthetic import synthetic_vm_comparison
from tests.support.vm import needs_vm

pytestmark = pytest.mark.alone

CPU = HostCpu(1.0, 0.25, 0.0)


def test_json_round_trip() -> None:
    comparison = synthetic_vm_comparison()
    assert Comparison.from_json(comparison.to_json()) == comparison


def test_json_has_the_documented_fields() -> None:
    tree = json.loads(synthetic_vm_comparison().to_json())
    for row in tree["vm"]:
        documented = "path load quantity unit value seconds cpu slices samples histogram disturbance"
        assert list(row) == documented.split()
        assert list(row["cpu"]) == ["guests", "server", "kernel"]


@pytest.mark.parametrize("vm", ['{"path": 1}', "[{}]", '[{"cpu": {}}]', '[{"cpu": 3}]', "[7]"])
def test_what_is_no_result(vm: str) -> None:
    with pytest.raises(ConfigError, match="comparison: "):
        Comparison.from_json(f'{{"host": {{}}, "runs": [], "vm": {vm}}}')


def test_ratios_are_taken_turn_by_turn() -> None:
    comparison = synthetic_vm_comparison()
    for run in comparison.vm:
        ratio = comparison.vm_ratio(run)
        assert ratio is not None
        cdna = 0.5 if run.less_is_better else 2.0
        assert ratio.median == pytest.approx(cdna if run.path == "cdna" else 1)
        assert ratio.pairs == 3


def test_no_bridge_no_ratio() -> None:
    comparison = synthetic_vm_comparison(VmPlan(path=("cdna",)))
    assert [comparison.vm_ratio(run) for run in comparison.vm] == [None] * 4


def test_percentiles_are_of_all_turns_and_of_each() -> None:
    """By HdrHistogram: to three digits. The 99th percentile of all lies in the one turn that was slow."""
    pytest.importorskip("hdrh")
    turns = [(Turn(round_trips=(*[100.0] * 96, *[slow] * 4)), CPU) for slow in (100.0, 50_000.0, 200.0)]
    middle, p99 = runner._runs(VmCase("cdna", LATENCY), turns, 6.0)
    assert (middle.quantity, p99.quantity) == (MEDIAN, P99)
    assert middle.value == 100
    assert middle.slices == (100, 100, 100)
    assert p99.value == pytest.approx(50_000, rel=1e-3)
    assert p99.slices == pytest.approx((100, 50_000, 200), rel=1e-2)
    assert (middle.samples, middle.cpu) == (300, CPU)


def test_the_histogram_can_be_read_again() -> None:
    histogram = pytest.importorskip("hdrh.histogram").HdrHistogram
    turns = [(Turn(round_trips=(100.0, 200.0, 300.0)), CPU)] * 3
    middle, p99 = runner._runs(VmCase("cdna", LATENCY), turns, 6.0)
    assert middle.histogram is not None
    assert histogram.decode(middle.histogram).get_total_count() == 9
    assert p99.histogram is None


def test_host_cpu_is_charged_to_who_used_it() -> None:
    """10 s: QEMU 6 s in user mode and 2 in the kernel, the server 1 and 1, the kernel 4.5 in all."""
    before = Reading(100.0, (1.0, 1.0), (2.0, 2.0), 50.0)
    after = Reading(110.0, (7.0, 3.0), (3.0, 3.0), 54.5)
    used = after.since(before)
    assert used == HostCpu(guests=0.8, server=0.2, kernel=0.15)
    assert used.total == pytest.approx(1.15)


def test_a_reading_of_this_process() -> None:
    before = Reading.now([os.getpid()], None)
    while sum(os.times()[:2]) < 0.05 + sum(before.guests):
        pass
    after = Reading.now([os.getpid()], None)
    assert after.since(before).guests > 0
    assert after.since(before).server == 0


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    with pytest.raises(ResourceError, match=rf"need {image.QEMU} \(qemu-system-x86\)"):
        runner.measure(VmPlan())


@needs_vm
@pytest.mark.timeout(300)
def test_a_short_run() -> None:
    """Real guests: each load comes to something on each path, and QEMU is what it costs."""
    comparison = runner.measure(VmPlan(load=(TCP, LATENCY), seconds=1.5))
    assert [(run.load, run.quantity, run.path) for run in comparison.vm] == [
        (load, quantity, path)
        for load, quantity in ((TCP, THROUGHPUT), (LATENCY, MEDIAN), (LATENCY, P99))
        for path in ("cdna", "bridge")
    ]
    for run in comparison.vm:
        assert run.value > 0
        assert len(run.slices) == runner.TURNS
        assert run.cpu.guests > 0
        assert (run.cpu.server > 0) == (run.path == "cdna")
    assert "QEMU" in comparison.host["vm"]
