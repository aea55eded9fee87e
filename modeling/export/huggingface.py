"""Export dense networks to Hugging Face transformers (`GPTNeoXForCausalLM`) and import them.

- `to_gpt_neox`: files of the network; `tokenizer_files`: files of the tokenizer
- `from_gpt_neox`: network from such a folder, ours or third-party

Compatible with transformers 4 and 5: `config.json` has rotary settings and `dtype` in both spellings, and the head has
the name that version 4 reads and version 5 still writes.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from data_schemas.errors import ContractError, NotFoundError
from modeling.export.gpt_neox import Weights, dense_weights, tensor_names
from modeling.export.gpt_neox_config import CONFIG, from_huggingface, to_huggingface
from modeling.export.weight_files import WEIGHTS, weight_files
from modeling.finite_weights import check_finite, to_dtype
from modeling.transformer import Transformer
from modeling.transformer_config import TransformerConfig

EMBEDDING = "gpt_neox.embed_in.weight"

_OUTER = {"embedding": "gpt_neox.embed_in", "final_norm": "gpt_neox.final_layer_norm", "head": "embed_out"}
_INNER = {
    "attention_norm": "input_layernorm",
    "attention.query_key_value": "attention.query_key_value",
    "attention.output": "attention.dense",
    "feed_forward_norm": "post_attention_layernorm",
    "feed_forward.up": "mlp.dense_h_to_4h",
    "feed_forward.down": "mlp.dense_4h_to_h",
}
_BUFFERS = (".attention.bias", ".attention.masked_bias", ".rotary_emb.inv_freq")
"""Constants that old versions of transformers saved with the weights."""


def to_gpt_neox(model: Transformer, dtype: torch.dtype = torch.float32) -> dict[str, bytes]:
    """File name -> bytes of a dense network; the same model gives the same bytes.

    Raises:
        ContractError: if GPT-NeoX cannot express the network, or a weight is not finite or overflows `dtype`.
    """
    weights = dense_weights(model, "Hugging Face's GPT-NeoX")
    names = _names(model.config)
    tensors = {names[name]: to_dtype(name, tensor, dtype) for name, tensor in weights.items()}
    end = model.config.end_of_text
    return {
        CONFIG: _json(to_huggingface(model.config, dtype)),
        WEIGHTS: safetensors.torch.save(tensors, metadata={"format": "pt"}),
        "generation_config.json": _json({"bos_token_id": end, "eos_token_id": end, "pad_token_id": end}),
    }


def tokenizer_files(tokenizer_json: bytes, config: TransformerConfig) -> dict[str, bytes]:
    """File name -> bytes of the tokenizer, to be stored with the files of `to_gpt_neox`.

    Args:
        tokenizer_json: tokenizer in the format of the `tokenizers` package.
        config: config of the network.

    Raises:
        ContractError: if it has no end-of-text token, or more tokens than the network's vocabulary.
    """
    end = end_of_text_token(tokenizer_json, config)
    fields = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": end,
        "eos_token": end,
        "pad_token": end,
        "clean_up_tokenization_spaces": False,
        "model_max_length": config.context_length,
        "model_input_names": ["input_ids", "attention_mask"],
    }
    return {"tokenizer.json": tokenizer_json, "tokenizer_config.json": _json(fields)}


def end_of_text_token(tokenizer_json: bytes, config: TransformerConfig) -> str:
    """Token with the network's end-of-text id, such as `<|endoftext|>`.

    Raises:
        ContractError: if the tokenizer has none, or more tokens than the network's vocabulary.
    """
    tokenizer = json.loads(tokenizer_json)
    added = {int(token["id"]): str(token["content"]) for token in tokenizer["added_tokens"]}
    tokens = {*tokenizer["model"]["vocab"].values(), *added}
    if max(tokens) >= config.vocabulary_size or config.end_of_text not in added:
        raise ContractError(
            f"tokenizer.json has token ids up to {max(tokens)} and the special tokens {sorted(added)}, but the network "
            f"has {config.vocabulary_size} tokens and the end-of-text id {config.end_of_text}; use the tokenizer that "
            "the network was trained with"
        )
    return added[config.end_of_text]


def from_gpt_neox(folder: Path) -> Transformer:
    """Network from a folder with `config.json` and safetensors, in evaluation mode on the CPU, in float32.

    Raises:
        NotFoundError: if a file is missing.
        ContractError: if ours does not support the network (names the field), or files are damaged.
    """
    fields = _read_json(folder / CONFIG)
    tensors = {name: tensor for name, tensor in _read_tensors(folder).items() if not name.endswith(_BUFFERS)}
    embedding = tensors.get(EMBEDDING)
    config = from_huggingface(fields, None if embedding is None else len(embedding))
    if config.tied_embeddings:
        _drop_tied_head(tensors)
    with torch.device("meta"):
        model = Transformer(config)
    weights = _our_weights(config, model, tensors)
    check_finite(weights, str(folder))
    model.load_state_dict(weights, strict=False, assign=True)
    if config.tied_embeddings:
        model.tie_head()
    return model.eval()


def _names(config: TransformerConfig) -> dict[str, str]:
    return tensor_names(config, _OUTER, _INNER, "gpt_neox.layers.{}.")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise NotFoundError(f"{path.parent} has no {path.name}; a network needs {CONFIG} and {WEIGHTS}") from None
    except ValueError as error:
        raise ContractError(f"{path} is not JSON ({error}); save the model again") from None
    if not isinstance(value, dict):
        raise ContractError(f"{path} contains a {type(value).__name__}, not an object; save the model again")
    return value


def _read_tensors(folder: Path) -> Weights:
    """All tensors of a single file, or of the files in an index."""
    tensors: Weights = {}
    for path in weight_files(folder):
        tensors |= _read_file(path)
    return tensors


def _read_file(path: Path) -> Weights:
    try:
        return safetensors.torch.load_file(path)
    except SafetensorError as error:
        raise ContractError(f"{path} is not a readable safetensors file ({error}); copy it again") from None


def _drop_tied_head(tensors: Weights) -> None:
    """Drop a head that equals the embedding table; refuse a different one."""
    for name in ("embed_out.weight", "lm_head.weight"):
        head = tensors.pop(name, None)
        if head is not None and EMBEDDING in tensors and not torch.equal(head, tensors[EMBEDDING]):
            raise ContractError(
                f"{CONFIG}: tie_word_embeddings is true, but {name} is not the embedding table; set it as in the "
                "network's training"
            )


def _our_weights(config: TransformerConfig, model: Transformer, tensors: Weights) -> Weights:
    """Our name -> weight in float32, after checking names, shapes and dtypes by the config."""
    if "lm_head.weight" in tensors:
        tensors["embed_out.weight"] = tensors.pop("lm_head.weight")
    names = _names(config)
    expected = model.state_dict()
    problems = [
        f"has a tensor {name} that is not in the config's network" for name in sorted({*tensors} - {*names.values()})
    ]
    for name, stored_name in names.items():
        tensor, shape = tensors.get(stored_name), tuple(expected[name].shape)
        if tensor is None or tuple(tensor.shape) != shape or not tensor.is_floating_point():
            problems.append(f"has {_described(tensor)} for {stored_name}; the config requires floats {shape}")
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise ContractError(f"{WEIGHTS} {problems[0]}{more}; the files are not of the same model")
    return {name: tensors[stored_name].to(torch.float32, copy=True) for name, stored_name in names.items()}


def _described(tensor: Tensor | None) -> str:
    return "nothing" if tensor is None else f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def _json(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()
