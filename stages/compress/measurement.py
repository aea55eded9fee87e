"""Measurements after a pass: size, compute, speed and bits per byte, always on the same held-out text.

Recipes are chosen by these figures, so that the text is of documents that the benchmark does not score.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from data_schemas.config import FrozenConfig
from infra.store.artifacts import Artifact
from modeling.compression.activation_sparsity import measure_zeros
from modeling.decoding.generation import decode_bytes, decode_speed, prefill_speed
from modeling.evaluation.bits_per_byte import document_bits
from modeling.evaluation.network_counts import (
    bit_operations_per_token,
    dense_macs_per_token,
    network_parameters,
    nonzero_macs_per_token,
    nonzero_parameters,
)
from modeling.evaluation.peak_memory import tensor_bytes
from modeling.evaluation.through_cache import scoring_decoder
from modeling.export.model_files import model_to_files
from modeling.transformer import Transformer
from stages.common.held_out import selection_masks
from stages.common.statistics import paired_difference
from stages.common.token_shards import open_shards
from stages.common.token_stream import END_OF_TEXT_ID

BATCH_TOKENS = 8_192
ZEROS_ROWS = 16
"""Windows that zeros of activations are counted on."""


@dataclass(frozen=True)
class HeldOutText:
    """Held-out documents as tokens, and their size as text."""

    tokens: list[npt.NDArray[np.int64]]
    document_bytes: list[int]

    @property
    def bytes(self) -> int:
        """Bytes of all documents."""
        return sum(self.document_bytes)

    @classmethod
    def read(cls, artifact: Artifact, max_bytes: int) -> "HeldOutText":
        """Selection documents in corpus order, at least one, until `max_bytes` is reached.

        If there is a single held-out document, it is that one.
        """
        masks, shards = list(selection_masks(artifact).values()), open_shards(artifact, "held_out")
        has_selection = any(mask.any() for mask in masks)
        owners = np.repeat(np.arange(len(masks)), [len(mask) for mask in masks])
        sizes = np.concatenate([np.zeros(0, np.int64), *shards.document_bytes()])
        borders = [(own[:-1], own[1:]) for own in shards.token_starts()]
        first, last = (np.concatenate([np.zeros(0, np.int64), *side]) for side in zip(*borders, strict=True))
        chosen = np.flatnonzero(np.concatenate(masks)) if has_selection else np.arange(len(owners))
        chosen = chosen[: 1 + np.searchsorted(np.cumsum(sizes[chosen]), max_bytes)]
        tokens = shards.read([(int(owners[row]), int(first[row]), int(last[row]) - 1) for row in chosen])
        return cls([ids.astype(np.int64) for ids in tokens], sizes[chosen].tolist())

    def rows(self, context_length: int, max_rows: int) -> Tensor:
        """Up to `max_rows` windows (rows, context_length) int64 of the documents, one after the other."""
        joined = np.concatenate([np.append(ids, END_OF_TEXT_ID) for ids in self.tokens])
        length = min(context_length, len(joined))
        count = min(max_rows, len(joined) // length)
        return torch.from_numpy(joined[: count * length].reshape(count, length))


def measure(
    name: str,
    settings: FrozenConfig | None,
    model: Transformer,
    held_out: HeldOutText,
    teacher: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """One row of the frontier.

    Args:
        name: name of the pass, or "teacher".
        settings: config of the pass; None for the teacher.
        model: the network after the pass.
        held_out: the text.
        teacher: row of the uncompressed network, for the change of its bits with a 95 % interval (paired bootstrap over
            documents).

    Returns:
        Parameters and nonzero parameters; bytes on disk, of the weights in memory, and peak bytes of all tensors in
        decoding by torch, and by the decoder in C if it takes the network; FLOPs per token at the full context, MACs
        (all, and those with nonzero weights) and bit operations; bits per byte, and bits of each document, through the
        cache if that is int8; share of zeros after each ReLU; prefill and decode tokens per second; and the seconds
        that measuring took.
    """
    start = time.perf_counter()
    config = model.config
    decoder = scoring_decoder(model)
    bits = document_bits(decoder, held_out.tokens, config.context_length, BATCH_TOKENS, END_OF_TEXT_ID)
    in_c = decode_bytes(model, in_c=True)
    row = {
        "name": name,
        "settings": settings.model_dump(mode="json") if settings else {},
        "parameters": network_parameters(model),
        "nonzero_parameters": nonzero_parameters(model),
        "bytes": sum(len(data) for data in model_to_files(model).values()),
        "weight_bytes": tensor_bytes(model),
        "generation_bytes": decode_bytes(model, in_c=False),
        **({} if in_c is None else {"generation_bytes_in_c": in_c}),
        "flops_per_token": 2 * dense_macs_per_token(model, config.context_length),
        "macs_per_token": dense_macs_per_token(model, config.context_length),
        "nonzero_macs_per_token": nonzero_macs_per_token(model, config.context_length),
        "bit_operations_per_token": bit_operations_per_token(model, config.context_length),
        "bits_per_byte": float(bits.sum() / held_out.bytes),
        "document_bits": [round(document, 2) for document in bits.tolist()],
        "activation_zeros": measure_zeros(model, held_out.rows(config.context_length, ZEROS_ROWS)),
        "prefill_tokens_per_second": prefill_speed(model),
        "decode_tokens_per_second": decode_speed(model),
        "seconds": time.perf_counter() - start,
    }
    if teacher is not None:
        teacher_bits = np.asarray(teacher["document_bits"])
        row["bits_change"] = paired_difference(bits, teacher_bits, teacher_bits, seed=0)._asdict()
    return row
