"""Which functions do the measuring. They need the compiled modules, so they are imported at first use."""

from collections.abc import Callable
from dataclasses import dataclass

from cdna.bench.result import BenchPlan, BenchResult, BenchRow
from cdna.compare.result import Comparison, Plan, Run
from cdna.compare.vm.plan import VmPlan
from cdna.compare.vm.result import VmRun
from cdna.progress import OnProgress

CompareRunner = Callable[[Plan, OnProgress[Run]], Comparison]
VmRunner = Callable[[VmPlan, OnProgress[VmRun]], Comparison]
BenchRunner = Callable[[BenchPlan, OnProgress[BenchRow]], BenchResult]


def _compare(plan: Plan, on_progress: OnProgress[Run]) -> Comparison:
    from cdna.compare.runner import measure

    return measure(plan, on_progress)


def _compare_vm(plan: VmPlan, on_progress: OnProgress[VmRun]) -> Comparison:
    from cdna.compare.vm.runner import measure

    return measure(plan, on_progress)


def _bench(plan: BenchPlan, on_progress: OnProgress[BenchRow]) -> BenchResult:
    from cdna.bench.runner import measure

    return measure(plan, on_progress)


@dataclass(frozen=True)
class Runners:
    """The measuring behind the commands; a test gives its own."""

    compare: CompareRunner = _compare
    bench: BenchRunner = _bench
    compare_vm: VmRunner = _compare_vm
