"""Export dense networks as GGUF for llama.cpp, whose GPT-NeoX has a fixed GELU instead of our ReLU.

- `write_gguf`: network and tokenizer in a single file
- `rescaled`: weights scaled so that GELU approximates ReLU
- `gelu_error`: the remaining difference, measured

For a large c, GELU(c x) equals c ReLU(x) except for x near 0: the error is below 0.17 / c, and 0 beyond 10 / c, since
ggml's GELU is exactly 0 or x there. The factor has to be removed again: the whole residual stream is c times as large,
and every norm after it divides it out, with c^2 times the epsilon. With c a power of two all of this is exact in
floating point. Dividing `down` by c would also work in float32, but weights of 0.02 / 1024 are subnormal in float16,
and the float16 scales of quantized blocks would underflow.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data_schemas.errors import ContractError, EnvironmentProblem
from modeling.export.gpt_neox import EXPORT_HEADRACE, Weights, dense_weights, tensor_names
from modeling.export.huggingface import end_of_text_token
from modeling.finite_weights import to_dtype
from modeling.transformer import Transformer
from modeling.transformer_config import TransformerConfig

if TYPE_CHECKING:
    from gguf import GGMLQuantizationType, GGUFWriter

GELU_SCALE = 1024
"""c. With float16 activations (some GPU back ends) feed-forward activations beyond 65,504 / c = 64 overflow."""

PRE_TOKENIZERS = {
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+": "dbrx",
}
"""Split pattern -> its name in llama.cpp. `llama-bpe` has the same pattern but skips the merges for whole words."""

_OUTER = {"embedding": "token_embd", "final_norm": "output_norm", "head": "output"}
_INNER = {
    "attention_norm": "attn_norm",
    "attention.query_key_value": "attn_qkv",
    "attention.output": "attn_output",
    "feed_forward_norm": "ffn_norm",
    "feed_forward.up": "ffn_up",
    "feed_forward.down": "ffn_down",
}
LOGIT_ROWS = 256
"""Positions per computation of logits."""
_GGML_GELU_LIMIT = 10.0


@dataclass(frozen=True)
class GeluError:
    """Difference between the rescaled network with GELU and the original."""

    scale: int
    """c."""
    tokens: int
    """Number of compared predictions."""
    relative: float
    """Norm of the difference of all logits over the norm of the logits."""
    agreement: float
    """Share of predictions with the same most likely token."""
    largest_activation: float
    """Largest feed-forward activation on these tokens, scaled by c."""

    def sentence(self) -> str:
        """Summary of the error for the user."""
        changed = 100 * (1 - self.agreement)
        return (
            f"llama.cpp has GELU instead of the network's ReLU. With inputs scaled by {self.scale:,}, this changes the "
            f"logits by {self.relative:.1e} of their norm and {changed:.2f} % of the most likely tokens, measured on "
            f"{self.tokens:,} tokens. The largest activation is {self.largest_activation:,.0f}; a back end that "
            f"computes in float16 overflows at {torch.finfo(torch.float16).max:,.0f}."
        )


def write_gguf(
    model: Transformer,
    tokenizer_json: bytes,
    path: Path,
    name: str,
    description: str,
    dtype: torch.dtype = torch.float32,
    scale: int = GELU_SCALE,
) -> None:
    """Write a GGUF file that llama.cpp runs.

    Args:
        model: dense float network.
        tokenizer_json: tokenizer of the network, in the format of the `tokenizers` package.
        path: path of the new file.
        name: name of the model in the file's metadata.
        description: description of the model in the file's metadata.
        dtype: dtype of matrices: float32, bfloat16 or float16; vectors are float32. In a float16 file `ffn_down` is
            float32 too: ggml rounds the activations multiplied with a float16 matrix to float16, and scaled by c they
            may overflow.
        scale: c, a power of two.

    Raises:
        ContractError: if llama.cpp does not support the network or tokenizer, or a weight overflows `dtype`.
        EnvironmentProblem: if the `gguf` package is missing.
    """
    gguf = _gguf()
    config = model.config
    weights = rescaled(dense_weights(model, "llama.cpp's GPT-NeoX"), config, scale)
    untied = config.model_copy(update={"tied_embeddings": False})
    names = tensor_names(untied, _OUTER, _INNER, "blk.{}.")
    writer = gguf.GGUFWriter(path, "gptneox")
    try:
        _add_network(writer, config, name, description, scale, dtype)
        _add_tokenizer(writer, tokenizer_json, config)
        for weight, tensor in weights.items():
            _add_tensor(writer, names[weight], tensor, dtype)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()


def rescaled(weights: Mapping[str, Tensor], config: TransformerConfig, scale: int) -> Weights:
    """Weights in llama.cpp's layout, scaled so that GELU approximates ReLU; norms need c^2 times the epsilon.

    Args:
        weights: result of `dense_weights`.
        config: config of the network.
        scale: c, a power of two.

    Returns:
        Tensors under our names, including the head, with `query_key_value` as all queries, all keys, all values.
    """
    assert scale > 0 and scale & (scale - 1) == 0, f"{scale} is not a power of two; weights would be rounded"
    result = dict(weights)
    result.setdefault("head.weight", weights["embedding.weight"])
    scaled = ("embedding.weight", "attention.output.weight", "attention.output.bias", "feed_forward.down.bias")
    for name, tensor in weights.items():
        if name.endswith((*scaled, "feed_forward.up.weight", "feed_forward.up.bias")):
            result[name] = tensor * scale
        elif name.endswith(("query_key_value.weight", "query_key_value.bias")):
            by_head = tensor.view(config.heads, 3, config.head_width, -1)
            result[name] = by_head.transpose(0, 1).reshape(tensor.shape)
    return result


@torch.inference_mode()
def gelu_error(model: Transformer, tokens: Tensor, scale: int = GELU_SCALE) -> GeluError:
    """Compare a network with itself as computed by llama.cpp on a CPU, except for summation order and cache dtype.

    Args:
        model: dense float network in evaluation mode.
        tokens: (rows, length) int64 of typical text; processed row by row.
        scale: c.
    """
    difference = total = agreed = largest = 0.0
    for index in range(len(tokens)):
        row = tokens[index : index + 1]
        exact_states = model.hidden_states(row)[0]
        with _gelu_feed_forwards(model, scale) as feed_forwards:
            gelu_states = model.hidden_states(row)[0]
        largest = max(largest, *(feed_forward.largest for feed_forward in feed_forwards))
        for start in range(0, len(row[0]), LOGIT_ROWS):
            exact, logits = (
                model.head(states[start : start + LOGIT_ROWS]).double() for states in (exact_states, gelu_states)
            )
            difference += float((logits - exact).square().sum())
            total += float(exact.square().sum())
            agreed += float((logits.argmax(-1) == exact.argmax(-1)).sum())
    return GeluError(scale, tokens.numel(), (difference / total) ** 0.5, agreed / tokens.numel(), largest)


class _GeluFeedForward(nn.Module):
    """A feed-forward with ggml's GELU. Scaling activations by c = 2^n is equivalent to scaling the weights."""

    def __init__(self, feed_forward: nn.Module, scale: int) -> None:
        super().__init__()
        self.up, self.down = feed_forward.get_submodule("up"), feed_forward.get_submodule("down")
        self.scale = scale
        self.largest = 0.0

    def forward(self, hidden: Tensor) -> Tensor:
        """(..., width) -> (..., width)."""
        active = ggml_gelu(self.up(hidden) * self.scale)
        self.largest = max(self.largest, float(active.amax()))
        return self.down(active / self.scale)  # type: ignore[no-any-return]


