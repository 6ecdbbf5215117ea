"""The command line over runners that measure nothing: they return synthetic figures at once."""

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from cdna.bench.result import BenchPlan, BenchResult, BenchRow
from cdna.cli import main
from cdna.cli.runners import Runners
from cdna.compare.result import Comparison, Plan, Run
from cdna.compare.vm.plan import VmPlan
from cdna.compare.vm.result import VmRun
from cdna.progress import OnProgress, Progress
from tests.support.synthetic import HOST, synthetic_bench, synthetic_comparison, synthetic_vm_comparison


@dataclass
class FakeRunners:
    """Keeps the plans that it is asked for. `fail` is raised after `after` finished rows."""

    fail: BaseException | None = None
    after: int = 0
    change: Callable[[Run], Run] = field(default=lambda run: run)
    plans: list[Plan | BenchPlan | VmPlan] = field(default_factory=list)

    def compare(self, plan: Plan, on_progress: OnProgress[Run]) -> Comparison:
        self.plans.append(plan)
        runs = [self.change(run) for run in synthetic_comparison(plan).runs]
        for i, run in enumerate(runs):
            if self.fail is not None and i == self.after:
                raise self.fail
            on_progress(Progress(i + 1, len(runs), str(run.case), (run,)))
        return Comparison(HOST, runs)

    def compare_vm(self, plan: VmPlan, on_progress: OnProgress[VmRun]) -> Comparison:
        self.plans.append(plan)
        result = synthetic_vm_comparison(plan)
        for i, run in enumerate(result.vm):
            if self.fail is not None and i == self.after:
                raise self.fail
            on_progress(Progress(i + 1, len(result.vm), str(run.case), (run,)))
        return result

    def bench(self, plan: BenchPlan, on_progress: OnProgress[BenchRow]) -> BenchResult:
        self.plans.append(plan)
        result = synthetic_bench(plan)
        for i, row in enumerate(result.rows):
            if self.fail is not None and i == self.after:
                raise self.fail
            on_progress(Progress(i + 1, len(result.rows), row.path, (row,)))
        return result


@dataclass
class Ended:
    """How a command line ended."""

    status: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The last line on standard error."""
        return self.err.splitlines()[-1]


class Cdna:
    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.fake = FakeRunners()
        self._capsys = capsys

    def __call__(self, *argv: str) -> Ended:
        status = main(argv, Runners(self.fake.compare, self.fake.bench, self.fake.compare_vm))
        captured = self._capsys.readouterr()
        return Ended(status, captured.out, captured.err)


@pytest.fixture
def cdna(capsys: pytest.CaptureFixture[str]) -> Cdna:
    """Runs a command line in this process: cdna("compare", "--guests", "1")."""
    return Cdna(capsys)
