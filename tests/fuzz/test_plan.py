"""What a run does is made by its seed, and by nothing else."""

from itertools import islice

import pytest

from cdna.errors import BadSetting, ConfigError
from cdna.fuzz.campaign import Tally
from cdna.fuzz.campaigns import CAMPAIGNS, DEFAULT, campaign_class
from cdna.fuzz.journal import JournalFile, last_case
from cdna.fuzz.plan import FuzzPlan


def test_each_campaign_gets_its_share() -> None:
    plan = FuzzPlan(jobs=3)
    for worker in range(3):
        slices = [name for name, _ in islice(plan.slices(worker), 1300)]
        whole = sum(CAMPAIGNS[name].weight for name in DEFAULT)
        for name in DEFAULT:
            assert slices.count(name) == pytest.approx(1300 * CAMPAIGNS[name].weight / whole, rel=0.05)
        assert set(slices) == set(DEFAULT)


def test_what_depends_on_the_machine_runs_only_when_it_is_asked_for() -> None:
    assert set(CAMPAIGNS) - set(DEFAULT) == {"time"}
    assert {name for name, _ in islice(FuzzPlan(campaigns=("time",)).slices(0), 10)} == {"time"}


def test_a_round_fits_into_half_the_time() -> None:
    plan = FuzzPlan(seconds=10)
    rounds = sum(CAMPAIGNS[name].weight for name in DEFAULT)
    assert rounds * plan.slice_seconds <= 5.01
    assert FuzzPlan(seconds=1e6).slice_seconds == 1


def test_workers_and_slices_have_seeds_of_their_own() -> None:
    plan = FuzzPlan(seed=5, jobs=4)
    seeds = [seed for worker in range(4) for _, seed in islice(plan.slices(worker), 100)]
    assert len(set(seeds)) == 400
    again = [seed for worker in range(4) for _, seed in islice(FuzzPlan(seed=5, jobs=4).slices(worker), 100)]
    assert seeds == again
    assert FuzzPlan.from_json(plan.to_json()) == plan


@pytest.mark.parametrize(
    "setting",
    [
        {"seconds": 0.0},
        {"seconds": float("nan")},
        {"seed": -1},
        {"descriptors": -1},
        {"jobs": 0},
        {"campaigns": ()},
        {"campaigns": ("model", "no such")},
        {"campaigns": ("model", "model")},
    ],
)
def test_a_plan_that_cannot_be(setting: dict) -> None:
    with pytest.raises(BadSetting):
        FuzzPlan(**setting)


def test_no_such_campaign() -> None:
    with pytest.raises(ConfigError, match="give some of native, virtio"):
        campaign_class("none")


def test_tallies_add_up() -> None:
    total = Tally(1, 2, 3, 4, 5, {"FAULT_LENGTH": 1}, {})
    total.add(Tally(1, 1, 1, 1, 1, {"FAULT_LENGTH": 2, "FAULT_FLAGS": 1}, {"REFUSED_OWNER": 7}))
    assert total == Tally(2, 3, 4, 5, 6, {"FAULT_LENGTH": 3, "FAULT_FLAGS": 1}, {"REFUSED_OWNER": 7})
    assert Tally.of(total.to_dict()) == total


def test_the_journal_has_the_last_case(tmp_path) -> None:
    path = tmp_path / "journal"
    assert last_case(path) is None
    journal = JournalFile(path)
    assert last_case(path) is None
    journal({"campaign": "model", "steps": list(range(100))})
    journal({"campaign": "model", "seed": 2})
    assert last_case(path) == {"campaign": "model", "seed": 2}
    journal.close()
