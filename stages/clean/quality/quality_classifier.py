"""Reference-like or web-like: a linear model over hashed words and word pairs, as fastText's (Joulin et al. 2017,
1607.01759) without its hidden layer, used as in GPT-3 (Brown et al. 2020, 2005.14165, A) and DCLM (Li et al. 2024,
2406.11794).

- `train`: weights from texts of both classes, by AdaGrad (Duchi et al. 2011) on the logistic loss
- `QualityClassifier`: the probability of a text
- `accuracy_and_auc`: accuracy and AUC on held-out texts
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from infra.workers.partitions import PartitionResult
from stages.common.compiled import compiled
from stages.common.word_hashes import PRIME, ngram_hashes, words

Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]

EPOCHS = 5
LEARNING_RATE = 0.5
PATH = "models/quality_classifier.arrow"


def features(text: str, bits: int) -> Indices:
    """Indices of the weights of a text's words and word bigrams: (2 x words - 1,) int64."""
    unigrams = words(np.frombuffer(text.encode(), dtype=np.uint8)).hashes
    hashes = np.concatenate((unigrams, ngram_hashes(unigrams, 2)))
    with np.errstate(over="ignore"):
        return ((hashes * PRIME) >> np.uint64(64 - bits)).astype(np.int64)


def train(texts: Sequence[str], is_reference: npt.NDArray[np.bool_], bits: int) -> Floats:
    """Train the weights: (2^bits + 1,) float32, the last is the bias.

    Args:
        texts: training texts in training order, both classes mixed.
        is_reference: (texts,) bool.
        bits: as in `QualityClassifierConfig.hash_bits`.
    """
    indices = [features(text, bits) for text in texts]
    offsets = np.cumsum([0, *map(len, indices)])
    share = is_reference.mean()
    importance = np.where(is_reference, 0.5 / share, 0.5 / (1 - share)).astype(np.float32)
    return _adagrad(np.concatenate(indices), offsets, is_reference.astype(np.float32), importance, (1 << bits) + 1)


@compiled
def _adagrad(indices: Indices, offsets: Indices, labels: Floats, importance: Floats, size: int) -> Floats:
    """Logistic regression on the mean of each text's weights; both classes have the same total weight."""
    weights = np.zeros(size, dtype=np.float32)
    squares = np.full(size, 1e-12, dtype=np.float32)
    for _ in range(EPOCHS):
        for text in range(len(labels)):
            begin, end = offsets[text], offsets[text + 1]
            logit = _logit(weights, indices[begin:end])
            gradient = importance[text] * (1 / (1 + np.exp(-logit)) - labels[text])
            squares[-1] += gradient * gradient
            weights[-1] -= LEARNING_RATE * gradient / np.sqrt(squares[-1])
            per_feature = gradient / max(1, end - begin)
            for index in indices[begin:end]:
                squares[index] += per_feature * per_feature
                weights[index] -= LEARNING_RATE * per_feature / np.sqrt(squares[index])
    return weights


@compiled
def _logit(weights: Floats, indices: Indices) -> float:
    total = 0.0
    for index in indices:
        total += weights[index]
    return float(total / max(1, len(indices)) + weights[-1])


@dataclass(frozen=True)
class QualityClassifier:
    """A trained classifier; picklable, its weights are loaded on first use."""

    trained: PartitionResult

    def probability(self, text: str) -> float:
        """Probability of being reference-like, 0 to 1, at equal priors."""
        return probability(self._weights, text)

    @cached_property
    def _weights(self) -> Floats:
        return np.asarray(self.trained.read_table(PATH)["weight"].to_numpy(), dtype=np.float32)


def probability(weights: Floats, text: str) -> float:
    """Probability under these weights, as `QualityClassifier.probability`."""
    bits = (len(weights) - 1).bit_length() - 1
    return float(1 / (1 + np.exp(-_logit(weights, features(text, bits)))))


def accuracy_and_auc(scores: npt.NDArray[Any], is_reference: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """Balanced accuracy at 0.5, and the area under the ROC curve (ties count half)."""
    correct = (scores >= 0.5) == is_reference
    accuracy = (correct[is_reference].mean() + correct[~is_reference].mean()) / 2
    above = (scores[is_reference][:, None] > scores[~is_reference]).mean()
    tied = (scores[is_reference][:, None] == scores[~is_reference]).mean()
    return float(accuracy), float(above + tied / 2)
