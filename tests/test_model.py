"""The engine and the VMM against the reference model, on the same random schedules, hostile ones too.

The steps are those of `cdna fuzz`'s campaign "model"; here hypothesis draws them, and shrinks what fails.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from cdna.fuzz.against_model import START, STEPS, EngineAgainstModel
from cdna.fuzz.arguments import Either, OneOf, Several, Spec, Together, Whole


def strategy(spec: Spec) -> st.SearchStrategy:
    """What an argument may be, as hypothesis has it."""
    match spec:
        case Whole(least, most):
            return st.integers(least, most)
        case OneOf():
            return st.sampled_from(spec.values)
        case Either():
            return st.one_of(*map(strategy, spec.specs))
        case Together():
            return st.tuples(*map(strategy, spec.specs)).map(list)
        case Several(one, least, most):
            return st.lists(strategy(one), min_size=least, max_size=most)


def strategies(arguments: dict[str, Spec]) -> dict[str, st.SearchStrategy]:
    return {name: strategy(spec) for name, spec in arguments.items()}


class Schedule(RuleBasedStateMachine):
    @initialize(**strategies(START))
    def start(self, irq_frames: int, third: str) -> None:
        self.both = EngineAgainstModel(irq_frames, third)

    @invariant()
    def check(self) -> None:
        if hasattr(self, "both"):
            self.both.check()

    def teardown(self) -> None:
        if hasattr(self, "both"):
            self.both.finish()
            self.both.close()


def _rule(name: str) -> object:
    @rule(**strategies(STEPS.arguments[name]))
    def carry_out(self: Schedule, **arguments: object) -> None:
        STEPS.do(self.both, [name, arguments])

    carry_out.__name__ = name
    return carry_out


EveryStep = type("EveryStep", (Schedule,), {name: _rule(name) for name in STEPS.arguments})

TestEngineAgainstModel = pytest.mark.timeout(600)(EveryStep.TestCase)  # a failure is shrunk first
TestEngineAgainstModel.settings = settings(
    max_examples=100,
    stateful_step_count=50,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)
