"""Topics: non-negative matrix factorization of TF-IDF (Lee & Seung 1999; Arora et al. 2012 on topics).

- `TopicModel`, `fit_topics`: topics of a sample, named by their words
- `topic_measures`: weight of each topic in a slice, with its interval
- `topic_examples`: the sampled document nearest to each topic
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from stages.profile.analysis import Example, Measure
from stages.profile.coverage.document_sample import SampledDocument, stratified_interval
from stages.profile.coverage.terms import (
    common_terms,
    count_terms,
    inverse_document_frequency,
    terms,
    tf_idf,
    without_convergence_warnings,
)

Floats = npt.NDArray[np.float64]
NAMING_WORDS = 6
COHERENCE_WORDS = 10
DOCUMENTS_PER_TOPIC = 15
"""Documents of the sample that a topic needs at least, on average."""
MOST_TOPICS = 24
"""Limit if the number is chosen."""
OTHER = "(none of the topics)"


class TopicModel(NamedTuple):
    """Topics of a corpus."""

    vocabulary: list[str]
    idf: Floats
    """(terms,)."""
    topics: Floats
    """(topics, terms), not negative."""
    names: list[str]
    """Words of each topic, heaviest first."""
    coherence: list[float]
    """Normalized pointwise mutual information of the first words of each topic, mean over pairs, -1 to 1."""

    def weights(self, documents: Sequence[SampledDocument]) -> Floats:
        """(documents, topics + 1) share of each topic in each document; the last column is what no topic explains.

        A document's share is that of its non-negative least squares fit, which is scaled to sum to 1.
        """
        from sklearn.decomposition import non_negative_factorization

        table = tf_idf(count_terms([terms(d.passage) for d in documents], self.vocabulary).counts, self.idf)
        with without_convergence_warnings():
            found, _, _ = non_negative_factorization(
                table, H=self.topics, n_components=len(self.topics), update_H=False, max_iter=500, tol=1e-6
            )
        sums = found.sum(axis=1, keepdims=True)
        shares = np.divide(found, sums, out=np.zeros_like(found), where=sums > 0)
        return np.column_stack([shares, sums[:, 0] <= 0])


def fit_topics(documents: Sequence[SampledDocument], topics: int | None = None) -> TopicModel | None:
    """Topics of the documents; None if there are too few to speak of topics.

    Args:
        documents: a sample, in its random order.
        topics: their number; if omitted, the square root of a quarter of the documents, up to `MOST_TOPICS`.
    """
    from sklearn.decomposition import NMF

    number = topics or min(MOST_TOPICS, round((len(documents) / 4) ** 0.5))
    number = min(number, len(documents) // DOCUMENTS_PER_TOPIC)
    listed = [terms(document.passage) for document in documents]
    common = common_terms(documents, listed)
    counted = count_terms([[term for term in row if term not in common] for row in listed])
    number = min(number, counted.counts.shape[1])
    if number < 2:
        return None
    idf = inverse_document_frequency(counted.counts)
    table = tf_idf(counted.counts, idf)
    model = NMF(number, init="nndsvda", random_state=0, max_iter=400, tol=1e-4, l1_ratio=0.5, alpha_W=0.0)
    with without_convergence_warnings():
        model.fit(table)
    loadings = model.components_
    order = np.argsort(-loadings, axis=1, kind="stable")
    names = [", ".join(counted.terms[term] for term in row[:NAMING_WORDS]) for row in order]
    coherence = [_coherence(counted.counts, row[:COHERENCE_WORDS]) for row in order]
    return TopicModel(counted.terms, idf, loadings, names, coherence)


def _coherence(counts: object, columns: npt.NDArray[np.int64]) -> float:
    """Mean normalized pointwise mutual information of pairs of terms over documents (Bouma 2009)."""
    having = np.asarray((counts[:, columns] > 0).todense(), dtype=np.float64)  # type: ignore[index]
    documents = len(having)
    joint = having.T @ having / documents
    single = np.diag(joint)
    values = []
    for first in range(len(columns)):
        for second in range(first):
            both = joint[first, second]
            if both >= 1:
                values.append(1.0)
            elif both > 0:
                values.append(float(np.log(both / (single[first] * single[second])) / -np.log(both)))
            else:
                values.append(-1.0)
    return float(np.mean(values)) if values else 0.0


def topic_measures(model: TopicModel, documents: Sequence[SampledDocument], exact: bool) -> list[Measure]:
    """`topics.weight`: mean share of each topic, heaviest first; `topics.coherence` of each."""
    if not documents:
        return []
    names = [*model.names, OTHER]
    intervals = [stratified_interval(column, documents) for column in model.weights(documents).T]
    rows = [
        Measure("topics.weight", interval.value, "share", name, interval.low, interval.high, exact)
        for name, interval in zip(names, intervals, strict=True)
    ]
    rows.sort(key=lambda row: -row.value)
    return rows + [
        Measure("topics.coherence", value, "npmi", name, exact=exact)
        for name, value in zip(model.names, model.coherence, strict=True)
    ]


def topic_examples(model: TopicModel, documents: Sequence[SampledDocument]) -> list[Example]:
    """For each topic the document that has most of it, and more of it than of any other."""
    examples = []
    weights = model.weights(documents)[:, :-1] if documents else np.zeros((0, 0))
    for topic, name in enumerate(model.names if len(weights) else ()):
        best = int(weights[:, topic].argmax())
        if weights[best, topic] > 0.5:
            examples.append(Example("topics.weight", name, documents[best].id, documents[best].passage))
    return examples
