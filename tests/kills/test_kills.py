"""Twenty commands and three surveys killed at random moments; `make kills` and `make test-survey`: more."""

import pytest
from kill_commands import SCENARIOS, kill_all
from kill_surveys import kills

KILLS = 20


@pytest.mark.kills
def test_what_is_killed_leaves_stores_and_outputs_whole_and_the_next_command_leaves_nothing():
    outcomes = kill_all(KILLS)
    assert [outcome for outcome in outcomes if outcome.faults] == []
    assert {outcome.scenario for outcome in outcomes} == {scenario.name for scenario in SCENARIOS}
    assert any(outcome.left_by_kill for outcome in outcomes), "no kill came in time: they are killed too late"


@pytest.mark.kills
def test_surveys_that_are_killed_lose_and_double_no_row():
    assert kills(3, 8) == []
