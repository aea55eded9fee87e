"""Choices that stay the same on every host."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from stages.synthesize.text.draws import Draws


def test_a_seed_gives_the_same_choices_for_ever():
    draws = Draws(21)
    assert [draws.below(10) for _ in range(8)] == [1, 6, 6, 4, 2, 7, 8, 5]
    assert Draws(21).shuffled("abcdef") == list("aebcdf")


@given(st.integers(0, 2**64), st.integers(1, 50), st.integers(0, 60))
def test_samples_are_distinct(seed, limit, count):
    sample = Draws(seed).sample(limit, count)
    assert len(set(sample)) == len(sample) == min(limit, count) and set(sample) <= set(range(limit))


def test_every_order_is_as_likely_as_the_others():
    draws = Draws(5)
    orders = Counter(tuple(draws.shuffled("abc")) for _ in range(6_000))
    assert len(orders) == 6 and all(abs(count - 1_000) < 150 for count in orders.values())


def test_poisson_has_its_mean_and_variance():
    draws = Draws(9)
    values = [draws.poisson(3) for _ in range(20_000)]
    mean = sum(values) / len(values)
    assert abs(mean - 3) < 0.06 and abs(sum((value - mean) ** 2 for value in values) / len(values) - 3) < 0.15
