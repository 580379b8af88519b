"""Values that are made once: what is told apart by identity, and what is kept."""

from weakref import ref

from hypothesis import given
from hypothesis import strategies as st

from pushsim.memo import Memo, same
from pushsim.shards import ByHost

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


class _Thing:
    """What there may be weak references to."""


def test_a_value_is_forgotten_with_what_it_is_made_of() -> None:
    memo, lasting, passing, strong = Memo(), _Thing(), _Thing(), [1]
    alive = ref(memo.once(_Thing, "key", of=(lasting, passing, strong)))
    assert memo.once(_Thing, "key", of=(lasting, passing, strong)) is alive() is not None
    del passing
    assert alive() is None
    assert memo.once(lambda: 2, "key", of=(lasting, strong)) == 2
    assert memo.once(lambda: 3, "key", of=(lasting, strong)) == 2


def test_what_was_made_of_each_other_is_not_kept_by_that() -> None:
    """Each of a long row, compared with the one before, as scopes are."""
    before, alive = _Thing(), []
    memos = []
    for _ in range(5):
        after, memo = _Thing(), Memo()
        memo.once(lambda: True, "like the one before", of=(before,))
        after.memo = memo  # type: ignore[attr-defined]
        memos.append(memo)
        alive.append(ref(before))
        before = after
    assert not any(each() for each in alive)


@given(
    st.lists(st.tuples(st.integers(0, 1), st.sampled_from("ab"), st.sampled_from("st"), st.none() | st.integers(0, 9)))
)
def test_sums_by_host_are_those_of_what_there_is_in_copies_too(steps: list[tuple[int, str, str, int | None]]) -> None:
    both: list[ByHost[int]] = [ByHost()]
    both.append(both[0].copy())
    for which, name, namespace, value in steps:
        of = both[which]
        if value is None:
            of.drop((name, namespace))
        else:
            of.put((name, namespace), value)
        assert [one.sum(lambda amount: 2 * amount) for one in both] == [2 * sum(one.values()) for one in both]
