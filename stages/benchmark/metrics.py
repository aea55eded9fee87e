"""The metrics of GLUE (Wang et al. 2019, 1804.07461, section 3); `METRICS` maps names to functions."""

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

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
