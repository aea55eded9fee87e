"""Language modeling beside bits per byte: calibration, memorization, and the held-out score genre by genre.

- `score_language_modeling`: calibration and memorization of one network
- `by_genre`: bits per byte of each genre, from scores that are there already
- `calibration`: expected calibration error of the likeliest next token
- `memorization`: how often text is continued verbatim, training text beside held-out text
- `training_sample`: which training text that is tried on
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
from modeling.transformer import Transformer
from stages.benchmark.held_out.documents import BATCH_TOKENS, HeldOutDocument
from stages.benchmark.results import TaskResult, item_row, score_row
from stages.common.statistics import bootstrap_interval

Tokens = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

BINS = 15
"""As in Guo et al. 2017."""
PREFIX_TOKENS = 32
"""Of a document's beginning, and as many are to follow verbatim: Biderman et al. 2023, 2304.11158, sec. 3."""


@dataclass(frozen=True)
class TrainingText:
    """The beginning of a training document."""

    name: str
    tokens: Tokens


def score_language_modeling(
    name: str,
    model: Transformer,
    documents: Sequence[HeldOutDocument],
    training: Sequence[TrainingText],
    end_of_text: int,
    calibration_bytes: int,
    seed: int,
) -> list[TaskResult]:
    """Calibration on a sample of the held-out documents, and memorization of the training text."""
    order = np.random.default_rng(seed).permutation(len(documents))
    sizes = np.cumsum([documents[place].bytes for place in order])
    enough = int(np.searchsorted(sizes, calibration_bytes)) + 1
    chosen = [documents[place] for place in sorted(order[:enough])]
    return [
        calibration(name, model, chosen, end_of_text, seed),
        *memorization(name, model, training, documents, end_of_text, seed),
    ]


def by_genre(results: Sequence[TaskResult], documents: Sequence[HeldOutDocument], seed: int) -> list[TaskResult]:
    """Bits per byte of each genre, of every model and baseline whose score keeps its documents.

    Nothing is computed anew. A genre of one document has no interval; with one genre there is nothing to part.
    """
    genres = {document.name: document.genre for document in documents}
    found = []
    for result in results:
        if result.score["metric"] != "bits per byte" or len(set(genres.values())) < 2:
            continue
        for genre in sorted(set(genres.values())):
            items = [item for item in result.items if genres[item["item"]] == genre]
            if items:
                found.append(
                    _ratio(result.score["task"], result.score["model"], f"bits per byte, {genre}", items, seed)
                )
    return found


