"""Against scikit-learn and scipy."""

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics

from stages.benchmark.metrics import METRICS, accuracy, f1, matthews, pearson, spearman
from stages.benchmark.tasks.glue.scores import AVERAGED_SETS
from stages.common.statistics import bootstrap_draws, percentile_interval


@pytest.mark.parametrize("classes", [2, 3])
def test_of_classes(classes):
    labels, predictions = np.random.default_rng(0).integers(classes, size=(2, 200)).astype(float)
    assert accuracy(labels, predictions) == pytest.approx(metrics.accuracy_score(labels, predictions))
    assert matthews(labels, predictions) == pytest.approx(metrics.matthews_corrcoef(labels, predictions))
    if classes == 2:
        assert f1(labels, predictions) == pytest.approx(metrics.f1_score(labels, predictions))


def test_of_scales_with_ties():
    generator = np.random.default_rng(0)
    labels = generator.integers(6, size=300) / 1.0
    predictions = labels + generator.normal(size=300).round(1)
    assert pearson(labels, predictions) == pytest.approx(stats.pearsonr(labels, predictions)[0])
    assert spearman(labels, predictions) == pytest.approx(stats.spearmanr(labels, predictions)[0])


@pytest.mark.parametrize("name", sorted(METRICS.keys() - {"accuracy"}))
def test_of_one_prediction_for_all_is_zero(name):
    labels = np.array([0.0, 1.0, 1.0])
    assert METRICS[name](labels, np.zeros(3)) == 0


def test_the_average_is_of_nine_tasks():
    assert len(AVERAGED_SETS) == 9
    assert AVERAGED_SETS["MNLI"] == ("MNLI matched", "MNLI mismatched") and "AX" not in AVERAGED_SETS


def test_intervals_of_a_correlation_are_scipys():
    generator = np.random.default_rng(1)
    x = generator.normal(size=80)
    y = x + generator.normal(size=80)
    draws = bootstrap_draws(pearson, (x, y), seed=0, resamples=2_000)
    ours = percentile_interval(pearson(x, y), draws)
    theirs = stats.bootstrap(
        (x, y), lambda *pair: stats.pearsonr(*pair)[0], paired=True, vectorized=False, n_resamples=1_000,
        method="percentile", rng=0,
    ).confidence_interval  # fmt: skip
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.03)
    assert np.array_equal(draws, bootstrap_draws(pearson, (x, y), seed=0, resamples=2_000))
