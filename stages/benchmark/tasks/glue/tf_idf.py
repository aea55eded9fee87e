"""Text classification without a network: TF-IDF and a linear model of scikit-learn.

- `tf_idf_predictions`: of texts or pairs of texts, after learning from others

Words and pairs of neighboring words are weighted by 1 + log of their count times the inverse document frequency. A
pair of texts is both vectors, their absolute difference and their product, side by side.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from data_schemas.errors import InputDataError
from stages.benchmark.metrics import Values

if TYPE_CHECKING:
    from sklearn.feature_extraction.text import TfidfVectorizer

NAME = "TF-IDF + logistic regression"
NAME_OF_SCALE = "TF-IDF + ridge regression"
PROTOCOL = "TF-IDF of words and pairs of words, a linear model of scikit-learn"
ITERATIONS = 1_000


def tf_idf_predictions(
    training: Sequence[Sequence[str]], targets: Values, asked: Sequence[Sequence[str]], of_scale: bool
) -> Values:
    """Predictions (asked,): by logistic regression with C = 1, or by ridge regression with alpha = 1.

    Args:
        training: texts of each item, one or two, as many everywhere.
        targets: (training,), classes by their places, or numbers of a scale.
        asked: texts of each item.
        of_scale: whether targets are numbers of a scale.

    Raises:
        InputDataError: where the training texts hold no words of two letters or more.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression, Ridge

    if not of_scale and len(np.unique(targets)) == 1:
        return np.full(len(asked), targets[0])
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    try:
        vectorizer.fit([text for texts in training for text in texts])
    except ValueError as error:
        raise InputDataError(
            f"the training texts of {NAME} hold no words of two letters or more ({error}); the first is "
            f"{training[0][0][:60]!r}"
        ) from error
    model = Ridge(alpha=1.0) if of_scale else LogisticRegression(C=1.0, max_iter=ITERATIONS)
    model.fit(_vectors(vectorizer, training), targets)
    return np.asarray(model.predict(_vectors(vectorizer, asked)), dtype=np.float64)


def _vectors(vectorizer: "TfidfVectorizer", items: Sequence[Sequence[str]]) -> Any:
    """Sparse (items, features)."""
    from scipy.sparse import hstack

    first, *others = (vectorizer.transform(texts) for texts in zip(*items, strict=True))
    if not others:
        return first
    (second,) = others
    return hstack([first, second, abs(first - second), first.multiply(second)], format="csr")
