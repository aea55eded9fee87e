"""Models of the clean stage: trained on samples of the documents that the rules kept, then applied to every document.

- `Models`: quality and perplexity of a text
- `train_models`: trains the configured models
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from data_schemas.errors import InputDataError
from infra.store.artifact_writer import ArtifactWriter
from infra.store.artifacts import Artifact
from infra.workers.partitions import Partition, PartitionMap, PartitionResult, PartitionWriter
from stages.clean.config import PerplexityConfig, QualityClassifierConfig
from stages.clean.quality import quality_classifier, trigram_model
from stages.clean.quality.quality_classifier import QualityClassifier
from stages.clean.quality.sampling import CleanText, Draw, draw_documents, sampled
from stages.clean.quality.trigram_model import TrigramModel

MIN_DOCUMENTS = 20
"""Minimum number of training documents."""
HELD_OUT = 10
"""One in ten sampled documents is held out to test the classifier."""
BUCKETS = ("perplexity_head", "perplexity_middle", "perplexity_tail")


@dataclass(frozen=True)
class Models:
    """The trained models; picklable."""

    classifier: QualityClassifier | None = None
    language_model: TrigramModel | None = None
    bucket_ends: tuple[float, float] = (0.0, 0.0)
    """Perplexities at the ends of head and middle."""

    def quality(self, text: str) -> float | None:
        """Probability of being reference-like; None without a classifier."""
        return self.classifier.probability(text) if self.classifier else None

    def perplexity(self, text: str) -> float | None:
        """Perplexity under the model of the reference text; None without a model."""
        return self.language_model.perplexity(text) if self.language_model else None

    def bucket(self, perplexity: float) -> str:
        """Tag of CCNet's head, middle or tail."""
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
    """Sample, clean and train; the models become part of the artifact, their figures part of its metrics.

    Raises:
        InputDataError: if a genre or source is unknown, or too few documents are left to train on.
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
        out.metrics["quality_classifier"] = _figures(result, quality_classifier.PATH)
        models = Models(QualityClassifier(result))
    if perplexity:
        (result,) = partitions.map(
            "perplexity", partial(fit_partition, perplexity, samples), [Partition("model", None)]
        )
        result.adopt_into(out)
        figures = out.metrics["perplexity"] = _figures(result, trigram_model.path(1))
        models = Models(models.classifier, TrigramModel(result), (figures["head_ends"], figures["middle_ends"]))
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
        Draw("clean.perplexity", 2 * config.documents),  # twice as many, as some are in both samples
    ]


def train_classifier_partition(
    config: QualityClassifierConfig, samples: list[PartitionResult], payload: None, out: PartitionWriter
) -> None:
    """Train the classifier on nine tenths of both samples and test it on the rest.

    Args:
        config: settings of the classifier.
        samples: results of `draw_documents`.
        payload: unused; there is a single partition.
        out: receives the model.
    """
    keys, texts, labels = [], [], []
    for draw in _classifier_draws(config):
        draw_keys, draw_texts = sampled(samples, draw.name)
        _check_enough(draw.name, len(draw_texts))
        keys.append(draw_keys)
        texts += draw_texts
        labels += [draw.name.endswith("reference")] * len(draw_texts)
    order = np.argsort(np.concatenate(keys), kind="stable")
    texts, is_reference = [texts[index] for index in order], np.array(labels)[order]
    held_out = np.concatenate(keys)[order] % HELD_OUT == 0
    held_out &= _both_splits_have_both_classes(held_out, is_reference)
    training_texts = [text for text, is_held_out in zip(texts, held_out, strict=True) if not is_held_out]
    weights = quality_classifier.train(training_texts, is_reference[~held_out], config.hash_bits)
    figures = {"reference": float(is_reference.sum()), "web": float((~is_reference).sum())}
    if held_out.any():
        scores = np.array([quality_classifier.probability(weights, texts[index]) for index in np.flatnonzero(held_out)])
        figures["accuracy"], figures["auc"] = quality_classifier.accuracy_and_auc(scores, is_reference[held_out])
    out.write_table(quality_classifier.PATH, _with_figures(pa.table({"weight": weights}), figures))


def _both_splits_have_both_classes(held_out: Any, is_reference: Any) -> bool:
    """With very few documents, chance may hold out none, or all, of a class; then none is held out."""
    return all((split & label).any() for split in (held_out, ~held_out) for label in (is_reference, ~is_reference))


def fit_partition(
    config: PerplexityConfig, samples: list[PartitionResult], payload: None, out: PartitionWriter
) -> None:
    """Fit the trigram model to the reference sample, and set the bucket boundaries by sampled documents outside it.

    Args:
        config: settings of the model.
        samples: results of `draw_documents`.
        payload: unused; there is a single partition.
        out: receives the model's tables.
    """
    keys, texts = sampled(samples, "clean.perplexity.reference")
    _check_enough("clean.perplexity.reference", len(texts))
    tables = trigram_model.fit(texts)
    other_keys, others = sampled(samples, "clean.perplexity")
    training_keys = set(keys.tolist())
    model = {order: trigram_model.NgramTable(table) for order, table in tables.items()}
    values = [trigram_model.perplexity(model, text) for key, text in zip(other_keys.tolist(), others, strict=True)
              if key not in training_keys]  # fmt: skip
    values = sorted(value for value in values if np.isfinite(value))
    _check_enough("clean.perplexity, documents outside the reference sample", len(values))
    head, middle = (values[int(len(values) * percent / 100)] for percent in config.percentiles)
    figures = {"documents": float(len(texts)), "head_ends": head, "middle_ends": middle}
    for order, table in tables.items():
        out.write_table(trigram_model.path(order), _with_figures(table, figures if order == 1 else {}))


def _check_enough(sample: str, documents: int) -> None:
    if documents < MIN_DOCUMENTS:
        raise InputDataError(
            f"{sample}: the rules kept {documents} documents to train on, at least {MIN_DOCUMENTS} are needed; name "
            "more genres or sources, or relax the limits under clean.rules"
        )


def _with_figures(table: pa.Table, figures: dict[str, float]) -> pa.Table:
    """The table with the model's figures in its schema's metadata."""
    return table.replace_schema_metadata({name: repr(value) for name, value in figures.items()})


def _figures(result: PartitionResult, path: str) -> dict[str, float]:
    metadata = result.read_table(path).schema.metadata or {}
    return {name.decode(): float(value) for name, value in metadata.items()}
