"""The models of the clean stage: trained on samples of the corpus that the rules kept, then asked about every document.

- `Models`: quality and perplexity of one text
- `train_models`: the models that the config asks for
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from data_schemas.errors import InputDataError
from infra.store.artifacts import Artifact, ArtifactWriter
from infra.workers.partitions import Partition, PartitionMap, PartitionResult, PartitionWriter
from stages.clean.config import PerplexityConfig, QualityClassifierConfig
from stages.clean.quality import quality_classifier, trigram_model
from stages.clean.quality.quality_classifier import QualityClassifier
from stages.clean.quality.sampling import CleanText, Draw, draw_documents, sampled
from stages.clean.quality.trigram_model import TrigramModel

LEAST_DOCUMENTS = 20
HELD_OUT = 10
"""One in so many of the sampled documents tests the classifier."""
BUCKETS = ("perplexity_head", "perplexity_middle", "perplexity_tail")


@dataclass(frozen=True)
class Models:
    """What was trained; picklable."""

    classifier: QualityClassifier | None = None
    language_model: TrigramModel | None = None
    bucket_ends: tuple[float, float] = (0.0, 0.0)
    """Perplexities where head and middle end."""

    def quality(self, text: str) -> float | None:
        """Probability of being reference-like; None without a classifier."""
        return self.classifier.probability(text) if self.classifier else None

    def perplexity(self, text: str) -> float | None:
        """Under the model of the reference text; None without one."""
        return self.language_model.perplexity(text) if self.language_model else None

    def bucket(self, perplexity: float) -> str:
        """The tag of CCNet's head, middle or tail."""
        return BUCKETS[sum(perplexity > end for end in self.bucket_ends)]


def train_models(
    classifier: QualityClassifierConfig | None,
    perplexity: PerplexityConfig | None,
    documents: Artifact,
    clean_text: CleanText,
    partitions: PartitionMap,
    files: list[Partition],
    out: ArtifactWriter,
) -> Models:
    """Sample, clean and learn; the models become part of the artifact, and how good they are of its metrics.

    Raises:
        InputDataError: where a genre or source is unknown, or too few documents are left to learn from.
    """
    draws = [*_classifier_draws(classifier), *_perplexity_draws(perplexity)]
    if not draws:
        return Models()
    samples = draw_documents(draws, documents, clean_text, partitions, files)
    models = Models()
    if classifier:
        train = partial(train_classifier_partition, classifier, samples)
        (result,) = partitions.map("quality_classifier", train, [Partition("model", None)])
        result.adopt_into(out)
        out.metrics["quality_classifier"] = _said(result, quality_classifier.PATH)
        models = Models(QualityClassifier(result))
    if perplexity:
        (result,) = partitions.map(
            "perplexity", partial(fit_partition, perplexity, samples), [Partition("model", None)]
        )
        result.adopt_into(out)
        said = out.metrics["perplexity"] = _said(result, trigram_model.path(1))
        models = Models(models.classifier, TrigramModel(result), (said["head_ends"], said["middle_ends"]))
    return models


def _classifier_draws(config: QualityClassifierConfig | None) -> list[Draw]:
    if config is None:
        return []
    kinds = {"reference": config.reference, "web": config.web}
    return [
        Draw(f"clean.quality_classifier.{kind}", config.documents_per_class, frozenset(names))
        for kind, names in kinds.items()
    ]


def _perplexity_draws(config: PerplexityConfig | None) -> list[Draw]:
    if config is None:
        return []
    return [
        Draw("clean.perplexity.reference", config.documents, frozenset(config.reference)),
        Draw("clean.perplexity", 2 * config.documents),  # as many again, for those that are in both
    ]


def train_classifier_partition(
    config: QualityClassifierConfig, samples: list[PartitionResult], payload: None, out: PartitionWriter
) -> None:
    """Learn from nine tenths of both samples, and be tested by the others.

    Args:
        config: its settings.
        samples: from `draw_documents`.
        payload: nothing; it is one partition.
        out: gets the model.
    """
    keys, texts, labels = [], [], []
    for draw in _classifier_draws(config):
        found = sampled(samples, draw.name)
        _check_enough(draw.name, len(found[1]))
        keys.append(found[0])
        texts += found[1]
        labels += [draw.name.endswith("reference")] * len(found[1])
    order = np.argsort(np.concatenate(keys), kind="stable")
    texts, is_reference = [texts[at] for at in order], np.array(labels)[order]
    tested = np.concatenate(keys)[order] % HELD_OUT == 0
    tested &= _leaves_both(tested, is_reference)
    learnt = [text for text, held_out in zip(texts, tested, strict=True) if not held_out]
    weights = quality_classifier.train(learnt, is_reference[~tested], config.hash_bits)
    said = {"reference": float(is_reference.sum()), "web": float((~is_reference).sum())}
    if tested.any():
        scores = np.array([quality_classifier.probability(weights, texts[at]) for at in np.flatnonzero(tested)])
        said["accuracy"], said["auc"] = quality_classifier.accuracy_and_auc(scores, is_reference[tested])
    out.write_table(quality_classifier.PATH, _with_figures(pa.table({"weight": weights}), said))


def _leaves_both(tested: Any, is_reference: Any) -> bool:
    """True where both kinds are on both sides: of very few documents, chance may hold out none of a kind."""
    return all((side & kind).any() for side in (tested, ~tested) for kind in (is_reference, ~is_reference))


def fit_partition(
    config: PerplexityConfig, samples: list[PartitionResult], payload: None, out: PartitionWriter
) -> None:
    """Learn from the reference's sample, and place the buckets by the sample of everything that is not in it.

    Args:
        config: its settings.
        samples: from `draw_documents`.
        payload: nothing; it is one partition.
        out: gets the model's tables.
    """
    keys, texts = sampled(samples, "clean.perplexity.reference")
    _check_enough("clean.perplexity.reference", len(texts))
    tables = trigram_model.fit(texts)
    other_keys, others = sampled(samples, "clean.perplexity")
    learnt = set(keys.tolist())
    model = {order: trigram_model.NgramTable(table) for order, table in tables.items()}
    found = [trigram_model.perplexity(model, text) for key, text in zip(other_keys.tolist(), others, strict=True)
             if key not in learnt]  # fmt: skip
    found = sorted(value for value in found if np.isfinite(value))
    _check_enough("clean.perplexity, documents outside the reference's sample", len(found))
    head, middle = (found[int(len(found) * share / 100)] for share in config.percentiles)
    said = {"documents": float(len(texts)), "head_ends": head, "middle_ends": middle}
    for order, table in tables.items():
        out.write_table(trigram_model.path(order), _with_figures(table, said if order == 1 else {}))


def _check_enough(what: str, documents: int) -> None:
    if documents < LEAST_DOCUMENTS:
        raise InputDataError(
            f"{what}: the rules left {documents} documents to learn from, at least {LEAST_DOCUMENTS} are needed; name "
            "more genres or sources, or loosen the limits under clean.rules"
        )


def _with_figures(table: pa.Table, said: dict[str, float]) -> pa.Table:
    """The table with figures in its schema's metadata."""
    return table.replace_schema_metadata({name: repr(value) for name, value in said.items()})


def _said(result: PartitionResult, path: str) -> dict[str, float]:
    metadata = result.read_table(path).schema.metadata or {}
    return {name.decode(): float(value) for name, value in metadata.items()}
