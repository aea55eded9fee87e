"""Genres as declared against those that a classifier reads from the text.

- `GenreModel`, `fit_genres`: logistic regression of TF-IDF, one model per fold, trained on the documents of the others
- `genre_measures`: shares by prediction, agreement and confusion of a slice
- `genre_examples`: documents whose text reads most like another genre

A document is judged by the model of its fold, which never saw it. Documents of `unknown` genre train no model.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from stages.profile.analysis import Example, Measure
from stages.profile.coverage.document_sample import SampledDocument, stratified_interval
from stages.profile.coverage.terms import (
    count_terms,
    inverse_document_frequency,
    terms,
    tf_idf,
    without_convergence_warnings,
)

Floats = npt.NDArray[np.float64]
UNKNOWN = "unknown"
"""Genre of documents whose source declares none."""
FOLDS = 5
MIN_OF_GENRE = 20
"""Documents of the sample from which a genre can be learned."""
MAX_GENRES = 64
MOST_EXAMPLES = 5
MOST_CONFUSIONS = 40


class GenreModel(NamedTuple):
    """Classifiers of a corpus, one per fold."""

    vocabulary: list[str]
    idf: Floats
    """(terms,)."""
    genres: list[str]
    """Genres that the model knows."""
    folds: list[Any]
    """Fitted `LogisticRegression` for each fold."""

    def probabilities(self, documents: Sequence[SampledDocument]) -> Floats:
        """(documents, genres), each by the model of the document's fold."""
        table = _table(documents, self.vocabulary, self.idf)
        found = np.zeros((len(documents), len(self.genres)))
        folds = _folds(documents)
        for fold, model in enumerate(self.folds):
            rows = np.flatnonzero(folds == fold)
            if len(rows):
                columns = np.array([self.genres.index(genre) for genre in model.classes_])
                found[np.ix_(rows, columns)] = model.predict_proba(table[rows])
        return found


def _folds(documents: Sequence[SampledDocument]) -> npt.NDArray[np.int64]:
    return np.array([document.order % FOLDS for document in documents], dtype=np.int64)


def _table(documents: Sequence[SampledDocument], vocabulary: Sequence[str], idf: Floats) -> Any:
    return tf_idf(count_terms([terms(document.passage) for document in documents], vocabulary).counts, idf)


def fit_genres(documents: Sequence[SampledDocument]) -> GenreModel | None:
    """Classifiers of the genres that have `MIN_OF_GENRE` documents; None if these are fewer than two.

    Args:
        documents: a sample, in its random order.
    """
    from sklearn.linear_model import LogisticRegression

    counts = Counter(document.genre for document in documents if document.genre != UNKNOWN)
    genres = sorted(genre for genre, count in counts.most_common(MAX_GENRES) if count >= MIN_OF_GENRE)
    learned = [document for document in documents if document.genre in genres]
    if len(genres) < 2:
        return None
    counted = count_terms([terms(document.passage) for document in learned])
    idf = inverse_document_frequency(counted.counts)
    table, folds = tf_idf(counted.counts, idf), _folds(learned)
    declared = np.array([document.genre for document in learned])
    models = []
    for fold in range(FOLDS):
        if len(set(declared[folds != fold])) < 2:
            return None
        model = LogisticRegression(C=10.0, class_weight="balanced", max_iter=300)
        with without_convergence_warnings():
            models.append(model.fit(table[folds != fold], declared[folds != fold]))
    return GenreModel(counted.terms, idf, genres, models)


def genre_measures(model: GenreModel, documents: Sequence[SampledDocument], exact: bool) -> list[Measure]:
    """`genres.predicted` by genre; `genres.agreement`; `genres.confusion` by `declared -> predicted`.

    Agreement counts only documents whose declared genre the model knows. The shares of `genres.confusion` are of all
    documents of the slice, those that agree included.
    """
    if not documents:
        return []
    predicted = _predicted(model, documents)
    rows = [_share("genres.predicted", genre, predicted == genre, documents, exact) for genre in sorted({*predicted})]
    known = [index for index, document in enumerate(documents) if document.genre in model.genres]
    if known:
        agrees = np.array([predicted[index] == documents[index].genre for index in known])
        rows.append(_share("genres.agreement", None, agrees, [documents[index] for index in known], exact))
    pairs = np.array([f"{document.genre} -> {genre}" for document, genre in zip(documents, predicted, strict=True)])
    confusions = [_share("genres.confusion", pair, pairs == pair, documents, exact) for pair in sorted({*pairs})]
    return rows + sorted(confusions, key=lambda row: -row.value)[:MOST_CONFUSIONS]


def genre_examples(model: GenreModel, documents: Sequence[SampledDocument]) -> list[Example]:
    """Documents that the classifier is surest to be of another genre than declared."""
    if not documents:
        return []
    probabilities = model.probabilities(documents)
    best = probabilities.argmax(axis=1)
    found: list[Example] = []
    for index in np.argsort(-probabilities.max(axis=1), kind="stable"):
        document, genre = documents[index], model.genres[best[index]]
        if document.genre != genre and len(found) < MOST_EXAMPLES:
            found.append(Example("genres.confusion", f"{document.genre} -> {genre}", document.id, document.passage))
    return found


def _predicted(model: GenreModel, documents: Sequence[SampledDocument]) -> npt.NDArray[np.str_]:
    return np.array([model.genres[best] for best in model.probabilities(documents).argmax(axis=1)], dtype=np.str_)


def _share(
    measure: str, item: str | None, holds: npt.NDArray[np.bool_], documents: Sequence[SampledDocument], exact: bool
) -> Measure:
    interval = stratified_interval(holds, documents)
    return Measure(measure, interval.value, "share", item, interval.low, interval.high, exact)
