"""Dense networks as GGUF for llama.cpp, whose GPT-NeoX has GELU built in where ours has ReLU.

- `write_gguf`: network and tokenizer in one file
- `rescaled`: weights with which GELU acts as ReLU
- `gelu_error`: what is left of the difference, measured

For a large c, GELU(c x) is c ReLU(x) but for x near 0: it is off by less than 0.17 / c, and beyond 10 / c by nothing,
since ggml's GELU is exactly 0 or x there. The factor must go again: here the whole residual stream is c times as large,
and every norm after it divides it out, its epsilon times c^2. With c a power of two all of this is exact in floating
point. Dividing `down` by c would do as well in float32, but weights of 0.02 / 1024 are no normal float16 numbers, and
the scales of quantized blocks, which are float16, would vanish.
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
"""c. With float16 activations (some GPU back ends) a feed-forward value beyond 65,504 / c = 64 overflows."""

PRE_TOKENIZERS = {
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+": "dbrx",
}
"""Split pattern -> llama.cpp's name for it. `llama-bpe` has the same one, but takes whole words past the merges."""

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
"""Positions whose logits are held at once."""
_GGML_GELU_BORDER = 10.0


@dataclass(frozen=True)
class GeluError:
    """How far the rescaled network under GELU is from the network."""

    scale: int
    """c."""
    tokens: int
    """Predictions compared."""
    relative: float
    """Norm of the difference of all logits over the norm of the logits."""
    agreement: float
    """Share of the predictions with the same likeliest token."""
    largest_activation: float
    """Of the feed-forwards on these tokens, c times ours."""

    def sentence(self) -> str:
        """For people."""
        changed = 100 * (1 - self.agreement)
        return (
            f"llama.cpp has GELU where the network has ReLU. With inputs {self.scale:,} times as large, it changes the "
            f"logits by {self.relative:.1e} of their size and {changed:.2f} % of the likeliest tokens, measured on "
            f"{self.tokens:,} tokens. The largest activation there is {self.largest_activation:,.0f}; a back end that "
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
    """Write one file that llama.cpp runs.

    Args:
        model: a dense float network.
        tokenizer_json: its tokenizer, of the `tokenizers` package.
        path: of the new file.
        name: of the model, for the file's metadata.
        description: the same.
        dtype: of the matrices: float32, bfloat16 or float16; vectors are float32. In a float16 file `ffn_down` is
            float32 too: ggml rounds what a float16 matrix is multiplied with to float16, and c times an activation may
            be too large for that.
        scale: c, a power of two.

    Raises:
        ContractError: where llama.cpp cannot express network or tokenizer, or `dtype` cannot hold a weight.
        EnvironmentProblem: where the `gguf` package is missing.
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
        for ours, tensor in weights.items():
            _add_tensor(writer, names[ours], tensor, dtype)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()


def rescaled(weights: Mapping[str, Tensor], config: TransformerConfig, scale: int) -> Weights:
    """Weights in llama.cpp's layout, with which GELU acts as ReLU; the epsilon of the norms must be c^2 times ours.

    Args:
        weights: of `dense_weights`.
        config: of the network.
        scale: c, a power of two.

    Returns:
        Tensors under our names, the head always among them, `query_key_value` as all queries, all keys, all values.
    """
    assert scale > 0 and scale & (scale - 1) == 0, f"{scale} is no power of two, so that weights would be rounded"
    result = dict(weights)
    result.setdefault("head.weight", weights["embedding.weight"])
    enlarged = ("embedding.weight", "attention.output.weight", "attention.output.bias", "feed_forward.down.bias")
    for name, tensor in weights.items():
        if name.endswith((*enlarged, "feed_forward.up.weight", "feed_forward.up.bias")):
            result[name] = tensor * scale
        elif name.endswith(("query_key_value.weight", "query_key_value.bias")):
            by_head = tensor.view(config.heads, 3, config.head_width, -1)
            result[name] = by_head.transpose(0, 1).reshape(tensor.shape)
    return result


@torch.inference_mode()
def gelu_error(model: Transformer, tokens: Tensor, scale: int = GELU_SCALE) -> GeluError:
    """Compare a network with itself as llama.cpp computes it on a CPU, but for the order of sums and the cache's dtype.

    Args:
        model: a dense float network in evaluation mode.
        tokens: (rows, length) int64, in the network's own language; one row is predicted at a time.
        scale: c.
    """
    difference = total = agreed = largest = 0.0
    for number in range(len(tokens)):
        row = tokens[number : number + 1]
        exact_states = model.hidden_states(row)[0]
        with _under_gelu(model, scale) as feed_forwards:
            states = model.hidden_states(row)[0]
        largest = max(largest, *(one.largest for one in feed_forwards))
        for start in range(0, len(states), LOGIT_ROWS):
            exact, found = (model.head(one[start : start + LOGIT_ROWS]).double() for one in (exact_states, states))
            difference += float((found - exact).square().sum())
            total += float(exact.square().sum())
            agreed += float((found.argmax(-1) == exact.argmax(-1)).sum())
    return GeluError(scale, tokens.numel(), (difference / total) ** 0.5, agreed / tokens.numel(), largest)


class _GeluFeedForward(nn.Module):
    """A feed-forward of ours under ggml's GELU. Scaling before and after is scaling the weights, c being 2^n."""

    def __init__(self, ours: nn.Module, scale: int) -> None:
        super().__init__()
        self.up, self.down = ours.get_submodule("up"), ours.get_submodule("down")
        self.scale = scale
        self.largest = 0.0

    def forward(self, hidden: Tensor) -> Tensor:
        """(..., width) -> (..., width)."""
        active = ggml_gelu(self.up(hidden) * self.scale)
        self.largest = max(self.largest, float(active.amax()))
        return self.down(active / self.scale)  # type: ignore[no-any-return]


def ggml_gelu(values: Tensor) -> Tensor:
    """GELU as ggml computes it on a CPU (ggml-cpu/vec.h): by tanh, from and to float16; exact beyond -10 and 10."""
    rounded = F.gelu(values.half().float(), approximate="tanh").half().to(values.dtype)
    return torch.where(values.abs() < _GGML_GELU_BORDER, rounded, values.relu())


@contextmanager
def _under_gelu(model: Transformer, scale: int) -> Iterator[list[_GeluFeedForward]]:
    """`model` with other feed-forwards, until the block ends."""
    ours = {name: module for name, module in model.named_modules() if name.endswith(".feed_forward")}
    theirs = {name: _GeluFeedForward(module, scale) for name, module in ours.items()}
    try:
        for name, module in theirs.items():
            model.set_submodule(name, module)
        yield list(theirs.values())
    finally:
        for name, original in ours.items():
            model.set_submodule(name, original)


def _gguf() -> Any:
    try:
        import gguf
    except ImportError:
        raise EnvironmentProblem(
            "GGUF files are written with llama.cpp's package gguf, which is not installed; "
            "install it with: pip install 'headrace[gguf]'"
        ) from None
    return gguf


def _add_network(
    writer: "GGUFWriter", config: TransformerConfig, name: str, description: str, scale: int, dtype: torch.dtype
) -> None:
    """What llama.cpp asks of a GPT-NeoX file (its `llama_model_gptneox::load_arch_hparams`)."""
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
    is_wide = tensor.ndim < 2 or dtype == torch.float32 or (dtype == torch.float16 and ".ffn_down." in name)
    stored = to_dtype(name, tensor, torch.float32 if is_wide else dtype)
    if stored.dtype == torch.bfloat16:  # numpy has no such type
        kind: GGMLQuantizationType = _gguf().GGMLQuantizationType.BF16
        writer.add_tensor(name, stored.view(torch.uint8).numpy(), raw_dtype=kind)
    else:
        writer.add_tensor(name, stored.numpy())


def _add_tokenizer(writer: "GGUFWriter", tokenizer_json: bytes, config: TransformerConfig) -> None:
    """Byte-level BPE as llama.cpp's `gpt2`; ids that only pad the network's vocabulary become unused tokens."""
    kinds = _gguf().TokenType
    end_of_text_token(tokenizer_json, config)
    tokenizer = json.loads(tokenizer_json)
    pre_tokenizer = _pre_tokenizer(tokenizer)
    tokens = [f"[PAD{number}]" for number in range(config.vocabulary_size)]
    types = [kinds.UNUSED] * config.vocabulary_size
    for token, number in tokenizer["model"]["vocab"].items():
        tokens[number], types[number] = token, kinds.NORMAL
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
    """llama.cpp's name for how the tokenizer splits text; files cannot carry a pattern of their own.

    Raises:
        ContractError: where llama.cpp has no such rule, so that it would give other tokens.
    """
    model = tokenizer["model"]
    split, *rest = (tokenizer.get("pre_tokenizer") or {}).get("pretokenizers", [{}])
    pattern = split.get("pattern", {}).get("Regex")
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}
    as_ours = [{name: one.get(name) for name in byte_level} for one in rest] == [byte_level]
    plain = not (tokenizer.get("normalizer") or model.get("ignore_merges") or model.get("byte_fallback"))
    if model.get("type") != "BPE" or pattern not in PRE_TOKENIZERS or not (as_ours and plain):
        raise ContractError(
            f"the tokenizer is {model.get('type')} that splits text by {pattern!r}, and llama.cpp has no name for such "
            "a one, so that it would give other tokens; byte-level BPE as the stage tokenize makes it works; "
            f"{EXPORT_HEADRACE}"
        )
    return PRE_TOKENIZERS[pattern]
