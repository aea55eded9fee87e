"""Topics, genres by prediction and keywords: what is learned from a sample of documents.

- `SampledDocuments`: the analysis; its models are those of the whole corpus, so that slices can be compared
"""

from collections.abc import Sequence

import pyarrow as pa

from stages.profile.analysis import Analysis, Example, Measure, State
from stages.profile.coverage.document_sample import DocumentSample, is_whole, sampled
from stages.profile.coverage.genres import GenreModel, fit_genres, genre_examples, genre_measures
from stages.profile.coverage.keywords import Background, fit_background, keyword_measures
from stages.profile.coverage.topics import TopicModel, fit_topics, topic_examples, topic_measures


class Models:
    """Models learned from a corpus; `None` if it is too small."""

    def __init__(self, state: State, topics: int | None) -> None:
        documents = sampled(state)
        self.topics: TopicModel | None = fit_topics(documents, topics)
        self.genres: GenreModel | None = fit_genres(documents)
        self.background: Background = fit_background(documents)


class SampledDocuments(Analysis):
    """Figures of sampled documents.

    Args:
        sample: which documents are kept.
        topics: number of topics; if omitted, it follows from the number of documents.
        models: of the whole corpus; without them nothing is measured.
    """

    name = "sampled_documents"
    is_fitted = True

    def __init__(self, sample: DocumentSample, topics: int | None = None, models: Models | None = None) -> None:
        self._sample = sample
        self._topics = topics
        self._models = models

    def empty(self) -> State:
        """No documents."""
        return self._sample.empty()

    def add(self, state: State, documents: pa.RecordBatch) -> State:
        """State with more documents."""
        return self._sample.add(state, documents)

    def merge(self, first: State, second: State) -> State:
        """State of the documents of both."""
        return self._sample.merge(first, second)

    def fitted(self, whole: State) -> "SampledDocuments":
        """The analysis with the models of a corpus, from the state of all its documents."""
        return SampledDocuments(self._sample, self._topics, Models(whole, self._topics))

    def measures(self, state: State) -> Sequence[Measure]:
        """`topics.*`, `genres.*`, `keywords.*`; `.read` of each: documents of the sample."""
        if self._models is None:
            return []
        documents, exact = sampled(state), is_whole(state)
        rows = {"keywords": keyword_measures(self._models.background, documents)}
        if self._models.genres:
            rows = {"genres": genre_measures(self._models.genres, documents, exact), **rows}
        if self._models.topics:
            rows = {"topics": topic_measures(self._models.topics, documents, exact), **rows}
        read = {family: Measure(f"{family}.read", len(documents), "documents") for family in rows}
        return [row for family, own in rows.items() if own for row in (read[family], *own)]

    def examples(self, state: State) -> Sequence[Example]:
        """Documents of each topic, and of genres that read like others."""
        if self._models is None:
            return []
        documents = sampled(state)
        topics = topic_examples(self._models.topics, documents) if self._models.topics else []
        return topics + (genre_examples(self._models.genres, documents) if self._models.genres else [])
