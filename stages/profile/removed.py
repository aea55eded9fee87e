"""Documents that dedup removed or cut, by source and genre, from the funnel of the corpus."""

from collections import Counter

from data_schemas.tables import KEPT
from infra.store.artifacts import Artifact
from stages.profile.analysis import Measure
from stages.profile.slices import ALL, Slices


def removed(corpus: Artifact, slices: Slices) -> dict[str, list[Measure]]:
    """Slice (`all`, genres and sources) -> `removed.documents` by reason, and their share of the slice's documents.

    Documents of a synthesize stage are not in the funnel of dedup.
    """
    counts: dict[str, Counter[str]] = {}
    for path in corpus.paths("funnel/*.parquet"):
        for row in corpus.read_table(path).to_pylist():
            for name in (ALL, slices.name_of("genre", row["genre"]), slices.name_of("source", row["source"])):
                if name:
                    counts.setdefault(name, Counter())[row["fate"]] += row["documents"]
    return {name: _measures(fates) for name, fates in counts.items()}


def _measures(fates: Counter[str]) -> list[Measure]:
    total = fates.total()
    rows = [
        Measure("removed.documents", count, "documents", fate) for fate, count in sorted(fates.items()) if fate != KEPT
    ]
    return [Measure("removed.share", (total - fates[KEPT]) / total, "share"), *rows] if total else []
