"""Twenty commands killed at random moments; `make kills` kills three hundred."""

import pytest
from kill_commands import SCENARIOS, kill_all

KILLS = 20


@pytest.mark.kills
def test_what_is_killed_leaves_stores_and_outputs_whole_and_the_next_command_leaves_nothing():
    outcomes = kill_all(KILLS)
    assert [outcome for outcome in outcomes if outcome.faults] == []
    assert {outcome.scenario for outcome in outcomes} == {scenario.name for scenario in SCENARIOS}
    assert any(outcome.left_by_kill for outcome in outcomes), "no kill came in time: they are killed too late"
