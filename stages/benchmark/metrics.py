"""The metrics of GLUE (Wang et al. 2019, 1804.07461, section 3); `METRICS` maps names to functions.

- `metric_draws`: draws of a metric for its interval, also if it is undefined on the items or on part of the samples
- `paired_metric_interval`: difference between two models on the same items
"""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from stages.common.statistics import Interval, bootstrap_draws, percentile_interval

Values = npt.NDArray[np.float64]
Statistic = Callable[[Values, Values], float]


def accuracy(labels: Values, predictions: Values) -> float:
    """Fraction of correct predictions."""
    return float((labels == predictions).mean())


def f1(labels: Values, predictions: Values) -> float:
    """2 TP / (2 TP + FP + FN) of class 1; 0 if class 1 is neither a label nor a prediction."""
    true_positives = float(((labels == 1) & (predictions == 1)).sum())
    positives = float((labels == 1).sum() + (predictions == 1).sum())
    return 2 * true_positives / positives if positives else 0.0


def matthews(labels: Values, predictions: Values) -> float:
    """Matthews correlation for two or more classes (R_K: Gorodkin 2004); 0 if labels or predictions are constant."""
    classes = np.union1d(labels, predictions)
    actual, predicted = (np.asarray(values)[:, None] == classes for values in (labels, predictions))
    correct, total = float((actual & predicted).sum()), float(len(actual))
    actual_counts, predicted_counts = actual.sum(0).astype(np.float64), predicted.sum(0).astype(np.float64)
    variance = (total**2 - (actual_counts**2).sum()) * (total**2 - (predicted_counts**2).sum())
    return float((correct * total - actual_counts @ predicted_counts) / np.sqrt(variance)) if variance else 0.0


def pearson(labels: Values, predictions: Values) -> float:
    """Linear correlation; 0 if labels or predictions are constant."""
    x, y = labels - labels.mean(), predictions - predictions.mean()
    norms = np.sqrt((x**2).sum() * (y**2).sum())
    return float((x * y).sum() / norms) if norms else 0.0


def spearman(labels: Values, predictions: Values) -> float:
    """Pearson's correlation of the ranks; equal values share the mean of their ranks."""
    return pearson(_ranks(labels), _ranks(predictions))


def _ranks(values: Values) -> Values:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return np.asarray((ends - (counts - 1) / 2)[inverse], dtype=np.float64)


METRICS: Mapping[str, Statistic] = {
    "accuracy": accuracy,
    "F1": f1,
    "Matthews correlation": matthews,
    "Pearson correlation": pearson,
    "Spearman correlation": spearman,
}

RESAMPLES = 1000
PRIOR = 0.5
"""Items added to every cell of a confusion matrix: Jeffreys' prior."""


def metric_draws(name: str, labels: Values, predictions: Values, classes: int, seed: int) -> Values:
    """Draws of a metric, float64 (1000,), whose central 95 % are its interval.

    They are bootstrap samples over the items. If every sample has the same value, or the metric is undefined on one
    (0 / 0: Matthews and correlations of constant labels or predictions, F1 without class 1 in either), the bootstrap
    would claim certainty or count a convention as a measurement. The draws are then those of a posterior:

    - accuracy, F1, Matthews: the confusion matrix is Dirichlet with Jeffreys' prior of half an item per cell (for F1
      Goutte & Gaussier 2005; for Matthews Toetsch & Hoffmann 2021, PeerJ CS 7:e398)
    - correlations: Fisher's z is normal with variance 1 / (items - 3); uniform from -1 to 1 for up to 3 items

    Args:
        name: key of `METRICS`.
        labels: class indices or scores, (items,).
        predictions: the same, (items,).
        classes: number of classes that labels and predictions can have; 0 for scores.
        seed: seed of the draws; metrics of the same items with the same seed see the same bootstrap samples.
    """

    def statistic(labels: Values, predictions: Values) -> float:
        return METRICS[name](labels, predictions) if _is_defined(name, labels, predictions) else math.nan

    draws = bootstrap_draws(statistic, (labels, predictions), seed, RESAMPLES)
    if not np.isnan(draws).any() and (draws != draws[0]).any():
        return draws
    generator = np.random.default_rng(seed)
    if _is_correlation(name):
        return _fisher_draws(METRICS[name](labels, predictions), len(labels), generator)
    return _confusion_draws(name, labels, predictions, max(classes, 2), generator)


