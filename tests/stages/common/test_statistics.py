import numpy as np
import pytest

from stages.common.statistics import bootstrap_interval, paired_difference, wilson_interval


def test_interval_is_as_wide_as_the_normal_approximation_says():
    bits = np.random.default_rng(0).normal(500, 100, 1000)
    interval = bootstrap_interval(bits, np.full(1000, 200), seed=1, resamples=4000)
    error = bits.std() / 200 / np.sqrt(1000)
    assert interval.value == pytest.approx(bits.mean() / 200)
    assert interval.low == pytest.approx(interval.value - 1.96 * error, abs=0.15 * error)
    assert interval.high == pytest.approx(interval.value + 1.96 * error, abs=0.15 * error)


def test_ratio_weighs_documents_by_their_bytes():
    interval = bootstrap_interval([10.0, 300.0], [10, 100], seed=0)
    assert interval.value == pytest.approx(310 / 110)


def test_a_constant_ratio_has_no_width_and_the_seed_decides():
    bytes_ = np.arange(1, 50)
    assert bootstrap_interval(2.0 * bytes_, bytes_, seed=0) == pytest.approx((2, 2, 2))
    bits = np.random.default_rng(1).random(49)
    assert bootstrap_interval(bits, bytes_, seed=3) == bootstrap_interval(bits, bytes_, seed=3)
    assert bootstrap_interval(bits, bytes_, seed=3) != bootstrap_interval(bits, bytes_, seed=4)
    narrow = bootstrap_interval(bits, bytes_, seed=3, confidence=0.5)
    wide = bootstrap_interval(bits, bytes_, seed=3)
    assert wide.low < narrow.low < narrow.value < narrow.high < wide.high


def test_pairing_sees_a_difference_that_separate_intervals_hide():
    generator = np.random.default_rng(0)
    bytes_ = generator.integers(100, 1000, 200)
    first = bytes_ * generator.normal(2.0, 0.5, 200)
    second = first - 0.02 * bytes_
    assert bootstrap_interval(first, bytes_, 0).low < bootstrap_interval(second, bytes_, 0).high
    assert paired_difference(first, second, bytes_, 0) == pytest.approx((0.02, 0.02, 0.02))


def test_resampling_in_blocks_gives_all_resamples(monkeypatch):
    bits, bytes_ = np.random.default_rng(0).random(30), np.ones(30)
    whole = bootstrap_interval(bits, bytes_, seed=0)
    monkeypatch.setattr("stages.common.statistics.BLOCK", 90)
    assert bootstrap_interval(bits, bytes_, seed=0) == whole


def test_a_rate_of_nothing_or_everything_has_the_interval_of_wilson():
    # Brown, Cai & DasGupta 2001: n = 40, z = 1.96: upper end z^2 / (n + z^2).
    assert bootstrap_interval(np.zeros(40), np.ones(40), 0) == pytest.approx((0, 0, 0.0876), abs=1e-4)
    assert bootstrap_interval(np.zeros(40), np.ones(40), 0).low == 0
    assert bootstrap_interval(np.ones(40), np.ones(40), 0) == pytest.approx((1, 0.9124, 1), abs=1e-4)
    assert wilson_interval(5, 10) == pytest.approx((0.5, 0.2366, 0.7634), abs=1e-4)
    assert paired_difference(np.zeros(40), np.zeros(40), np.ones(40), 0) == (0, 0, 0)
