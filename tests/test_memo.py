"""Values that are made once: what is told apart by identity, and what is kept."""

from hypothesis import given
from hypothesis import strategies as st

from pushsim.memo import Memo, same

#: Equal to each other, but not the same.
OBJECTS = [[n % 2] for n in range(4)]


@given(st.lists(st.tuples(st.sampled_from("ab"), st.lists(st.integers(0, 3), max_size=3))))
def test_the_latest_is_made_anew_when_it_is_of_other_objects(asked: list[tuple[str, list[int]]]) -> None:
    memo, before = Memo(), dict[str, tuple[list[int], int]]()
    for number, (key, places) in enumerate(asked):
        value = memo.latest(lambda number=number: number, key, of=[OBJECTS[place] for place in places])
        known = before.get(key)
        assert value == (known[1] if known is not None and known[0] == places else number)
        before[key] = places, value


def test_a_latest_value_is_not_what_is_made_once() -> None:
    memo = Memo()
    assert memo.once(lambda: 1, "key") == 1
    assert memo.latest(lambda: 2, "key", of=()) == 2
    assert memo.once(lambda: 3, "key") == 1


@given(st.lists(st.integers(0, 3), max_size=4), st.lists(st.integers(0, 3), max_size=4))
def test_the_same_are_the_very_same_in_the_same_order(some: list[int], others: list[int]) -> None:
    assert same([OBJECTS[n] for n in some], [OBJECTS[n] for n in others]) == (some == others)