def calibration(
    name: str, model: Transformer, documents: Sequence[HeldOutDocument], end_of_text: int, seed: int
) -> TaskResult:
    """Expected calibration error of a network on held-out text; 0 is best.

    Guo et al. 2017, 1706.04599, eq. 3, with 15 bins of equal width: predictions are put into bins by the probability of
    the likeliest next token (the confidence); the error is the mean over all tokens of the gap between a bin's mean
    confidence and its share of right predictions.

    An item is a document, its numerator the sum of its tokens' gaps, each with the sign of its bin's gap over all
    documents, so that items add up to the score. The interval resamples documents with these signs held: with signs of
    their own, noise would only ever add to a resample's gaps, and the interval would lie above the score.
    """
    tokens = [document.tokens for document in documents]
    predictions = top_predictions(model, tokens, model.config.context_length, BATCH_TOKENS, end_of_text)
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
    """Sum of (confidence - right) of each document in each bin, float64 (documents, BINS)."""
    bins = np.clip(np.ceil(predictions.confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
    places = predictions.sequence * BINS + bins
    gaps = np.bincount(places, predictions.confidence - predictions.right, minlength=documents * BINS)
    return np.asarray(gaps, dtype=np.float64).reshape(documents, BINS)


def training_sample(tokens: Artifact, count: int, seed: int) -> list[TrainingText]:
    """Documents drawn from all of the training split that are long enough to be continued; fewer where there are.

    Whether training reached a document is not known here: with a budget of tokens below the corpus it may not have.
    """
    generator = np.random.default_rng(seed)
    drawn: list[tuple[float, str, Tokens]] = []
    needed = 2 * PREFIX_TOKENS
    for path in tokens.paths("train/*.arrow"):
        shard = tokens.read_table(path)
        # The end-of-text token that ends a document is not part of its text.
        long_enough = np.flatnonzero(pc.list_value_length(shard.column("tokens")).to_numpy() > needed)
        keys = generator.random(len(long_enough))
        for place in np.argsort(keys)[:count]:
            row = int(long_enough[place])
            ids = np.asarray(shard.column("tokens")[row].values[:needed].to_numpy(), dtype=np.int64)
            drawn.append((float(keys[place]), shard.column("document_id")[row].as_py(), ids))
    return [TrainingText(name, ids) for _, name, ids in heapq.nsmallest(count, drawn, key=lambda one: one[0])]


def memorization(
    name: str,
    model: Transformer,
    training: Sequence[TrainingText],
    documents: Sequence[HeldOutDocument],
    end_of_text: int,
    seed: int,
) -> list[TaskResult]:
    """Share of documents whose first 32 tokens the network continues verbatim for the next 32, by greedy decoding.

    This is Carlini et al.'s extractable text (2202.07646, sec. 3.1) at the beginning of documents. The same share of
    held-out text, as many documents of it, says what boilerplate gives without training on the very document. A
    context shorter than 64 tokens is halved.

    Args:
        name: the network's.
        model: the network.
        training: as `training_sample` gives them.
        documents: held-out ones.
        end_of_text: stands before every document, as in training.
        seed: of the sample of held-out documents, and of the bootstrap.

    Returns:
        A score for training and one for held-out text, each where there are documents long enough.
    """
    length = min(PREFIX_TOKENS, model.config.context_length // 2)
    long_enough = [document for document in documents if len(document.tokens) >= 2 * PREFIX_TOKENS]
    chosen = np.random.default_rng(seed).permutation(len(long_enough))[: len(training)]
    texts = {
        "training text": {text.name: text.tokens for text in training},
        "held-out text": {long_enough[place].name: long_enough[place].tokens for place in sorted(chosen)},
    }
    return [
        _ratio(
            "memorization",
            name,
            f"{kind} continued verbatim",
            _continued(name, model, found, length, end_of_text),
            seed,
        )
        for kind, found in texts.items()
        if found
    ]


def _continued(
    name: str, model: Transformer, texts: Mapping[str, Tokens], length: int, end_of_text: int
) -> list[dict[str, Any]]:
    """An item for each text: 1 where `length` tokens behind the first `length` are those of the text."""
    names = list(texts)
    rows = max(1, BATCH_TOKENS // model.config.context_length)
    items = []
    for start in range(0, len(names), rows):
        batch = names[start : start + rows]
        prompts = [[end_of_text, *texts[one][:length].tolist()] for one in batch]
        generated = generate_batch(model, prompts, length, temperature=0, top_k=0, seed=0)
        for one, new in zip(batch, generated, strict=True):
            wanted = texts[one][length : 2 * length].tolist()
            same = next((place for place in range(length) if new[place] != wanted[place]), length)
            output = {"prefix_tokens": length, "generated": new, "verbatim_tokens": same}
            items.append(item_row("memorization", one, name, output, float(same == length), 1.0))
    return items


def _ratio(task: str, model: str, metric: str, items: list[dict[str, Any]], seed: int) -> TaskResult:
    """Items as a score that is the better the lower; without interval where there is one item."""
    numerators, denominators = ([item[name] for item in items] for name in ("numerator", "denominator"))
    interval = bootstrap_interval(numerators, denominators, seed)
    score = score_row(task, model, metric, interval, len(items), False)
    return TaskResult(score if len(items) > 1 else score | {"low": None, "high": None}, items)
