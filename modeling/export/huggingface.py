"""Dense networks as Hugging Face transformers reads them (`GPTNeoXForCausalLM`), and back.

- `to_gpt_neox`: the network's files; `tokenizer_files`: the tokenizer's
- `from_gpt_neox`: a network from such a folder, ours or another's

Read by transformers 4 and 5: `config.json` says rotary positions and `dtype` in both spellings, and the head goes by
the name that version 4 knows and version 5 still writes.
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
"""Constants that old versions of transformers saved beside the weights."""


def to_gpt_neox(model: Transformer, dtype: torch.dtype = torch.float32) -> dict[str, bytes]:
    """File name -> bytes of a dense network; the same model gives the same bytes.

    Raises:
        ContractError: where GPT-NeoX cannot express the network, a weight is not finite, or `dtype` cannot hold it.
    """
    weights = dense_weights(model, "Hugging Face's GPT-NeoX")
    names = _names(model.config)
    tensors = {names[ours]: to_dtype(ours, tensor, dtype) for ours, tensor in weights.items()}
    end = model.config.end_of_text
    return {
        CONFIG: _json(to_huggingface(model.config, dtype)),
        WEIGHTS: safetensors.torch.save(tensors, metadata={"format": "pt"}),
        "generation_config.json": _json({"bos_token_id": end, "eos_token_id": end, "pad_token_id": end}),
    }


def tokenizer_files(tokenizer_json: bytes, config: TransformerConfig) -> dict[str, bytes]:
    """File name -> bytes of the tokenizer beside `to_gpt_neox`'s files.

    Args:
        tokenizer_json: of the `tokenizers` package.
        config: of the network.

    Raises:
        ContractError: where it has no token for the end of a text, or more tokens than the network knows.
    """
    end = end_of_text_token(tokenizer_json, config)
    described = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": end,
        "eos_token": end,
        "clean_up_tokenization_spaces": False,
        "model_max_length": config.context_length,
        "model_input_names": ["input_ids", "attention_mask"],
    }
    return {"tokenizer.json": tokenizer_json, "tokenizer_config.json": _json(described)}


def end_of_text_token(tokenizer_json: bytes, config: TransformerConfig) -> str:
    """The token whose id the network takes for the end of a text, such as `<|endoftext|>`.

    Raises:
        ContractError: where the tokenizer has none, or more tokens than the network knows.
    """
    tokenizer = json.loads(tokenizer_json)
    added = {int(token["id"]): str(token["content"]) for token in tokenizer["added_tokens"]}
    tokens = {*tokenizer["model"]["vocab"].values(), *added}
    if max(tokens) >= config.vocabulary_size or config.end_of_text not in added:
        raise ContractError(
            f"tokenizer.json has token ids up to {max(tokens)} and the special tokens {sorted(added)}, but the network "
            f"has {config.vocabulary_size} tokens and {config.end_of_text} for the end of a text; take the tokenizer "
            "that the network was trained with"
        )
    return added[config.end_of_text]


def from_gpt_neox(folder: Path) -> Transformer:
    """The network in a folder with `config.json` and safetensors, in evaluation mode on the CPU, in float32.

    Raises:
        NotFoundError: where a file is missing.
        ContractError: where the folder holds a network that ours cannot express, naming the field, or damaged files.
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
        read = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise NotFoundError(f"{path.parent} has no {path.name}; a network is {CONFIG} and {WEIGHTS}") from None
    except ValueError as error:
        raise ContractError(f"{path} is not JSON ({error}); save the model again") from None
    if not isinstance(read, dict):
        raise ContractError(f"{path} holds a {type(read).__name__}, not an object; save the model again")
    return read


def _read_tensors(folder: Path) -> Weights:
    """All tensors of one file, or of the files that an index names."""
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
    """Forget a head that is the embedding's table, and refuse one that says it is and is not."""
    for name in ("embed_out.weight", "lm_head.weight"):
        head = tensors.pop(name, None)
        if head is not None and EMBEDDING in tensors and not torch.equal(head, tensors[EMBEDDING]):
            raise ContractError(
                f"{CONFIG}: tie_word_embeddings is true, but {name} is not the embedding's table; set the one that the "
                "network was trained with"
            )


def _our_weights(config: TransformerConfig, model: Transformer, tensors: Weights) -> Weights:
    """Our name -> weight in float32, after holding names, shapes and dtypes against the config."""
    if "lm_head.weight" in tensors:
        tensors["embed_out.weight"] = tensors.pop("lm_head.weight")
    names = _names(config)
    expected = model.state_dict()
    problems = [
        f"has a tensor {name} that the config has no place for" for name in sorted({*tensors} - {*names.values()})
    ]
    for ours, theirs in names.items():
        found, shape = tensors.get(theirs), tuple(expected[ours].shape)
        if found is None or tuple(found.shape) != shape or not found.is_floating_point():
            problems.append(f"has {_described(found)} for {theirs}, and the config calls for floats {shape}")
    if problems:
        more = f" ({len(problems) - 1} more such)" if len(problems) > 1 else ""
        raise ContractError(f"{WEIGHTS} {problems[0]}{more}; the files are not of one model")
    return {ours: tensors[theirs].to(torch.float32, copy=True) for ours, theirs in names.items()}


def _described(tensor: Tensor | None) -> str:
    return "nothing" if tensor is None else f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def _json(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()
