"""Decoding of small networks in one call of C per token, in place of a hundred calls of torch.

At width 128 a token takes torch a millisecond or more, nearly all of it between the products (docs/results.md). The C
loop (`modeling/kernels/decoder.c`) works on the same tensors and on the same cache; it takes networks on the CPU with
full attention and float32, int8, packed or low-rank matrices. All others go on with torch.

- `NativeDecoder.of`: a decoder for a network and its cache, or None
"""

import ctypes
from collections.abc import Sequence
from ctypes import POINTER, Structure, c_float, c_int64, c_void_p
from typing import Any

import torch
from torch import Tensor, nn

from modeling.attention.int8_cache import Int8CacheAttention, Int8LayerCache
from modeling.attention.key_value_cache import DecoderCache, LayerCache
from modeling.attention.kinds import FullAttention
from modeling.attention.multi_head import Attention
from modeling.evaluation.peak_memory import tensor_bytes
from modeling.feed_forward import FeedForward
from modeling.initialization import logit_multiplier, residual_multiplier
from modeling.kernels.compilation import library
from modeling.layers.int8 import Int8Embedding, Int8Linear, StaticInt8Linear
from modeling.layers.linear import LowRankLinear, ResizedLinear
from modeling.layers.packed import PackedEmbedding, PackedLinear
from modeling.layers.sparse_feed_forward import SparseFeedForward
from modeling.rotary import rotary_frequencies
from modeling.transformer import Transformer

MOST_BYTES = 64 * 2**20
"""Of weights: beyond, products take most of the time, and torch's use all cores."""
MOST_BYTES_FOR_PROMPTS = 2**21
"""Of weights that are read again for each token of a prompt: they stay in the processor's cache."""
ABSENT, FLOAT, INT8, PACKED = range(4)


class _Matrix(Structure):
    _fields_ = [
        *((name, c_int64) for name in ("kind", "outputs", "inputs", "bits", "group")),
        *((name, c_void_p) for name in ("weights", "scales", "bias")),
        ("input_scale", c_float),
    ]


class _Linear(Structure):
    _fields_ = [("first", _Matrix), ("second", _Matrix)]


class _Norm(Structure):
    _fields_ = [("weight", c_void_p), ("bias", c_void_p)]


class _Layer(Structure):
    _fields_ = [
        ("attention_norm", _Norm),
        ("feed_forward_norm", _Norm),
        *((name, _Linear) for name in ("query_key_value", "output", "up", "down")),
        ("down_by_neuron", c_void_p),
        ("heads", c_int64),
        ("threshold", c_float),
        ("scale", c_float),
        ("entries", c_void_p),
        ("entry_scales", c_void_p),
    ]


class _Decoder(Structure):
    _fields_ = [
        *((name, c_int64) for name in ("layers_count", "width", "head_width", "places", "most_between")),
        *((name, c_float) for name in ("epsilon", "residual_multiplier", "logit_multiplier")),
        ("speeds", c_void_p),
        ("embedding", _Matrix),
        ("final_norm", _Norm),
        ("head", _Linear),
        ("layers", POINTER(_Layer)),
        ("scratch", c_void_p),
    ]


class NativeDecoder:
    """Takes tokens into a cache and predicts what follows; the cache is as torch would have left it."""

    def __init__(self, model: Transformer, cache: DecoderCache) -> None:
        """Look up where everything lies; `of` says whether it can be done."""
        config = model.config
        kernels = library()
        assert kernels is not None
        self._cache, self._kernels, self._model = cache, kernels, model
        self.takes_prompts = tensor_bytes(model) <= MOST_BYTES_FOR_PROMPTS
        """Whether it is as fast as torch's products of many tokens, and needs no memory for their activations."""
        self._layers = (_Layer * config.layers)(
            *(_layer(layer, entries) for layer, entries in zip(model.layers.children(), cache.layers, strict=True))
        )
        self._speeds = rotary_frequencies(config.head_width, config.rotary_base)
        places = cache.capacity + 1
        linears = [getattr(one, name) for one in self._layers for name in ("query_key_value", "output", "up", "down")]
        matrices = [matrix for one in linears for matrix in (one.first, one.second)]
        most = max(config.width, *(max(one.outputs, one.inputs) for one in matrices))
        self._scratch = torch.empty(3 * config.width + places + config.head_width + 3 * most)
        self._logits = torch.empty(len(cache.lengths), config.vocabulary_size)
        self._decoder = _Decoder(
            config.layers, config.width, config.head_width, places, most,
            config.norm_epsilon, residual_multiplier(config), logit_multiplier(config),
            self._speeds.data_ptr(), _matrix(model.embedding), _norm(model.final_norm),
            _linear(model.head), self._layers, self._scratch.data_ptr(),
        )  # fmt: skip
        self._at = ctypes.byref(self._decoder)
        cache.assign_in_order()

    @classmethod
    def of(cls, model: Transformer, cache: DecoderCache) -> "NativeDecoder | None":
        """The decoder of an unchanged network and its cache, until rows of the cache are dropped; None without one."""
        return cls(model, cache) if _can(model) and library() is not None else None

    def predict(self, unseen: Sequence[Sequence[int]]) -> Tensor:
        """Take the tokens of each row, at least one; logits (rows, vocabulary) float32 behind the last of each.

        The next call overwrites them.
        """
        assert len(unseen) == len(self._cache.lengths)
        for row, tokens in enumerate(unseen):
            for token in tokens[:-1]:
                self._decode(row, [token], None)
        self._decode(0, [tokens[-1] for tokens in unseen], self._logits.data_ptr())
        return self._logits

    def _decode(self, first: int, tokens: Sequence[int], logits: int | None) -> None:
        lengths = self._cache.lengths[first : first + len(tokens)]
        assert int(lengths.max()) < self._cache.capacity, "generation starts a new cache before one overflows"
        given = (c_int64 * len(tokens))(*tokens)
        failed = self._kernels.decode(self._at, first, len(tokens), given, lengths.data_ptr(), logits)
        if failed:
            raise MemoryError("no memory for a token's activations")
        lengths += 1