def ggml_gelu(values: Tensor) -> Tensor:
    """GELU as computed by ggml on a CPU (ggml-cpu/vec.h): tanh approximation in float16; exact beyond -10 and 10."""
    rounded = F.gelu(values.half().float(), approximate="tanh").half().to(values.dtype)
    return torch.where(values.abs() < _GGML_GELU_LIMIT, rounded, values.relu())


@contextmanager
def _gelu_feed_forwards(model: Transformer, scale: int) -> Iterator[list[_GeluFeedForward]]:
    """Replace the feed-forwards of `model` during the block."""
    originals = {name: module for name, module in model.named_modules() if name.endswith(".feed_forward")}
    replacements = {name: _GeluFeedForward(module, scale) for name, module in originals.items()}
    try:
        for name, module in replacements.items():
            model.set_submodule(name, module)
        yield list(replacements.values())
    finally:
        for name, original in originals.items():
            model.set_submodule(name, original)


def _gguf() -> Any:
    try:
        import gguf
    except ImportError:
        raise EnvironmentProblem(
            "GGUF export needs llama.cpp's package gguf, which is not installed; "
            "install it with: pip install 'headrace[gguf]'"
        ) from None
    return gguf


def _add_network(
    writer: "GGUFWriter", config: TransformerConfig, name: str, description: str, scale: int, dtype: torch.dtype
) -> None:
    """Add the metadata that llama.cpp requires of GPT-NeoX (its `llama_model_gptneox::load_arch_hparams`)."""
    file_types = {torch.float32: "ALL_F32", torch.float16: "MOSTLY_F16", torch.bfloat16: "MOSTLY_BF16"}
    writer.add_name(name)
    writer.add_description(description)
    writer.add_file_type(_gguf().LlamaFileType[file_types[dtype]])
    writer.add_context_length(config.context_length)
    writer.add_embedding_length(config.width)
    writer.add_block_count(config.layers)
    writer.add_feed_forward_length(config.feed_forward_width)
    writer.add_head_count(config.heads)
    writer.add_vocab_size(config.vocabulary_size)
    writer.add_parallel_residual(False)
    writer.add_rope_dimension_count(config.head_width)
    writer.add_rope_freq_base(config.rotary_base)
    writer.add_layer_norm_eps(config.norm_epsilon * scale**2)


