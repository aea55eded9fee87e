"""The metrics of GLUE (Wang et al. 2019, 1804.07461, section 3).

- `METRICS`: name -> statistic of (labels, predictions)
"""

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]
Statistic = Callable[[Values, Values], float]


def accuracy(labels: Values, predictions: Values) -> float:
    """Share of right predictions."""
    return float((labels == predictions).mean())


def f1(labels: Values, predictions: Values) -> float:
    """2 true positives / (2 true positives + false ones), of class 1; 0 where there is none."""
    right = float(((labels == 1) & (predictions == 1)).sum())
    positives = float((labels == 1).sum() + (predictions == 1).sum())
    return 2 * right / positives if positives else 0.0


def matthews(labels: Values, predictions: Values) -> float:
    """Matthews correlation, for two classes or more (R_K: Gorodkin 2004); 0 where labels or predictions are all one."""
    classes = np.union1d(labels, predictions)
    truth, guess = (np.asarray(values)[:, None] == classes for values in (labels, predictions))
    right, total = float((truth & guess).sum()), float(len(truth))
    truths, guesses = truth.sum(0).astype(np.float64), guess.sum(0).astype(np.float64)
    spread = (total**2 - (truths**2).sum()) * (total**2 - (guesses**2).sum())
    return float((right * total - truths @ guesses) / np.sqrt(spread)) if spread else 0.0


def pearson(labels: Values, predictions: Values) -> float:
    """Linear correlation; 0 where labels or predictions do not vary."""
    one, other = labels - labels.mean(), predictions - predictions.mean()
    spread = np.sqrt((one**2).sum() * (other**2).sum())
    return float((one * other).sum() / spread) if spread else 0.0


def spearman(labels: Values, predictions: Values) -> float:
    """Pearson's correlation of the ranks; equal values share the mean of their ranks."""
    return pearson(_ranks(labels), _ranks(predictions))


def _ranks(values: Values) -> Values:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return np.asarray((ends - (counts - 1) / 2)[place], dtype=np.float64)


METRICS: Mapping[str, Statistic] = {
    "accuracy": accuracy,
    "F1": f1,
    "Matthews correlation": matthews,
    "Pearson correlation": pearson,
    "Spearman correlation": spearman,
}
