"""`config.json` of a GPT-NeoX network as transformers reads and writes it, and what of it ours can be.

- `to_huggingface`: our config -> the fields of `config.json`
- `from_huggingface`: the other way, refusing what would predict something else
"""

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from data_schemas.errors import ContractError
from modeling.transformer_config import TransformerConfig

if TYPE_CHECKING:
    import torch

CONFIG = "config.json"
MODEL_TYPE = "gpt_neox"

_FIELDS = {
    "layers": "num_hidden_layers",
    "width": "hidden_size",
    "heads": "num_attention_heads",
    "feed_forward_width": "intermediate_size",
    "context_length": "max_position_embeddings",
}


def to_huggingface(config: TransformerConfig, dtype: "torch.dtype") -> dict[str, Any]:
    """The fields of `config.json`, for transformers 4 and 5."""
    name = str(dtype).removeprefix("torch.")
    return {
        "architectures": ["GPTNeoXForCausalLM"],
        "model_type": MODEL_TYPE,
        "dtype": name,
        "torch_dtype": name,
        "vocab_size": config.vocabulary_size,
        **{theirs: getattr(config, ours) for ours, theirs in _FIELDS.items()},
        "hidden_act": "relu",
        "use_parallel_residual": False,
        "attention_bias": True,
        "rotary_pct": 1.0,
        "rotary_emb_base": config.rotary_base,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": config.rotary_base,
            "partial_rotary_factor": 1.0,
        },
        "layer_norm_eps": config.norm_epsilon,
        "initializer_range": config.initializer_std,
        "tie_word_embeddings": config.tied_embeddings,
        "bos_token_id": config.end_of_text,
        "eos_token_id": config.end_of_text,
    }


def from_huggingface(fields: Mapping[str, Any], vocabulary_size: int | None) -> TransformerConfig:
    """Our config of the network that `config.json` describes; a field left out has transformers' default.

    Args:
        fields: of `config.json`.
        vocabulary_size: rows of the embedding, which may be padded; None to take the file's word.

    Raises:
        ContractError: naming the field that our network has otherwise, the value found and the one accepted.
    """
    _check_fields(fields)
    missing = [theirs for theirs in _FIELDS.values() if theirs not in fields]
    if missing:
        raise ContractError(f"{CONFIG} does not say {', '.join(missing)}; save the model again with save_pretrained")
    try:
        return TransformerConfig(
            **{ours: fields[theirs] for ours, theirs in _FIELDS.items()},
            vocabulary_size=fields.get("vocab_size", 0) if vocabulary_size is None else vocabulary_size,
            rotary_base=_rope(fields)["rope_theta"],
            tied_embeddings=fields.get("tie_word_embeddings", False),
            norm_epsilon=fields.get("layer_norm_eps", 1e-5),
            initializer_std=fields.get("initializer_range", 0.02),
            end_of_text=_end_of_text(fields),
        )
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        raise ContractError(f"{CONFIG} describes a network that Headrace's cannot be: {problems}") from None


def _check_fields(fields: Mapping[str, Any]) -> None:
    """Hold what transformers would build against what our network is."""
    if fields.get("model_type") != MODEL_TYPE:
        raise ContractError(
            f"{CONFIG} describes a network of the type {fields.get('model_type')!r}; Headrace reads its own exports "
            f"and networks of the type {MODEL_TYPE!r} (GPTNeoXForCausalLM)"
        )
    for field, found, accepted in _decisive(fields):
        if found != accepted:
            raise ContractError(
                f"{CONFIG}: {field} is {json.dumps(found)}, and Headrace's network has {json.dumps(accepted)}; a "
                "network that was trained otherwise would predict something else, so it is not read"
            )


def _decisive(fields: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """(field, value found or transformers' default, the one value that our network has)."""
    yield "hidden_act", fields.get("hidden_act", "gelu"), "relu"
    yield "use_parallel_residual", fields.get("use_parallel_residual", True), False
    yield "attention_bias", fields.get("attention_bias", True), True
    rope = _rope(fields)
    yield "rotary_pct (rope_parameters.partial_rotary_factor)", rope["partial_rotary_factor"], 1.0
    yield "rope_scaling (rope_parameters.rope_type)", rope.get("rope_type", rope.get("type", "default")), "default"
    yield "quantization_config", fields.get("quantization_config"), None


def _rope(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Rotary positions, as transformers 5 puts the spellings together."""
    rope = dict(fields.get("rope_scaling") or fields.get("rope_parameters") or {})
    rope.setdefault("rope_theta", fields.get("rotary_emb_base", fields.get("rope_theta", 10_000)))
    rope.setdefault("partial_rotary_factor", fields.get("rotary_pct", 0.25))
    return rope


def _end_of_text(fields: Mapping[str, Any]) -> int:
    """The token that ends a text; the one that begins it, or 0, where none is named."""
    end = fields.get("eos_token_id")
    end = end[0] if isinstance(end, list) and end else end
    return int(next((one for one in (end, fields.get("bos_token_id")) if isinstance(one, int)), 0))
