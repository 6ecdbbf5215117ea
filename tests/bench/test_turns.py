"""The harness of `benchmarks/namespaces.py`: who has its turn when, and what is made of the figures."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def turns() -> ModuleType:
    path = BENCHMARKS / "netlab" / "turns.py"
    if not path.exists():
        pytest.skip("no benchmarks beside these tests")
    spec = importlib.util.spec_from_file_location("netlab_turns", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look themselves up
    spec.loader.exec_module(module)
    return module


def test_everybody_has_every_place_in_the_order(turns: ModuleType) -> None:
    order: list[str] = []

    def measure(name: str) -> float:
        order.append(name)
        return float(len(order))

    figures = turns.take_turns({name: name for name in "abc"}, 3, measure)
    assert "".join(order) == "abc" + "bca" + "cab"
    assert figures == {"a": [1, 6, 8], "b": [2, 4, 9], "c": [3, 5, 7]}


def test_a_ratio_is_taken_round_by_round(turns: ModuleType) -> None:
    """Both were disturbed in the second round: the ratio does not notice."""
    over = turns.ratio([20, 2, 22], [10, 1, 10])
    assert (over.median, over.low, over.high, over.pairs) == (2, 2, 2.1, 3)
    assert turns.ratio([1.0], [0.0]).pairs == 0


@pytest.mark.parametrize(("percent", "value"), [(50, 50), (99, 99), (100, 100), (1, 1), (0.1, 1)])
def test_percentile(turns: ModuleType, percent: float, value: int) -> None:
    assert turns.percentile(reversed(range(1, 101)), percent) == value
    assert turns.percentile([7], percent) == 7
