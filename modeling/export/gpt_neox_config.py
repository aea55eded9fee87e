"""Convert between our config and transformers' `config.json` of GPT-NeoX.

- `to_huggingface`: our config -> fields of `config.json`
- `from_huggingface`: fields of `config.json` -> our config, refusing networks that ours cannot reproduce
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
    """Fields of `config.json`, for transformers 4 and 5."""
    name = str(dtype).removeprefix("torch.")
    return {
        "architectures": ["GPTNeoXForCausalLM"],
        "model_type": MODEL_TYPE,
        "dtype": name,
        "torch_dtype": name,
        "vocab_size": config.vocabulary_size,
        **{name: getattr(config, field) for field, name in _FIELDS.items()},
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
    """Our config of the network that `config.json` describes; missing fields have transformers' defaults.

    Args:
        fields: fields of `config.json`.
        vocabulary_size: rows of the embedding, which may be padded; None: `vocab_size` of the file.

    Raises:
        ContractError: if a field has a value that our network does not support; names the accepted value.
    """
    _check_fields(fields)
    missing = [name for name in _FIELDS.values() if name not in fields]
    if missing:
        raise ContractError(f"{CONFIG} has no {', '.join(missing)}; save the model again with save_pretrained")
    try:
        return TransformerConfig(
            **{field: fields[name] for field, name in _FIELDS.items()},
            vocabulary_size=fields.get("vocab_size", 0) if vocabulary_size is None else vocabulary_size,
            rotary_base=_rope(fields)["rope_theta"],
            tied_embeddings=fields.get("tie_word_embeddings", False),
            norm_epsilon=fields.get("layer_norm_eps", 1e-5),
            initializer_std=fields.get("initializer_range", 0.02),
            end_of_text=_end_of_text(fields),
        )
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors())
        raise ContractError(f"{CONFIG} describes a network that Headrace does not support: {problems}") from None


def _check_fields(fields: Mapping[str, Any]) -> None:
    """Check that the network that transformers would build is one of ours."""
    if fields.get("model_type") != MODEL_TYPE:
        raise ContractError(
            f"{CONFIG} describes a network of the type {fields.get('model_type')!r}; accepted are Headrace's own "
            f"exports and networks of the type {MODEL_TYPE!r} (GPTNeoXForCausalLM)"
        )
    for field, value, accepted in _required_fields(fields):
        if value != accepted:
            raise ContractError(
                f"{CONFIG}: {field} is {json.dumps(value)}; accepted is only {json.dumps(accepted)}, the value in "
                "Headrace's network, which otherwise would predict differently from the trained network"
            )


def _required_fields(fields: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """(field, its value or transformers' default, the value in our network)."""
    yield "hidden_act", fields.get("hidden_act", "gelu"), "relu"
    yield "use_parallel_residual", fields.get("use_parallel_residual", True), False
    yield "attention_bias", fields.get("attention_bias", True), True
    rope = _rope(fields)
    yield "rotary_pct (rope_parameters.partial_rotary_factor)", rope["partial_rotary_factor"], 1.0
    yield "rope_scaling (rope_parameters.rope_type)", rope.get("rope_type", rope.get("type", "default")), "default"
    yield "quantization_config", fields.get("quantization_config"), None


def _rope(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of the rotary embedding, merged from all spellings as in transformers 5."""
    rope = dict(fields.get("rope_scaling") or fields.get("rope_parameters") or {})
    rope.setdefault("rope_theta", fields.get("rotary_emb_base", fields.get("rope_theta", 10_000)))
    rope.setdefault("partial_rotary_factor", fields.get("rotary_pct", 0.25))
    return rope


def _end_of_text(fields: Mapping[str, Any]) -> int:
    """End-of-text token; by default the token that begins a text, else 0."""
    end = fields.get("eos_token_id")
    end = end[0] if isinstance(end, list) and end else end
    return int(next((token for token in (end, fields.get("bos_token_id")) if isinstance(token, int)), 0))
