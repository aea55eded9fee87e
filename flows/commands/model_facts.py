"""What a store knows about a run's model: what it was made from, on which text, with which scores."""

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq

from data_schemas.artifact_kinds import CORPUS
from data_schemas.errors import NotFoundError
from data_schemas.manifest import ArtifactRef, Manifest, RunRecord
from infra.store.artifacts import Artifact, ArtifactStore
from modeling.transformer_config import TransformerConfig

if TYPE_CHECKING:
    from modeling.transformer import Transformer

_BENCHMARK_INPUTS = {"pretrain": ("model", "pretrained"), "compress": ("compressed", "compressed")}
"""Stage of a model -> its input of the benchmark stage and its name in the scores."""


@dataclass(frozen=True)
class ModelFacts:
    """What is known about a model."""

    record: RunRecord
    manifest: Manifest
    config: TransformerConfig
    replaced: Counter[str]
    """Kinds of the modules that compression put in other modules' places -> how many."""
    lineage: list[tuple[ArtifactRef, Manifest | None]]
    """The model's artifact and all it was made from, nearest first; without manifest what is gone from the store."""
    sources: Counter[tuple[str, str, str]]
    """(source, licence, language) of the training text -> documents; empty strings where unknown."""
    scores: list[dict[str, Any]]
    """Rows of the SCORES schema about this model."""

    @classmethod
    def collect(cls, store_url: str, record: RunRecord, artifact: Artifact, model: "Transformer") -> "ModelFacts":
        """Look up everything in the store."""
        from modeling.replacements import replacements_of

        store = ArtifactStore(store_url)
        line = _lineage(store, artifact)
        corpus = next((one for _, one in line if one and one.manifest.kind == CORPUS.name), None)
        return cls(
            record=record,
            manifest=artifact.manifest,
            config=model.config,
            replaced=Counter(description["kind"] for description in replacements_of(model).values()),
            lineage=[(ref, one.manifest if one else None) for ref, one in line],
            sources=_sources(corpus) if corpus else Counter(),
            scores=_scores(store, record, artifact),
        )

    @property
    def parameters(self) -> int:
        """Of a compressed model those that were counted behind the last pass."""
        passes = self.manifest.metrics.get("passes", [])
        return int((passes[-1] if passes else {}).get("parameters", self.manifest.volume.parameters))

    def made_by(self, stage: str) -> Manifest | None:
        """The manifest of a stage that the model was made from, or its own."""
        return next((one for _, one in self.lineage if one and one.stage == stage), None)


def _lineage(store: ArtifactStore, artifact: Artifact) -> list[tuple[ArtifactRef, Artifact | None]]:
    found: dict[str, tuple[ArtifactRef, Artifact | None]] = {}
    waiting = [artifact.ref]
    while waiting:
        ref = waiting.pop(0)
        if ref.label in found:
            continue
        try:
            opened = store.open(ref)
        except NotFoundError:
            found[ref.label] = ref, None
            continue
        found[ref.label] = ref, opened
        waiting += opened.manifest.inputs.values()
    return list(found.values())


def _sources(corpus: Artifact) -> Counter[tuple[str, str, str]]:
    counted: Counter[tuple[str, str, str]] = Counter()
    columns = ["source", "licence", "language"]
    for path in corpus.paths("train/*.parquet"):
        with corpus.open(path) as file:
            table = pq.read_table(file, columns=columns)
        for row in table.group_by(columns).aggregate([([], "count_all")]).to_pylist():
            counted[row["source"], row["licence"] or "", row["language"] or ""] += row["count_all"]
    return counted


def _scores(store: ArtifactStore, record: RunRecord, artifact: Artifact) -> list[dict[str, Any]]:
    """Of the run's benchmark, if it measured this very model."""
    name, model = _BENCHMARK_INPUTS[artifact.manifest.stage]
    try:
        benchmark = store.open(record.stages["benchmark"].artifact)
    except (KeyError, NotFoundError):
        return []
    measured = benchmark.manifest.inputs.get(name)
    if measured is None or measured.digest != artifact.manifest.digest:
        return []
    return [row for row in benchmark.read_table("scores.parquet").to_pylist() if row["model"] == model]
