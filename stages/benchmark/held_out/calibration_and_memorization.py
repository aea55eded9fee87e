"""Language modeling metrics besides bits per byte: calibration, memorization, and bits per byte by genre.

- `score_language_modeling`: calibration and memorization of one network
- `by_genre`: bits per byte of each genre, from existing results
- `calibration`: expected calibration error of the most likely next token
- `memorization`: fraction of documents continued verbatim, for training and for held-out text
- `training_sample`: training documents for `memorization`
"""

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from infra.store.artifacts import Artifact
from modeling.decoding.generation import generate_batch
from modeling.evaluation.bits_per_byte import TopPredictions, top_predictions
from modeling.evaluation.through_cache import scoring_decoder
from modeling.transformer import Transformer
from stages.benchmark.held_out.documents import BATCH_TOKENS, HeldOutDocument
from stages.benchmark.results import TaskResult, item_row, score_row
from stages.benchmark.task import EvaluatedModel
from stages.common.statistics import bootstrap_interval

Tokens = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

BINS = 15
"""Confidence bins, as in Guo et al. 2017."""
PREFIX_TOKENS = 32
"""Tokens of the prompt, and of the continuation that must match: Biderman et al. 2023, 2304.11158, sec. 3."""


@dataclass(frozen=True)
class TrainingText:
    """The beginning of a training document."""

    name: str
    tokens: Tokens


def score_language_modeling(
    model: EvaluatedModel,
    documents: Sequence[HeldOutDocument],
    training: Sequence[TrainingText],
    calibration_bytes: int,
    seed: int,
) -> list[TaskResult]:
    """Calibration on a sample of the held-out documents, and memorization of the training text."""
    order = np.random.default_rng(seed).permutation(len(documents))
    sizes = np.cumsum([documents[index].bytes for index in order])
    count = int(np.searchsorted(sizes, calibration_bytes)) + 1
    sample = [documents[index] for index in sorted(order[:count])]
    return [
        calibration(model.name, model.network, sample, model.end_of_text, seed),
        *memorization(model.name, model.network, training, documents, model.end_of_text, seed),
    ]


def by_genre(results: Sequence[TaskResult], documents: Sequence[HeldOutDocument], seed: int) -> list[TaskResult]:
    """Bits per byte of each genre, for every model and baseline with an item per document.

    Computed from the items of `results`. A genre of one document has no interval; a single genre gives no scores.
    """
    genres = {document.name: document.genre for document in documents}
    scores = []
    for result in results:
        if result.score["metric"] != "bits per byte" or len(set(genres.values())) < 2:
            continue
        for genre in sorted(set(genres.values())):
            items = [item for item in result.items if genres[item["item"]] == genre]
            if items:
                scores.append(
                    _ratio(result.score["task"], result.score["model"], f"bits per byte, {genre}", items, seed)
                )
    return scores


def calibration(
    name: str, model: Transformer, documents: Sequence[HeldOutDocument], end_of_text: int, seed: int
) -> TaskResult:
    """Expected calibration error of a network on held-out text; 0 is best.

    Guo et al. 2017, 1706.04599, eq. 3, with 15 bins of equal width: predictions are binned by the probability of the
    most likely next token (the confidence); the error is the mean over all tokens of the gap between a bin's mean
    confidence and its accuracy.

    An item is a document; its numerator is the sum of its tokens' gaps, each with the sign of its bin's gap over all
    documents, so that items add up to the score. The bootstrap resamples documents with these signs fixed: with signs
    of their own, noise could only increase the gaps of a resample, and the interval would lie above the score.
    """
    tokens = [document.tokens for document in documents]
    decoder = scoring_decoder(model)
    predictions = top_predictions(decoder, tokens, model.config.context_length, BATCH_TOKENS, end_of_text)
    gaps = _gaps(predictions, len(documents))
    counts = np.bincount(predictions.sequence, minlength=len(documents))
    signs = np.sign(gaps.sum(0))
    items = [
        item_row("held-out text", document.name, name, {"gaps": gap.tolist()}, float(gap @ signs), float(count))
        for document, gap, count in zip(documents, gaps, counts, strict=True)
        if count
    ]
    result = _ratio("held-out text", name, "expected calibration error", items, seed)
    low = result.score["low"]
    return TaskResult(result.score | {"low": low if low is None else max(0.0, low)}, items)


