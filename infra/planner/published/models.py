"""Shapes of published networks by name, for rows that do not give them, and what their families have in common.

- `known_shape`: fields by name; `family_of`: gated feed-forwards, grouped queries, experts
"""

import re
from collections.abc import Mapping
from typing import Any

KNOWN: tuple[tuple[str, dict[str, Any]], ...] = (
    # (pattern of the name in lower case, fields as in the columns of the file); layouts of 2205.05198, table 3.
    (r"megatron.*\b22b", {"layers": 48, "hidden": 6144, "heads": 64, "vocab": 51200, "seq_len": 2048, "tp": 8, "pp": 1,
     "micro_batch": 4, "global_batch_seqs": 4, "gpus": 8}),
    (r"gpt-?3.*175b", {"layers": 96, "hidden": 12288, "heads": 96, "vocab": 51200, "seq_len": 2048, "tp": 8, "pp": 8,
     "vp": 3, "micro_batch": 1, "global_batch_seqs": 64, "gpus": 64}),
    (r"(turing|mt-?nlg).*530b", {"layers": 105, "hidden": 20480, "heads": 128, "vocab": 51200, "seq_len": 2048, "tp": 8,
     "pp": 35, "vp": 3, "micro_batch": 1, "global_batch_seqs": 280, "gpus": 280}),
    (r"megatron.*\b1t\b", {"layers": 128, "hidden": 25600, "heads": 160, "vocab": 51200, "seq_len": 2048, "tp": 8,
     "pp": 64, "micro_batch": 1, "global_batch_seqs": 512, "gpus": 512}),
    (r"llama-?_? ?3.*(?<!\d)8b", {"layers": 32, "hidden": 4096, "heads": 32, "ffn": 14336, "vocab": 128256}),
    (r"llama-?3-style.*(?<!\d)7b", {"layers": 32, "hidden": 4096, "heads": 32, "ffn": 14336, "vocab": 128256}),
    (r"llama-?3-style.*13b", {"layers": 40, "hidden": 5120, "heads": 40, "ffn": 17920, "vocab": 128256}),
    (r"llama-?_? ?3.*70b", {"layers": 80, "hidden": 8192, "heads": 64, "ffn": 28672, "vocab": 128256}),
    (r"llama.*405b", {"layers": 126, "hidden": 16384, "heads": 128, "ffn": 53248, "vocab": 128256}),
    (r"llama.*(?<!\d)7b", {"layers": 32, "hidden": 4096, "heads": 32, "ffn": 11008, "vocab": 32000}),
    (r"llama.*13b", {"layers": 40, "hidden": 5120, "heads": 40, "ffn": 13824, "vocab": 32000}),
    (r"llama.*(33b|30b)", {"layers": 60, "hidden": 6656, "heads": 52, "ffn": 17920, "vocab": 32000}),
    (r"llama.*65b", {"layers": 80, "hidden": 8192, "heads": 64, "ffn": 22016, "vocab": 32000}),
    (r"llama.*70b", {"layers": 80, "hidden": 8192, "heads": 64, "ffn": 28672, "vocab": 32000}),
    (r"mistral.*7b", {"layers": 32, "hidden": 4096, "heads": 32, "ffn": 14336, "vocab": 32000}),
    (r"mixtral.*8x7b", {"layers": 32, "hidden": 4096, "heads": 32, "ffn": 14336, "vocab": 32000}),
    (r"mixtral.*8x22b", {"layers": 56, "hidden": 6144, "heads": 48, "ffn": 16384, "vocab": 32768}),
    (r"deepseek.*v3", {"layers": 61, "hidden": 7168, "heads": 128, "ffn": 18432, "vocab": 129280}),
    (r"bloom\D*176b|^bloom$", {"layers": 70, "hidden": 14336, "heads": 112, "ffn": 57344, "vocab": 250880,
     "seq_len": 2048}),
    (r"(opt|gpt-?3)\D*175b|^gpt-?3$", {"layers": 96, "hidden": 12288, "heads": 96, "ffn": 49152, "vocab": 51200,
     "seq_len": 2048}),
    (r"gpt-?neox-?20b", {"layers": 44, "hidden": 6144, "heads": 64, "ffn": 24576, "vocab": 50432, "seq_len": 2048}),
    (r"palm.*540b", {"layers": 118, "hidden": 18432, "heads": 48, "ffn": 73728, "vocab": 256000, "seq_len": 2048}),
    (r"gopher.*280b", {"layers": 80, "hidden": 16384, "heads": 128, "ffn": 65536, "vocab": 32000, "seq_len": 2048}),
    (r"falcon.*180b", {"layers": 80, "hidden": 14848, "heads": 232, "ffn": 59392, "vocab": 65024, "seq_len": 2048}),
    (r"falcon.*40b", {"layers": 60, "hidden": 8192, "heads": 128, "ffn": 32768, "vocab": 65024, "seq_len": 2048}),
    (r"nemotron.*15b", {"layers": 32, "hidden": 6144, "heads": 48, "ffn": 24576, "vocab": 256000, "seq_len": 4096}),
    (r"nemotron.*340b", {"layers": 96, "hidden": 18432, "heads": 96, "ffn": 73728, "vocab": 256000, "seq_len": 4096}),
    (r"olmo.*32b", {"layers": 64, "hidden": 5120, "heads": 40, "ffn": 27648, "vocab": 100352}),
    (r"qwen2.*72b", {"layers": 80, "hidden": 8192, "heads": 64, "ffn": 29568, "vocab": 152064}),
)  # fmt: skip
"""From the papers' tables and published configs."""

FAMILIES: tuple[tuple[str, dict[str, Any]], ...] = (
    (r"mixtral.*8x7b", {"gated": True, "key_value_heads": 8, "experts": 8, "active_experts": 2, "expert_width": 14336}),
    (r"mixtral.*8x22b", {"gated": True, "key_value_heads": 8, "experts": 8, "active_experts": 2,
     "expert_width": 16384}),
    (r"deepseek.*v3", {"gated": True, "experts": 256, "active_experts": 8, "expert_width": 2048, "shared_width": 2048,
     "dense_layers": 3}),
    (r"llama-?_? ?3", {"gated": True, "key_value_heads": 8}),
    (r"llama-?_? ?2.*70b|mistral", {"gated": True, "key_value_heads": 8}),
    (r"llama|olmo-?_? ?2? ?(7|13)b", {"gated": True}),
    (r"olmo|qwen", {"gated": True, "key_value_heads": 8}),
    (r"nemotron", {"key_value_heads": 8}),
    (r"palm", {"gated": True, "key_value_heads": 1, "tied": True}),
    (r"falcon", {"key_value_heads": 8, "tied": True}),
    (r"mpt|bloom|megatron|gpt-?(2|3)|opt|turing|mt-?nlg|megascale", {"tied": True}),
)  # fmt: skip


def known_shape(model: str) -> Mapping[str, Any]:
    """Fields of a published network by its name; empty if it is not known."""
    return _first(KNOWN, model)


def family_of(model: str) -> dict[str, Any]:
    """Arguments of `plain_network` beyond the columns of the file; empty if the family is not known."""
    return dict(_first(FAMILIES, model))


def _first(table: tuple[tuple[str, dict[str, Any]], ...], model: str) -> Mapping[str, Any]:
    name = model.lower()
    return next((fields for pattern, fields in table if re.search(pattern, name)), {})
