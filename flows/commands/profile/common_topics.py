"""Topics that two corpora have in common.

A profile learns its topics from its own corpus, so that those of two profiles are other topics. Here they are learned
from samples of both corpora together, and their shares are measured in each.

- `with_common_topics`: the figures of two profiles with common topics in place of their own
"""

from collections.abc import Mapping
from typing import Any

from flows.commands.profile.taken_out import batches, document_files
from flows.report.profile.figures import ALL, Figure, Figures
from infra.store.artifacts import Artifact

TOPICS = "topics.weight"


def with_common_topics(
    figures: tuple[Figures, Figures], corpora: tuple[Artifact, Artifact], coverage: Mapping[str, Any]
) -> tuple[Figures, Figures]:
    """Figures whose topics of the whole corpus are those of both corpora; as they are if there is too little text.

    Args:
        figures: figures of the two profiles.
        corpora: what they are profiles of.
        coverage: section `coverage` of the profiles' settings.
    """
    from stages.profile.coverage.document_sample import DocumentSample, is_whole, sampled
    from stages.profile.coverage.topics import fit_topics, topic_measures

    states = []
    for corpus in corpora:
        sample = DocumentSample(coverage["sampled_documents"], corpus.manifest.volume.documents or None)
        state = sample.empty()
        for path in document_files(corpus):
            for batch in batches(corpus, path, ["id", "genre", "language", "text"]):
                state = sample.add(state, batch)
        states.append(state)
    documents = {document.id: document for state in states for document in sampled(state)}
    model = fit_topics(sorted(documents.values()), coverage.get("topics"))
    if model is None:
        return figures
    first, second = (
        _replaced(side, [
            Figure(ALL, row.measure, row.item, row.value, row.low, row.high, row.unit, row.exact)
            for row in topic_measures(model, sampled(state), is_whole(state))
            if row.measure == TOPICS
        ])
        for side, state in zip(figures, states, strict=True)
    )  # fmt: skip
    return first, second


def _replaced(figures: Figures, topics: list[Figure]) -> Figures:
    own = (row for row in figures.rows if not (row.slice == ALL and row.measure.startswith("topics.")))
    return Figures((*own, *topics))
