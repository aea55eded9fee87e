"""Training systems of published runs, by what a row's columns say."""

import re
from dataclasses import replace

from infra.planner.layouts import Precision, Software
from infra.planner.published.rows import PublishedRow

FLASH_PUBLISHED = 2205
"""Year and month of FlashAttention (2205.14135): papers up to it store the attention's scores."""

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
    text = " ".join(row.texts[name] for name in ("source", "notes", "model", "recompute")).lower()
    software = _by_name(row, text)
    if "sequence parallel" in text:
        software = replace(software, sequence_parallel=True)
    if "async tp" in text:
        software = replace(software, hides_traffic=0.5)
    if "compile" in row.texts["notes"].lower():
        software = replace(software, fused=True)
    if re.search(r"zero-?1|distributed optimizer", text):
        software = replace(software, sharded_optimizer=True)
    return replace(software, precision=_precision(row.texts["precision"].lower()))


def _by_name(row: PublishedRow, text: str) -> Software:
    if "torchtitan" in text:
        return TORCHTITAN
    published = re.search(r"\b(2[0-9](?:0[1-9]|1[0-2]))\.\d{4,5}\b", text)
    is_old = published is not None and int(published[1]) <= FLASH_PUBLISHED
    if row.texts["fsdp"] and "palm" not in text:
        return replace(TORCH, flash=not is_old)
    if re.search(r"bloom|megatron-turing|mt-nlg|\bopt\b|selene", text):
        return MEGATRON_2021
    if re.search(r"megatron.?core|mcore", text):
        return MEGATRON_CORE
    if published is None:
        is_old = re.search(r"\b(2021|2022)\b", text) is not None
    return MEGATRON_2021 if is_old else MEGATRON_CORE


def _precision(text: str) -> Precision:
    names: tuple[Precision, ...] = ("fp8", "fp16", "fp32")
    return next((name for name in names if name in text), "bf16")
