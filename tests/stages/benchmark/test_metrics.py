"""Against scikit-learn and scipy."""

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics

from stages.benchmark.metrics import (
    METRICS,
    _confusion_draws,
    accuracy,
    f1,
    matthews,
    paired_metric_interval,
    pearson,
    spearman,
)
from stages.benchmark.tasks.glue.data import SETS_BY_NAME
from stages.benchmark.tasks.glue.scores import AVERAGED_SETS, average_result, score, score_result
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


def interval(name, metric, labels, predicted):
    values = (np.array(column, dtype=float) for column in (labels, predicted))
    row = score_result("task", "model", score(SETS_BY_NAME[name], metric, *values, seed=0), None, None, []).score
    assert np.isfinite([row["low"], row["value"], row["high"]]).all()
    assert row["low"] <= row["value"] <= row["high"]
    return row["low"], row["value"], row["high"]


HALVES = [0, 1] * 10
DEGENERATE = {
    "one class is predicted": ("CoLA", "Matthews correlation", HALVES, [1] * 20, 0),
    "one class is present": ("CoLA", "Matthews correlation", [1] * 20, HALVES, 0),
    "one class in both": ("CoLA", "Matthews correlation", [1] * 20, [1] * 20, 0),
    "all correct": ("CoLA", "Matthews correlation", HALVES, HALVES, 1),
    "one of three classes is predicted": ("AX", "Matthews correlation", [0, 1, 2] * 7, [2] * 21, 0),
    "one item": ("CoLA", "Matthews correlation", [1], [1], 0),
    "no positive predicted": ("MRPC", "F1", HALVES, [0] * 20, 0),
    "no positive present": ("MRPC", "F1", [0] * 20, HALVES, 0),
    "no positive in either": ("MRPC", "F1", [0] * 20, [0] * 20, 0),
    "only positives in both": ("MRPC", "F1", [1] * 20, [1] * 20, 1),
    "a constant score": ("STS-B", "Pearson correlation", list(range(20)), [3] * 20, 0),
    "a perfect score": ("STS-B", "Spearman correlation", list(range(20)), list(range(20)), 1),
    "two scores": ("STS-B", "Pearson correlation", [0, 1], [1, 2], 1),
}


UNKNOWN = {"one class in both", "one item", "no positive in either"}
"""Cases in which more of the same items say nothing more about the metric."""


@pytest.mark.parametrize("case", DEGENERATE)
def test_degenerate_items_have_an_interval_without_false_certainty(case):
    *arguments, labels, predicted, value = DEGENERATE[case]
    low, measured, high = interval(*arguments, labels, predicted)
    assert measured == pytest.approx(value) and high - low > 0.05
    low_of_more, _, high_of_more = interval(*arguments, labels * 50, predicted * 50)
    if case in UNKNOWN:
        assert high_of_more - low_of_more > 0.9
    else:
        assert high_of_more - low_of_more < (high - low) / 2


def test_samples_without_the_rare_class_are_not_counted_as_zero():
    labels, predicted = [1] + [0] * 19, [1] + [0] * 19
    for name, metric in (("CoLA", "Matthews correlation"), ("MRPC", "F1")):
        low, value, high = interval(name, metric, labels, predicted)
        assert value == high == 1 and 0.05 < low < 0.9  # a third of the samples lack class 1


def test_draws_of_confusion_matrices_agree_with_the_bootstrap_if_both_are_possible():
    generator = np.random.default_rng(0)
    labels = generator.integers(2, size=400).astype(float)
    predicted = np.where(generator.random(400) < 0.7, labels, 1 - labels)
    for name in ("accuracy", "F1", "Matthews correlation"):
        ours = np.quantile(_confusion_draws(name, labels, predicted, 2, generator), [0.025, 0.975])
        bootstrap = np.quantile(bootstrap_draws(METRICS[name], (labels, predicted), 0), [0.025, 0.975])
        assert ours == pytest.approx(bootstrap, abs=0.02)


def test_an_average_over_constant_predictions_is_not_certain():
    constant = {
        name: [
            score(SETS_BY_NAME[name], metric, np.array(HALVES, dtype=float), np.ones(20), 0)
            for metric in SETS_BY_NAME[name].metrics
        ]
        for name in ("CoLA", "MRPC")
    }
    (row,) = average_result("GLUE", "model", constant, None)
    assert row.score["low"] < row.score["value"] < row.score["high"]


def test_the_difference_of_two_models_resamples_items_together():
    generator = np.random.default_rng(0)
    labels = generator.integers(2, size=300).astype(float)
    first = np.where(generator.random(300) < 0.9, labels, 1 - labels)
    second = np.where(generator.random(300) < 0.6, labels, 1 - labels)
    for name in ("F1", "Matthews correlation"):
        value, low, high = paired_metric_interval(name, labels, first, second, seed=1)
        assert value == pytest.approx(METRICS[name](labels, first) - METRICS[name](labels, second))
        assert 0 < low < value < high
        assert paired_metric_interval(name, labels, first, first, seed=1) == (0, 0, 0)


@pytest.mark.parametrize("name", ["F1", "Matthews correlation", "Pearson correlation"])
def test_the_difference_of_models_without_a_defined_metric_is_not_certain(name):
    labels, constant = np.array(HALVES, dtype=float), np.zeros(20)
    if name == "F1":
        labels = np.zeros(20)
    value, low, high = paired_metric_interval(name, labels, constant, constant, seed=0)
    assert value == 0 and low < -0.05 and high > 0.05
