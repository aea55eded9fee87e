"""Facts about a run's model from the manifests in the store: lineage, training text, scores."""

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
    """Facts about a model; empty if no manifest records them."""

    record: RunRecord
    manifest: Manifest
    config: TransformerConfig
    replaced: Counter[str]
    """Kind of the modules that compression replaced others by -> count."""
    lineage: list[tuple[ArtifactRef, Manifest | None]]
    """The model's artifact and its inputs, nearest first; the manifest is None if it is gone from the store."""
    sources: Counter[tuple[str, str, str]]
    """(source, licence, language) of the training text -> documents; unknown values are empty."""
    scores: list[dict[str, Any]]
    """Rows of the SCORES schema about this model."""

    @classmethod
    def collect(cls, store_url: str, record: RunRecord, artifact: Artifact, model: "Transformer") -> "ModelFacts":
        """Read the facts from the store."""
        from modeling.replacements import replacements_of

        store = ArtifactStore(store_url)
        line = _lineage(store, artifact)
        corpus = next((item for _, item in line if item and item.manifest.kind == CORPUS.name), None)
        return cls(
            record=record,
            manifest=artifact.manifest,
            config=model.config,
            replaced=Counter(description["kind"] for description in replacements_of(model).values()),
            lineage=[(ref, item.manifest if item else None) for ref, item in line],
            sources=_sources(corpus) if corpus else Counter(),
            scores=_scores(store, record, artifact),
        )

    @property
    def parameters(self) -> int:
        """Parameters; of a compressed model, after the last pass."""
        passes = self.manifest.metrics.get("passes", [])
        return int((passes[-1] if passes else {}).get("parameters", self.manifest.volume.parameters))

    def made_by(self, stage: str) -> Manifest | None:
        """The manifest of a stage in the model's lineage, its own included."""
        return next((manifest for _, manifest in self.lineage if manifest and manifest.stage == stage), None)


def _lineage(store: ArtifactStore, artifact: Artifact) -> list[tuple[ArtifactRef, Artifact | None]]:
    by_label: dict[str, tuple[ArtifactRef, Artifact | None]] = {}
    pending = [artifact.ref]
    while pending:
        ref = pending.pop(0)
        if ref.label in by_label:
            continue
        try:
            opened = store.open(ref)
        except NotFoundError:
            by_label[ref.label] = ref, None
            continue
        by_label[ref.label] = ref, opened
        pending += opened.manifest.inputs.values()
    return list(by_label.values())


def _sources(corpus: Artifact) -> Counter[tuple[str, str, str]]:
    documents: Counter[tuple[str, str, str]] = Counter()
    columns = ["source", "licence", "language"]
    for path in corpus.paths("train/*.parquet"):
        with corpus.open(path) as file:
            table = pq.read_table(file, columns=columns)
        for row in table.group_by(columns).aggregate([([], "count_all")]).to_pylist():
            documents[row["source"], row["licence"] or "", row["language"] or ""] += row["count_all"]
    return documents


def _scores(store: ArtifactStore, record: RunRecord, artifact: Artifact) -> list[dict[str, Any]]:
    """Scores of the run's benchmark, if it measured this artifact."""
    name, model = _BENCHMARK_INPUTS[artifact.manifest.stage]
    try:
        benchmark = store.open(record.stages["benchmark"].artifact)
    except (KeyError, NotFoundError):
        return []
    measured = benchmark.manifest.inputs.get(name)
    if measured is None or measured.digest != artifact.manifest.digest:
        return []
    return [row for row in benchmark.read_table("scores.parquet").to_pylist() if row["model"] == model]
