from fractions import Fraction
from itertools import combinations
from math import comb, isclose

from hypothesis import given
from hypothesis import strategies as st

from stages.benchmark.tasks.code.grading import pass_at_k


@given(st.integers(1, 9).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n))))
def test_pass_at_k_is_the_share_of_draws_with_a_correct_program(case):
    samples, passed, k = case
    draws = list(combinations([True] * passed + [False] * (samples - passed), k))
    assert isclose(pass_at_k(samples, passed, k), sum(map(any, draws)) / len(draws), abs_tol=1e-12)


def test_many_samples_stay_in_the_range_of_floats():
    for samples, passed, k in ((2_000, 3, 1_000), (2_000, 1, 1), (5_000, 2_500, 100), (200, 1, 100)):
        exact = 1 - Fraction(comb(samples - passed, k), comb(samples, k))
        assert isclose(pass_at_k(samples, passed, k), exact, rel_tol=1e-9)