def _is_defined(name: str, labels: Values, predictions: Values) -> bool:
    if name == "accuracy":
        return True
    if name == "F1":
        return bool((labels == 1).any() or (predictions == 1).any())
    return bool((labels != labels[0]).any() and (predictions != predictions[0]).any())


def paired_metric_interval(name: str, labels: Values, first: Values, second: Values, seed: int) -> Interval:
    """A metric of `first` minus that of `second` on the same items, with its interval.

    Items are resampled together. Where the metric of either is undefined on a sample, as in `metric_draws`, the draws
    are those of the posterior: of the joint counts of labels and both predictions, whose prior is half an item per cell
    of each confusion matrix, or of two independent correlations.
    """
    difference = METRICS[name](labels, first) - METRICS[name](labels, second)

    def statistic(labels: Values, first: Values, second: Values) -> float:
        defined = _is_defined(name, labels, first) and _is_defined(name, labels, second)
        return METRICS[name](labels, first) - METRICS[name](labels, second) if defined else math.nan

    draws = bootstrap_draws(statistic, (labels, first, second), seed, RESAMPLES)
    if np.isnan(draws).any():
        generator = np.random.default_rng(seed)
        if _is_correlation(name):
            both = [_fisher_draws(METRICS[name](labels, side), len(labels), generator) for side in (first, second)]
            draws = both[0] - both[1]
        else:
            classes = max(2, int(max(side.max() for side in (labels, first, second))) + 1)
            shares = _dirichlet_shares((labels, first, second), classes, PRIOR / classes, generator)
            draws = _of_confusions(name, shares.sum(3)) - _of_confusions(name, shares.sum(2))
    interval = percentile_interval(difference, draws)
    return Interval(difference, min(interval.low, difference), max(interval.high, difference))


def _is_correlation(name: str) -> bool:
    return name in ("Pearson correlation", "Spearman correlation")


def _confusion_draws(
    name: str, labels: Values, predictions: Values, classes: int, generator: np.random.Generator
) -> Values:
    """A metric of confusion matrices drawn from their posterior."""
    if name == "accuracy":
        correct = float((labels == predictions).sum())
        return generator.beta(correct + PRIOR, len(labels) - correct + PRIOR, RESAMPLES)
    return _of_confusions(name, _dirichlet_shares((labels, predictions), classes, PRIOR, generator))


def _dirichlet_shares(columns: Sequence[Values], classes: int, prior: float, generator: np.random.Generator) -> Values:
    """Shares of the items in every combination of classes, drawn from their posterior: (draws, classes, ...)."""
    counts = np.zeros((classes,) * len(columns))
    np.add.at(counts, tuple(column.astype(int) for column in columns), 1)
    return generator.dirichlet(counts.ravel() + prior, RESAMPLES).reshape(-1, *counts.shape)


def _of_confusions(name: str, shares: Values) -> Values:
    """F1 or Matthews correlation of confusion matrices (draws, label, prediction) of shares."""
    actual, predicted, correct = shares.sum(2), shares.sum(1), np.trace(shares, axis1=1, axis2=2)
    if name == "F1":
        return np.asarray(2 * shares[:, 1, 1] / (actual[:, 1] + predicted[:, 1]))
    variance = (1 - (actual**2).sum(1)) * (1 - (predicted**2).sum(1))
    return np.asarray((correct - (actual * predicted).sum(1)) / np.sqrt(variance))


def _fisher_draws(correlation: float, items: int, generator: np.random.Generator) -> Values:
    """Correlations by Fisher's z; a correlation of 1 or -1 has no z and is moved by half an item's share."""
    if items <= 3:
        return generator.uniform(-1, 1, RESAMPLES)
    limit = 1 - 1 / (2 * items)
    center = math.atanh(min(max(correlation, -limit), limit))
    return np.asarray(np.tanh(center + generator.normal(size=RESAMPLES) / math.sqrt(items - 3)))
