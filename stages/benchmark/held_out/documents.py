"""A network's results on each task: one score with its interval, and the items that it rests on.

- `held_out_documents`: text and tokens of documents that neither tokenizer nor network has seen
- `score_held_out`, `samples`: what one network makes of them
- `TaskResult`, `score_row`, `item_row`, `single_value`, `not_run`: rows of the result, for every task
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from infra.store.artifacts import Artifact
from modeling.decoding.generation import generate
from modeling.evaluation.bits_per_byte import document_bits
from modeling.transformer import Transformer
from stages.benchmark.task import EvaluatedModel
from stages.common.statistics import Interval, bootstrap_interval

if TYPE_CHECKING:
    from stages.benchmark.stage import BenchmarkConfig

BATCH_TOKENS = 8_192
END_OF_TEXT = "<|endoftext|>"


@dataclass(frozen=True)
class HeldOutDocument:
    """A held-out document as text and as tokens, without the end-of-text token."""

    name: str
    text: str
    tokens: npt.NDArray[np.int64]
    genre: str

    @property
    def bytes(self) -> int:
        """UTF-8 bytes of the text."""
        return len(self.text.encode())


@dataclass(frozen=True)
class TaskResult:
    """A row of the score table and the rows of the item table behind it."""

    score: dict[str, Any]
    items: list[dict[str, Any]]


def held_out_documents(corpus: Artifact, tokens: Artifact, most_bytes: int) -> list[HeldOutDocument]:
    """Held-out documents in corpus order, at least one, until `most_bytes` is reached."""
    documents: list[HeldOutDocument] = []
    size = 0
    for path in corpus.paths("held_out/*.parquet"):
        texts = corpus.read_table(path)
        shard = tokens.read_table(path.removesuffix(".parquet") + ".arrow")
        assert texts.column("id") == shard.column("document_id"), path
        columns = [texts.column(name).to_pylist() for name in ("id", "text", "genre")]
        for name, text, genre, ids in zip(*columns, shard.column("tokens").to_pylist(), strict=True):
            if documents and size >= most_bytes:
                return documents
            documents.append(HeldOutDocument(name, text, np.asarray(ids[:-1], dtype=np.int64), genre))
            size += documents[-1].bytes
    return documents


def score_held_out(
    name: str, model: Transformer, documents: Sequence[HeldOutDocument], end_of_text: int, seed: int
) -> TaskResult:
    """Bits per byte of a network on held-out text."""
    tokens = [document.tokens for document in documents]
    bits = document_bits(model, tokens, model.config.context_length, BATCH_TOKENS, end_of_text)
    return bits_per_byte_result(name, documents, bits, seed)


def bits_per_byte_result(
    name: str, documents: Sequence[HeldOutDocument], bits: npt.NDArray[np.float64], seed: int
) -> TaskResult:
    """Bits of each document as a score over all their bytes."""
    sizes = [document.bytes for document in documents]
    items = [
        item_row("held-out text", document.name, name, {"bits": float(one)}, float(one), document.bytes)
        for document, one in zip(documents, bits, strict=True)
    ]
    interval = bootstrap_interval(bits, sizes, seed)
    return TaskResult(score_row("held-out text", name, "bits per byte", interval, len(documents), False), items)


def samples(model: EvaluatedModel, config: "BenchmarkConfig") -> list[dict[str, str]]:
    """What the network makes of each prompt: {"model", "prompt", "text"}."""
    end, texts = model.end_of_text, []
    for prompt in config.prompts:
        start = model.tokenizer.encode(prompt).ids or [end]
        new = generate(
            model.network, start, config.sample_tokens, temperature=0.8, top_k=50, seed=config.seed, stop_token=end
        )
        text = model.tokenizer.decode([token for token in new if token != end])
        texts.append({"model": model.name, "prompt": prompt, "text": text})
    return texts


def end_of_text_id(tokenizer: Tokenizer) -> int:
    """Id of the token that ends every document."""
    token = tokenizer.token_to_id(END_OF_TEXT)
    assert token is not None, "the tokenizer has no end-of-text token"
    return token


def score_row(
    task: str,
    model: str,
    metric: str,
    interval: Interval,
    items: int,
    higher_is_better: bool,
    protocol: str | None = None,
    note: str | None = None,
) -> dict[str, Any]:
    """A row of the SCORES table; an end of the interval that is no number is left out."""
    low, high = (None if math.isnan(end) else end for end in (interval.low, interval.high))
    return {
        "task": task, "model": model, "metric": metric, "value": interval.value, "low": low, "high": high,
        "items": items, "higher_is_better": higher_is_better, "protocol": protocol, "note": note,
    }  # fmt: skip


def single_value(
    task: str, model: str, metric: str, value: float, protocol: str | None = None, note: str | None = None
) -> TaskResult:
    """A score without interval and items, such as what guessing gives."""
    return TaskResult(score_row(task, model, metric, exact(value), 0, True, protocol, note), [])


def exact(value: float) -> Interval:
    """A score that has no interval."""
    return Interval(value, math.nan, math.nan)


def not_run(task: str, metric: str, reason: str, protocol: str | None = None) -> TaskResult:
    """A row that says why a task has no score."""
    row = score_row(task, "", metric, exact(math.nan), 0, True, protocol, reason)
    return TaskResult(row | {"value": None}, [])


def not_asked(task: str, model: str) -> TaskResult:
    """A row that says why a checkpoint of another architecture has no score."""
    reason = f"not run on {model}: it needs a network of Headrace's own or GPT-NeoX, and transformers runs this one"
    row = score_row(task, model, "", exact(math.nan), 0, True, None, reason)
    return TaskResult(row | {"value": None}, [])


def item_row(
    task: str,
    item: str,
    model: str,
    output: dict[str, Any],
    numerator: float,
    denominator: float,
    prompt: str | None = None,
) -> dict[str, Any]:
    """A row of the ITEMS table."""
    return {
        "task": task, "item": item, "model": model, "output": json.dumps(output, ensure_ascii=False),
        "numerator": numerator, "denominator": denominator, "prompt": prompt,
    }  # fmt: skip
