"""kill -9 of every party at steps spread over its life; `make kills` takes every step (docs/kills.md)."""

from functools import partial

import pytest

from tests.support.kills.parties import PARTIES, scenarios

KILLS = {"guest": 6, "frontend": 12, "server": 8, "vmm": 15}  # of each scenario


@pytest.mark.parametrize("party", PARTIES)
def test_killed_at_any_step(party):
    for scenario in scenarios(party):
        tally = scenario.run(partial(scenario.steps, kills=KILLS[party]), lambda tally: None)
        assert tally.kills > KILLS[party] // 2
        assert tally.steps > KILLS[party]
