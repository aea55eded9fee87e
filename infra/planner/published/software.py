"""Training systems of published runs, by what a row's columns say."""

import re
from dataclasses import replace

from infra.planner.layouts import Precision, Software
from infra.planner.published.rows import UNKNOWN, PublishedRow

FLASH_PUBLISHED = 2205
"""Year and month of FlashAttention (2205.14135): papers up to it store the attention's scores."""

PRECISIONS: tuple[tuple[Precision, str], ...] = (
    ("fp8", r"fp8|float8|e4m3|e5m2"), ("bf16", r"bf16|bfloat"), ("fp16", r"fp16|float16|half|(?<!\d)16(?!\d)"),
    ("tf32", r"tf32"), ("fp32", r"fp32|float32|single|(?<!\d)32(?!\d)"), ("bf16", r"mixed|amp"),
)  # fmt: skip
"""Types and their spellings; the first that a text has is the one that products are computed in."""

TORCH = Software("PyTorch FSDP")
TORCHTITAN = Software("torchtitan", sequence_parallel=True, shards_over_context=True)
MEGATRON_2021 = Software(
    "Megatron-LM 2021", fused=True, flash=False, early_stop=False, dropout_masks=True, weight_bytes=2.0,
    gradient_bytes=4.0, optimizer_bytes=12.0, logit_bytes=4.0,
)  # fmt: skip
MEGATRON_CORE = Software(
    "Megatron-Core", fused=True, early_stop=False, sequence_parallel=True, hides_traffic=0.75, sharded_optimizer=True,
    weight_bytes=2.0, gradient_bytes=4.0, optimizer_bytes=12.0, logit_bytes=6.0,
)  # fmt: skip


def software_of(row: PublishedRow) -> Software:
    """The system, from the source, the notes and whether the row shards; precision from its own column."""
    text = " ".join(row.texts[name] for name in ("source", "notes", "model", "recompute", "fsdp")).lower()
    software = _by_name(row, text)
    if "sequence parallel" in text:
        software = replace(software, sequence_parallel=True)
    if "async tp" in text:
        software = replace(software, hides_traffic=0.5)
    if "compile" in row.texts["notes"].lower():
        software = replace(software, fused=True)
    if re.search(r"zero-?1|distributed optimizer", text):
        software = replace(software, sharded_optimizer=True)
    return replace(software, precision=precision_of(row.texts["precision"]) or "bf16")


def _by_name(row: PublishedRow, text: str) -> Software:
    if "torchtitan" in text:
        return TORCHTITAN
    published = re.search(r"\b(2[0-9](?:0[1-9]|1[0-2]))\.\d{4,5}\b", text)
    is_old = published is not None and int(published[1]) <= FLASH_PUBLISHED
    if row.texts["fsdp"].lower() not in UNKNOWN and "palm" not in text:
        return replace(TORCH, flash=not is_old)
    if re.search(r"bloom|megatron-turing|mt-nlg|\bopt\b|selene", text):
        return MEGATRON_2021
    if re.search(r"megatron.?core|mcore", text):
        return MEGATRON_CORE
    if published is None:
        is_old = re.search(r"\b(2021|2022)\b", text) is not None
    return MEGATRON_2021 if is_old else MEGATRON_CORE


def precision_of(text: str) -> Precision | None:
    """The type of the products, in any usual spelling; bf16 if the cell is empty, None if no such type is known."""
    if text.strip().lower() in UNKNOWN:
        return "bf16"
    return next((name for name, pattern in PRECISIONS if re.search(pattern, text, re.IGNORECASE)), None)
