from math import exp, log

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.planner.failures import (
    Failures,
    best_interval,
    daly_interval,
    expected_goodput,
    failure_gaps,
    simulate_goodput,
    simulate_run,
    young_interval,
)

HOUR, NINE_MONTHS = 3_600, 274 * 86_400
TOLERANCE = 0.10
"""Relative, of the interval: the goodput is flat at its top."""


def test_a_run_by_hand():
    """Cycles of 10 + 2 s, restarts of 5 s: gaps of 25, 4 and 30 s keep 2, 0 and 2 intervals, and 1 s after the last."""
    assert simulate_goodput(Failures(1, 2, 5), 10, [25, 4, 30]) == pytest.approx((20 + 0 + 20 + 1) / 59)
    assert simulate_goodput(Failures(1, 2, 5), 100, [40]) == 1
    assert simulate_goodput(Failures(1, 2, 5), 10, [3, 2]) == 0


@pytest.mark.parametrize(("hours", "checkpoint"), [(0.25, 60), (1, 300), (7, 60), (50, 5)])
def test_the_best_interval_of_the_simulation_is_dalys(hours, checkpoint):
    """Within 10 %; its goodput is within 0.1 points of the best that the exact formula has anywhere."""
    failures = Failures(hours * HOUR, checkpoint, 600)
    found, daly = best_interval(failures), daly_interval(failures)
    assert abs(log(found / daly)) < TOLERANCE
    best = max(expected_goodput(failures, daly * exp(step / 50)) for step in range(-100, 100))
    assert best - expected_goodput(failures, found) < 0.001
    if checkpoint < failures.mtbf / 200:
        assert abs(log(found / young_interval(failures))) < TOLERANCE


def test_youngs_interval_is_too_long_where_checkpoints_are_not_much_shorter_than_the_time_between_failures():
    failures = Failures(0.25 * HOUR, 300, 60)
    assert young_interval(failures) > 1.25 * best_interval(failures)


@pytest.mark.parametrize("devices", [1_000, 16_384])
def test_the_simulated_goodput_over_nine_months_is_the_exact_one(devices):
    """A 90 % interval of 20 runs holds the expectation, and narrows as failures become many."""
    failures = Failures(30_000 * HOUR / devices, 60, 600)
    run = simulate_run(failures, NINE_MONTHS)
    assert run.low <= run.goodput <= run.high
    assert run.low < expected_goodput(failures, run.interval) < run.high
    assert run.high - run.low < 0.03


@settings(max_examples=50, deadline=None)
@given(
    mtbf=st.floats(100, 1e6), checkpoint=st.floats(0.1, 300), restart=st.floats(0, 2_000),
    interval=st.floats(1, 1e5), seed=st.integers(0, 10_000), failures=st.floats(0.01, 300),
)  # fmt: skip
def test_properties_of_a_run(mtbf, checkpoint, restart, interval, seed, failures):
    """A share; dearer checkpoints and restarts never help; without checkpoints' cost, twice as many lose no work."""
    rates = Failures(mtbf, checkpoint, restart)
    gaps = failure_gaps(rates, failures * mtbf, seed)
    assert gaps == failure_gaps(rates, failures * mtbf, seed)
    assert sum(gaps) == pytest.approx(failures * mtbf) and min(gaps) >= 0
    share = simulate_goodput(rates, interval, gaps)
    assert 0 <= share <= 1
    slower = simulate_goodput(Failures(mtbf, checkpoint, 2 * restart), interval, gaps)
    assert slower <= share + 1e-9
    free = Failures(mtbf, 0, restart)
    assert simulate_goodput(free, interval, gaps) <= simulate_goodput(free, interval / 2, gaps) + 1e-9


@settings(max_examples=100)
@given(mtbf=st.floats(1e-3, 1e9), checkpoint=st.floats(1e-3, 1e5), restart=st.floats(0, 1e5))
def test_formulas_are_finite_for_any_cluster(mtbf, checkpoint, restart):
    failures = Failures(mtbf, checkpoint, restart)
    assert 0 < daly_interval(failures) < float("inf")
    assert 0 < expected_goodput(failures, daly_interval(failures)) < 1


def test_a_job_that_fails_before_it_restarts_trains_nothing():
    run = simulate_run(Failures(1, 60, 600), NINE_MONTHS, seeds=4)
    assert run.goodput == 0 and run.interval == 1
