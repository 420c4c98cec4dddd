"""Long loops tell whoever listens how far they are."""

from emergraph.steps import listening, steps


def test_without_a_listener_items_pass():
    assert list(steps(iter("abc"), "letters")) == ["a", "b", "c"]


def test_a_listener_is_told_of_the_start_and_of_every_step():
    told = []
    with listening(lambda *step: told.append(step)):
        assert list(steps("ab", "letters")) == ["a", "b"]
        assert list(steps(iter("ab"), "letters")) == ["a", "b"]
        assert list(steps(iter("a"), "letters", total=1)) == ["a"]
        assert list(steps([], "letters")) == []
    assert told == [
        *(("letters", done, 2) for done in range(3)),
        *(("letters", done, None) for done in range(3)),
        *(("letters", done, 1) for done in range(2)),
        ("letters", 0, 0),
    ]
    assert list(steps("ab", "letters")) == ["a", "b"]
    assert len(told) == 9
