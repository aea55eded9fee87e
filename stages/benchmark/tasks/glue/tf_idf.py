"""Text classification without a network: TF-IDF and a linear model of scikit-learn.

- `tf_idf_predictions`: predictions for texts or pairs of texts, after training

Words and word bigrams are weighted by 1 + log of their count times the inverse document frequency. The features of a
pair of texts are both vectors, their absolute difference and their product, concatenated.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from data_schemas.errors import InputDataError
from stages.benchmark.metrics import Values

if TYPE_CHECKING:
    from sklearn.feature_extraction.text import TfidfVectorizer

NAME = "TF-IDF + logistic regression"
REGRESSION_NAME = "TF-IDF + ridge regression"
PROTOCOL = "TF-IDF of words and pairs of words, a linear model of scikit-learn"
ITERATIONS = 1_000


def tf_idf_predictions(
    training: Sequence[Sequence[str]], targets: Values, items: Sequence[Sequence[str]], regression: bool
) -> Values:
    """Predictions (items,): by logistic regression with C = 1, or by ridge regression with alpha = 1.

    Args:
        training: texts of each training item, all with one or all with two.
        targets: (training,), class indices, or scores.
        items: texts of each item to predict.
        regression: whether targets are scores.

    Raises:
        InputDataError: if the training texts contain no words of two letters or more.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression, Ridge

    if not regression and len(np.unique(targets)) == 1:
        return np.full(len(items), targets[0])
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    try:
        vectorizer.fit([text for texts in training for text in texts])
    except ValueError as error:
        raise InputDataError(
            f"the training texts of {NAME} contain no words of two letters or more ({error}); the first text is "
            f"{training[0][0][:60]!r}"
        ) from error
    model = Ridge(alpha=1.0) if regression else LogisticRegression(C=1.0, max_iter=ITERATIONS)
    model.fit(_vectors(vectorizer, training), targets)
    return np.asarray(model.predict(_vectors(vectorizer, items)), dtype=np.float64)


def _vectors(vectorizer: "TfidfVectorizer", items: Sequence[Sequence[str]]) -> Any:
    """Sparse (items, features)."""
    from scipy.sparse import hstack

    first, *others = (vectorizer.transform(texts) for texts in zip(*items, strict=True))
    if not others:
        return first
    (second,) = others
    return hstack([first, second, abs(first - second), first.multiply(second)], format="csr")