def _gaps(predictions: TopPredictions, documents: int) -> Floats:
    """Sum of (confidence - correct) of each document in each bin, float64 (documents, BINS)."""
    bins = np.clip(np.ceil(predictions.confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
    cells = predictions.sequence * BINS + bins
    gaps = np.bincount(cells, predictions.confidence - predictions.right, minlength=documents * BINS)
    return np.asarray(gaps, dtype=np.float64).reshape(documents, BINS)


def training_sample(tokens: Artifact, count: int, seed: int) -> list[TrainingText]:
    """A random sample of `count` documents of the training split that are long enough; fewer if there are fewer.

    Training on fewer tokens than the corpus contains may not have reached a sampled document.
    """
    generator = np.random.default_rng(seed)
    candidates: list[tuple[float, str, Tokens]] = []
    length = 2 * PREFIX_TOKENS
    for path in tokens.paths("train/*.arrow"):
        shard = tokens.read_table(path)
        # The end-of-text token that ends a document is not part of its text.
        long_enough = np.flatnonzero(pc.list_value_length(shard.column("tokens")).to_numpy() > length)
        keys = generator.random(len(long_enough))
        for index in np.argsort(keys)[:count]:
            row = int(long_enough[index])
            ids = np.asarray(shard.column("tokens")[row].values[:length].to_numpy(), dtype=np.int64)
            candidates.append((float(keys[index]), shard.column("document_id")[row].as_py(), ids))
    sample = heapq.nsmallest(count, candidates, key=lambda candidate: candidate[0])
    return [TrainingText(name, ids) for _, name, ids in sample]


def memorization(
    name: str,
    model: Transformer,
    training: Sequence[TrainingText],
    documents: Sequence[HeldOutDocument],
    end_of_text: int,
    seed: int,
) -> list[TaskResult]:
    """Fraction of documents whose first 32 tokens are continued verbatim for 32 tokens by greedy decoding.

    This is the extractable text of Carlini et al. (2202.07646, sec. 3.1) at the beginning of documents. The same
    fraction on an equal number of held-out documents shows the effect of boilerplate, without training on the document
    itself. With a context shorter than 64 tokens, prompt and continuation are half of the context each.

    Args:
        name: name of the model in the results.
        model: the network.
        training: training documents, from `training_sample`.
        documents: held-out documents.
        end_of_text: token before every document, as in training.
        seed: seed of the sample of held-out documents and of the bootstrap.

    Returns:
        A score for training text and a score for held-out text, each if any document is long enough.
    """
    length = min(PREFIX_TOKENS, model.config.context_length // 2)
    long_enough = [document for document in documents if len(document.tokens) >= 2 * PREFIX_TOKENS]
    sample = np.random.default_rng(seed).permutation(len(long_enough))[: len(training)]
    texts = {
        "training text": {text.name: text.tokens for text in training},
        "held-out text": {long_enough[index].name: long_enough[index].tokens for index in sorted(sample)},
    }
    return [
        _ratio(
            "memorization",
            name,
            f"{kind} continued verbatim",
            _continuation_items(name, model, tokens, length, end_of_text),
            seed,
        )
        for kind, tokens in texts.items()
        if tokens
    ]


def _continuation_items(
    name: str, model: Transformer, texts: Mapping[str, Tokens], length: int, end_of_text: int
) -> list[dict[str, Any]]:
    """An item per text: 1 if the `length` tokens after the first `length` are generated exactly, else 0."""
    names = list(texts)
    rows = max(1, BATCH_TOKENS // model.config.context_length)
    items = []
    for start in range(0, len(names), rows):
        batch = names[start : start + rows]
        prompts = [[end_of_text, *texts[item][:length].tolist()] for item in batch]
        continuations = generate_batch(model, prompts, length, temperature=0, top_k=0, seed=0)
        for item, generated in zip(batch, continuations, strict=True):
            expected = texts[item][length : 2 * length].tolist()
            verbatim = next((index for index in range(length) if generated[index] != expected[index]), length)
            output = {"prefix_tokens": length, "generated": generated, "verbatim_tokens": verbatim}
            items.append(item_row("memorization", item, name, output, float(verbatim == length), 1.0))
    return items


def _ratio(task: str, model: str, metric: str, items: list[dict[str, Any]], seed: int) -> TaskResult:
    """Ratio of the sums of items as a score, lower is better; without interval if there is one item."""
    numerators, denominators = ([item[name] for item in items] for name in ("numerator", "denominator"))
    interval = bootstrap_interval(numerators, denominators, seed)
    score = score_row(task, model, metric, interval, len(items), False)
    return TaskResult(score if len(items) > 1 else score | {"low": None, "high": None}, items)