def _add_tensor(writer: "GGUFWriter", name: str, tensor: Tensor, dtype: torch.dtype) -> None:
    keeps_float32 = tensor.ndim < 2 or (dtype == torch.float16 and ".ffn_down." in name)
    stored = to_dtype(name, tensor, torch.float32 if keeps_float32 else dtype)
    if stored.dtype == torch.bfloat16:  # numpy has no bfloat16
        kind: GGMLQuantizationType = _gguf().GGMLQuantizationType.BF16
        writer.add_tensor(name, stored.view(torch.uint8).numpy(), raw_dtype=kind)
    else:
        writer.add_tensor(name, stored.numpy())


def _add_tokenizer(writer: "GGUFWriter", tokenizer_json: bytes, config: TransformerConfig) -> None:
    """Add byte-level BPE as llama.cpp's `gpt2`; ids that only pad the network's vocabulary become unused tokens."""
    kinds = _gguf().TokenType
    end_of_text_token(tokenizer_json, config)
    tokenizer = json.loads(tokenizer_json)
    pre_tokenizer = _pre_tokenizer(tokenizer)
    tokens = [f"[PAD{index}]" for index in range(config.vocabulary_size)]
    types = [kinds.UNUSED] * config.vocabulary_size
    for token, index in tokenizer["model"]["vocab"].items():
        tokens[index], types[index] = token, kinds.NORMAL
    for added in tokenizer["added_tokens"]:
        kind = kinds.CONTROL if added["special"] else kinds.USER_DEFINED
        tokens[added["id"]], types[added["id"]] = added["content"], kind
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in tokenizer["model"]["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre_tokenizer)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(merges)
    writer.add_bos_token_id(config.end_of_text)
    writer.add_eos_token_id(config.end_of_text)
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(False)


def _pre_tokenizer(tokenizer: Mapping[str, Any]) -> str:
    """llama.cpp's name of the tokenizer's split pattern; GGUF files cannot contain a custom pattern.

    Raises:
        ContractError: if llama.cpp does not know the pattern and would tokenize differently.
    """
    model = tokenizer["model"]
    split, *others = (tokenizer.get("pre_tokenizer") or {}).get("pretokenizers", [{}])
    pattern = split.get("pattern", {}).get("Regex")
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}
    is_byte_level = [{name: step.get(name) for name in byte_level} for step in others] == [byte_level]
    plain = not (tokenizer.get("normalizer") or model.get("ignore_merges") or model.get("byte_fallback"))
    if model.get("type") != "BPE" or pattern not in PRE_TOKENIZERS or not (is_byte_level and plain):
        raise ContractError(
            f"the tokenizer is {model.get('type')} with the split pattern {pattern!r}, which llama.cpp does not know, "
            "so that it would tokenize differently; accepted is byte-level BPE from the stage tokenize; "
            f"{EXPORT_HEADRACE}"
        )
    return PRE_TOKENIZERS[pattern]
