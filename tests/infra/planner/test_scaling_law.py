import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_schemas.errors import ConfigError
from infra.planner.scaling_intervals import BootstrapLaw, check_design, doubts
from infra.planner.scaling_law import HUBER_DELTA, Measurements, ScalingLaw, effective_tokens, fit_law

SIZES, LENGTHS = (57e3, 132e3, 262e3, 651e3), (2e5, 4e5, 8e5, 1.6e6)
REPLICATED = ScalingLaw(1.8172, 482.01, 2085.43, 0.3478, 0.3658)
"""Chinchilla's runs, fitted again by Besiroglu et al. 2024 (2404.10102, table 1)."""


def grid(sizes=SIZES, lengths=LENGTHS):
    return tuple(map(np.ravel, np.meshgrid(sizes, lengths)))


def law_with_terms(irreducible, capacity, data, alpha, beta):
    """A law whose terms have these sizes in the middle of the grid."""
    return ScalingLaw(irreducible, capacity * 2e5**alpha, data * 6e5**beta, alpha, beta)


def scattered(law, noise, seed, sizes=SIZES, lengths=LENGTHS):
    parameters, tokens = grid(sizes, lengths)
    scatter = np.exp(noise * np.random.default_rng(seed).standard_normal(len(parameters)))
    return Measurements(parameters, tokens, law.loss(parameters, tokens) * scatter)


@settings(max_examples=8, deadline=None, derandomize=True)
@given(
    irreducible=st.floats(0.3, 2), capacity=st.floats(0.2, 2), data=st.floats(0.2, 2),
    alpha=st.floats(0.15, 1), beta=st.floats(0.15, 1),
)  # fmt: skip
def test_the_constants_of_exact_losses_are_recovered(irreducible, capacity, data, alpha, beta):
    truth = law_with_terms(irreducible, capacity, data, alpha, beta)
    law = fit_law(scattered(truth, 0, 0))
    assert (law.parameter_exponent, law.token_exponent) == pytest.approx((alpha, beta), abs=1e-3)
    assert law.irreducible == pytest.approx(irreducible, abs=2e-3)
    # Far outside the grid, where a wrong constant would show.
    assert float(law.loss(1e8, 1e9)) == pytest.approx(float(truth.loss(1e8, 1e9)), rel=1e-3)


def test_single_outliers_do_not_move_the_law():
    truth = law_with_terms(1, 0.8, 1, 0.35, 0.4)
    runs = scattered(truth, 0, 0)
    losses = runs.losses.copy()
    losses[[3, 9]] *= 1.2, 0.9
    law = fit_law(replace(runs, losses=losses))
    assert float(law.loss(2e6, 4e6)) == pytest.approx(float(truth.loss(2e6, 4e6)), rel=10 * HUBER_DELTA)


def test_the_best_size_is_that_of_the_closed_form():
    law = REPLICATED
    flops = 5.76e23  # Chinchilla's and Gopher's
    sizes = np.geomspace(1e9, 1e12, 20_001)
    best = sizes[np.argmin(law.loss(sizes, flops / 6 / sizes))]
    # N = G (C / 6)^a with G = (alpha A / (beta B))^(1 / (alpha + beta)), 2203.15556, equation 4.
    g = (0.3478 * 482.01 / (0.3658 * 2085.43)) ** (1 / (0.3478 + 0.3658))
    closed = g * (flops / 6) ** law.optimal_exponent
    assert law.optimal_exponent == pytest.approx(0.3658 / (0.3478 + 0.3658))
    assert best == pytest.approx(closed, rel=1e-3)
    # 70 billion parameters and 20 tokens for each is what they agree with.
    assert 15 < flops / 6 / closed / closed < 30


def test_repeated_tokens_are_worth_less_by_the_published_curve():
    assert effective_tokens([50, 100], 100).tolist() == [50, 100]
    # Four epochs: 1 + 15.39 (1 - exp(-3 / 15.39)), by hand.
    assert float(effective_tokens(400, 100)) == pytest.approx(100 * (1 + 15.39 * (1 - math.exp(-3 / 15.39))))
    assert float(effective_tokens(400, 100)) == pytest.approx(372.6, abs=0.1)
    assert float(effective_tokens(1e9, 100)) == pytest.approx(100 * (1 + 15.39))


@pytest.mark.parametrize(
    ("sizes", "lengths", "message"),
    [
        (*grid(SIZES[:2]), "2 sizes .* needs 3 or more"),
        (*grid(SIZES, LENGTHS[:2]), "2 numbers of tokens"),
        (SIZES[:3], LENGTHS[:3], "3 runs .* needs 8"),
        (np.geomspace(1e5, 1e6, 9), 20 * np.geomspace(1e5, 1e6, 9), "correlation of 1.000"),
    ],
)
def test_grids_that_cannot_tell_are_refused(sizes, lengths, message):
    with pytest.raises(ConfigError, match=message):
        check_design(sizes, lengths)


def test_what_the_runs_leave_open_is_said():
    alike = BootstrapLaw(law_with_terms(1, 1, 1, 0.3, 0.3), tuple(
        law_with_terms(1, 1, 1, 0.3 + shift, 0.3) for shift in np.linspace(-0.1, 0.1, 41)), np.zeros(4))  # fmt: skip
    [sentence] = doubts(alike, 2.0)
    assert "alpha and beta cannot be distinguished" in sentence
    apart = BootstrapLaw(alike.law, tuple(law_with_terms(1, 1, 1, 0.3, 0.5) for _ in range(41)), np.zeros(4))
    assert doubts(apart, 2.0) == []
    flat = BootstrapLaw(alike.law, tuple(law_with_terms(1e-9, 1, 1, -0.1, 0.5) for _ in range(41)), np.zeros(4))
    found = doubts(flat, 2.0)
    assert any("alpha is not determined" in row for row in found) and any(
        "E cannot be distinguished from 0" in row for row in found
    )


def test_a_run_that_scatters_widens_its_interval_only():
    law = law_with_terms(1, 0.8, 1, 0.35, 0.4)
    exact = BootstrapLaw(law, (law,) * 10, np.zeros(16))
    noisy = BootstrapLaw(law, (law,) * 10, np.linspace(-0.02, 0.02, 16))
    value, low, high = noisy.run_interval(1e6, 1e6)
    assert exact.run_interval(1e6, 1e6) == pytest.approx((value,) * 3)
    assert math.log(high / value) == pytest.approx(0.02, abs=2e-3) and low * high == pytest.approx(value**2)
