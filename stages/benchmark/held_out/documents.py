"""Bits per byte on held-out text, and sampled continuations of prompts.

- `held_out_documents`: text and tokens of documents that neither tokenizer nor network has seen
- `score_held_out`: bits per byte of a network, with an item per document
- `samples`: a network's continuations of prompts
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from infra.store.artifacts import Artifact
from modeling.decoding.generation import generate
from modeling.evaluation.bits_per_byte import document_bits
from modeling.evaluation.through_cache import scoring_decoder
from stages.benchmark.results import TaskResult, item_row, score_row
from stages.benchmark.task import EvaluatedModel
from stages.common.held_out import selection_masks
from stages.common.statistics import bootstrap_interval

BATCH_TOKENS = 8_192


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


def held_out_documents(corpus: Artifact, tokens: Artifact, max_bytes: int) -> list[HeldOutDocument]:
    """Scored held-out documents in corpus order, at least one, until `max_bytes` is reached.

    Documents that weights or recipes were selected on are not among them (`stages.common.held_out`).
    """
    documents: list[HeldOutDocument] = []
    size = 0
    masks = selection_masks(tokens)
    for path in corpus.paths("held_out/*.parquet"):
        texts = corpus.read_table(path)
        shard_path = path.removesuffix(".parquet") + ".arrow"
        shard, scored = tokens.read_table(shard_path), pa.array(~masks[shard_path])
        assert texts.column("id") == shard.column("document_id"), path
        columns = [texts.column(name).filter(scored).to_pylist() for name in ("id", "text", "genre")]
        for name, text, genre, ids in zip(*columns, shard.column("tokens").filter(scored).to_pylist(), strict=True):
            if documents and size >= max_bytes:
                return documents
            documents.append(HeldOutDocument(name, text, np.asarray(ids[:-1], dtype=np.int64), genre))
            size += documents[-1].bytes
    return documents


def score_held_out(model: EvaluatedModel, documents: Sequence[HeldOutDocument], seed: int) -> TaskResult:
    """Bits per byte of a network on held-out text, through its cache if that is int8."""
    tokens = [document.tokens for document in documents]
    context_length = model.network.config.context_length
    bits = document_bits(scoring_decoder(model.network), tokens, context_length, BATCH_TOKENS, model.end_of_text)
    return bits_per_byte_result(model.name, documents, bits, seed)


def bits_per_byte_result(
    name: str, documents: Sequence[HeldOutDocument], bits: npt.NDArray[np.float64], seed: int
) -> TaskResult:
    """Bits per byte over all documents, given the bits of each document."""
    sizes = [document.bytes for document in documents]
    items = [
        item_row("held-out text", document.name, name, {"bits": needed}, needed, document.bytes)
        for document, needed in zip(documents, bits.tolist(), strict=True)
    ]
    interval = bootstrap_interval(bits, sizes, seed)
    return TaskResult(score_row("held-out text", name, "bits per byte", interval, len(documents), False), items)


def samples(model: EvaluatedModel, prompts: Sequence[str], tokens: int, seed: int) -> list[dict[str, str]]:
    """Sampled continuations of prompts: rows of {"model", "prompt", "text"}."""
    end, rows = model.end_of_text, []
    for prompt in prompts:
        context = model.tokenizer.encode(prompt).ids or [end]
        generated = generate(model.network, context, tokens, temperature=0.8, top_k=50, seed=seed, stop_token=end)
        text = model.tokenizer.decode([token for token in generated if token != end])
        rows.append({"model": model.name, "prompt": prompt, "text": text})
    return rows