def _can(model: Transformer) -> bool:
    if any(module._forward_hooks or module._forward_pre_hooks for module in model.modules()):
        return False  # somebody watches the modules
    config = model.config
    full = all(isinstance(config.layer_attention(layer), FullAttention) for layer in range(config.layers))
    norms = [one for one in model.modules() if isinstance(one, nn.LayerNorm)]
    linears: list[Any] = [model.head]
    layers: list[Any] = list(model.layers.children())
    for layer in layers:
        attention, feed_forward = layer.attention, layer.feed_forward
        if type(attention) not in _ATTENTIONS or type(feed_forward) not in _FEED_FORWARDS:
            return False
        linears += [attention.query_key_value, attention.output, feed_forward.up]
        if type(feed_forward) is FeedForward or feed_forward.neuron_major() is None:
            linears.append(feed_forward.down)
    return bool(
        full
        and _is_plain(model.final_norm.weight)
        and all(one.elementwise_affine for one in norms)
        and type(model.embedding) in _TABLES
        and all(_takes(one) for one in linears)
        and tensor_bytes(model) <= MOST_BYTES
    )


_ATTENTIONS = (Attention, Int8CacheAttention)
_FEED_FORWARDS = (FeedForward, SparseFeedForward)
_TABLES = (nn.Embedding, Int8Embedding, PackedEmbedding)
_MATRICES = (nn.Linear, ResizedLinear, Int8Linear, StaticInt8Linear, PackedLinear)


def _takes(module: nn.Module) -> bool:
    if type(module) is LowRankLinear:
        return _takes(module.down) and _takes(module.up)
    tensors = (*module._parameters.values(), *module._buffers.values())
    return type(module) in _MATRICES and all(one is None or one.is_contiguous() for one in tensors)


def _is_plain(tensor: Tensor) -> bool:
    return tensor.is_cpu and tensor.dtype == torch.float32


def _matrix(module: nn.Module) -> _Matrix:
    """Of a linear layer or an embedding."""
    tensors: dict[str, Any] = {**module._parameters, **module._buffers}
    at = {name: None if one is None else one.data_ptr() for name, one in tensors.items()}
    if isinstance(module, PackedLinear | PackedEmbedding):
        outputs, columns, grid = len(module.scale), module.columns, module.grid
        return _Matrix(PACKED, outputs, columns, grid.bits, grid.group, at["packed"], at["scale"], at.get("bias"))
    outputs, inputs = tensors["weight"].shape
    kind = INT8 if tensors["weight"].dtype == torch.int8 else FLOAT
    input_scale = getattr(module, "input_scale", 0.0)
    return _Matrix(kind, outputs, inputs, 0, 0, at["weight"], at.get("scale"), at.get("bias"), input_scale)


def _linear(module: nn.Module) -> _Linear:
    if isinstance(module, LowRankLinear):
        return _Linear(_matrix(module.down), _matrix(module.up))
    return _Linear(_matrix(module), _Matrix())


def _norm(module: nn.Module) -> _Norm:
    return _Norm(module.get_parameter("weight").data_ptr(), module.get_parameter("bias").data_ptr())


def _layer(layer: nn.Module, entries: LayerCache | Int8LayerCache) -> _Layer:
    attention: Any = layer.attention
    feed_forward: Any = layer.feed_forward
    codes, scales = entries.tensors()
    by_neuron = feed_forward.neuron_major() if isinstance(feed_forward, SparseFeedForward) else None
    return _Layer(
        _norm(layer.get_submodule("attention_norm")),
        _norm(layer.get_submodule("feed_forward_norm")),
        _linear(attention.query_key_value),
        _linear(attention.output),
        _linear(feed_forward.up),
        _linear(feed_forward.down),
        None if by_neuron is None else by_neuron.data_ptr(),
        attention.heads,
        getattr(feed_forward, "threshold", 0.0),
        attention.scale,
        codes.data_ptr(),
        None if scales is None else scales.data_ptr(),
    )
