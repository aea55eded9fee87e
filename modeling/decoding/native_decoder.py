"""Native decoding of small networks: a single call of C per token instead of a hundred torch operations.

At width 128 a token takes torch a millisecond or more, nearly all of it overhead between the matrix products
(docs/results.md). The C kernel (`modeling/kernels/decoder.c`) works on the same tensors and the same key-value cache.
It supports networks on the CPU with full attention and float32, int8, packed or low-rank matrices; all others are
computed by torch. Rows of a batch are decoded together, so that weights are read once for eight of them, and shared out
over threads; each gets the same bits as alone.

- `NativeDecoder.create`: a decoder for a network and its cache, or None
"""

import ctypes
import functools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
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

MAX_BYTES = 64 * 2**20
"""Maximum size of the weights: in larger networks products dominate, and torch's use all cores."""
MAX_BYTES_FOR_PREFILL = 2**21
"""Maximum size of weights that stay in the processor's cache while they are read for each token of a prompt."""
ROWS_TOGETHER = 8
"""Rows that weights are read for at a time, by each thread."""
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
        *(
            (name, c_int64)
            for name in ("layers_count", "width", "head_width", "capacity", "max_width", "rows_together")
        ),
        *((name, c_float) for name in ("epsilon", "residual_multiplier", "logit_multiplier")),
        ("frequencies", c_void_p),
        ("embedding", _Matrix),
        ("final_norm", _Norm),
        ("head", _Linear),
        ("layers", POINTER(_Layer)),
        ("scratch", c_void_p),
    ]


class NativeDecoder:
    """Appends tokens to a key-value cache and predicts the next ones; leaves the cache in the same state as torch."""

    def __init__(self, model: Transformer, cache: DecoderCache) -> None:
        """Collect the addresses of weights and cache; use `create`, which checks that the network is supported."""
        config = model.config
        kernels = library()
        assert kernels is not None
        self._cache, self._kernels, self._model = cache, kernels, model
        self.fast_prefill = tensor_bytes(model) <= MAX_BYTES_FOR_PREFILL
        """Whether prompts are processed as fast as by torch, without memory for the activations of many tokens."""
        self._layers = (_Layer * config.layers)(
            *(_layer(layer, entries) for layer, entries in zip(model.layers.children(), cache.layers, strict=True))
        )
        self._frequencies = rotary_frequencies(config.head_width, config.rotary_base)
        capacity = cache.capacity + 1
        names = ("query_key_value", "output", "up", "down")
        linears = [getattr(layer, name) for layer in self._layers for name in names]
        matrices = [matrix for linear in linears for matrix in (linear.first, linear.second)]
        max_width = max(config.width, *(max(matrix.outputs, matrix.inputs) for matrix in matrices))
        rows = len(cache.lengths)
        threads = 1 if self.fast_prefill else max(1, min(torch.get_num_threads(), rows))
        together = min(ROWS_TOGETHER, -(-rows // threads))
        row_numbers = config.head_width + 3 * config.width + 3 * max_width
        self._scratch = torch.empty(threads, capacity + 2 * config.head_width + together * row_numbers)
        self._logits = torch.empty(rows, config.vocabulary_size)
        self._decoders = [
            _Decoder(
                config.layers, config.width, config.head_width, capacity, max_width, together,
                config.norm_epsilon, residual_multiplier(config), logit_multiplier(config),
                self._frequencies.data_ptr(), _matrix(model.embedding), _norm(model.final_norm),
                _linear(model.head), self._layers, scratch.data_ptr(),
            )
            for scratch in self._scratch
        ]  # fmt: skip
        """One for each thread, which has its own buffers."""
        cache.assign_in_order()

    @classmethod
    def create(cls, model: Transformer, cache: DecoderCache) -> "NativeDecoder | None":
        """Decoder of a network and its cache, or None if it is not supported or there are no kernels.

        It is valid until the network changes or rows of the cache are dropped.
        """
        return cls(model, cache) if _is_supported(model) and library() is not None else None

    def predict(self, inputs: Sequence[Sequence[int]]) -> Tensor:
        """Append the tokens of each row, at least one, to the cache.

        Returns:
            Logits (rows, vocabulary) float32 after the last token of each row; the next call overwrites them.
        """
        assert len(inputs) == len(self._cache.lengths)
        for row, tokens in enumerate(inputs):
            for token in tokens[:-1]:
                self._finish([self._begin(self._decoders[0], row, [token], None)()])
        last, share = [tokens[-1] for tokens in inputs], -(-len(inputs) // len(self._decoders))
        calls = [
            self._begin(decoder, first, last[first : first + share], self._logits[first:])
            for decoder, first in zip(self._decoders, range(0, len(last), share), strict=False)
        ]
        others = [_threads().submit(call) for call in calls[1:]]
        self._finish([calls[0](), *(other.result() for other in others)])
        return self._logits

    def _begin(self, decoder: _Decoder, first: int, tokens: Sequence[int], logits: Tensor | None) -> Callable[[], int]:
        """The call that appends a token to each row from `first` on; may run on any thread."""
        lengths = self._cache.lengths[first : first + len(tokens)]
        assert int(lengths.max()) < self._cache.capacity, "generation creates a new cache before this one overflows"
        before = lengths.clone()
        lengths += 1
        target = None if logits is None else logits.data_ptr()
        token_array = (c_int64 * len(tokens))(*tokens)

        def call() -> int:
            return int(
                self._kernels.decode(ctypes.byref(decoder), first, len(tokens), token_array, before.data_ptr(), target)
            )

        return call

    @staticmethod
    def _finish(failures: Sequence[int]) -> None:
        if any(failures):
            raise MemoryError("no memory for a token's activations")


@functools.cache
def _threads() -> ThreadPoolExecutor:
    """Threads beside the caller's; the kernels run without Python's lock."""
    return ThreadPoolExecutor(thread_name_prefix="decoder")


os.register_at_fork(after_in_child=_threads.cache_clear)  # threads do not survive a fork


def _is_supported(model: Transformer) -> bool:
    if any(module._forward_hooks or module._forward_pre_hooks for module in model.modules()):
        return False  # hooks need the modules to be called
    config = model.config
    full = all(isinstance(config.layer_attention(layer), FullAttention) for layer in range(config.layers))
    norms = [module for module in model.modules() if isinstance(module, nn.LayerNorm)]
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
        and _is_cpu_float32(model.final_norm.weight)
        and all(norm.elementwise_affine for norm in norms)
        and type(model.embedding) in _TABLES
        and all(_is_supported_linear(linear) for linear in linears)
        and tensor_bytes(model) <= MAX_BYTES
    )


_ATTENTIONS = (Attention, Int8CacheAttention)
_FEED_FORWARDS = (FeedForward, SparseFeedForward)
_TABLES = (nn.Embedding, Int8Embedding, PackedEmbedding)
_MATRICES = (nn.Linear, ResizedLinear, Int8Linear, StaticInt8Linear, PackedLinear)


def _is_supported_linear(module: nn.Module) -> bool:
    if type(module) is LowRankLinear:
        return _is_supported_linear(module.down) and _is_supported_linear(module.up)
    tensors = (*module._parameters.values(), *module._buffers.values())
    return type(module) in _MATRICES and all(tensor is None or tensor.is_contiguous() for tensor in tensors)


def _is_cpu_float32(tensor: Tensor) -> bool:
    return tensor.is_cpu and tensor.dtype == torch.float32


def _matrix(module: nn.Module) -> _Matrix:
    """Matrix of a linear layer or an embedding."""
    tensors: dict[str, Any] = {**module._parameters, **module._buffers}
    address = {name: None if tensor is None else tensor.data_ptr() for name, tensor in tensors.items()}
    if isinstance(module, PackedLinear | PackedEmbedding):
        outputs, columns, grid = len(module.scale), module.columns, module.grid
        return _Matrix(
            PACKED, outputs, columns, grid.bits, grid.group, address["packed"], address["scale"], address.get("bias")
        )
    outputs, inputs = tensors["weight"].shape
    kind = INT8 if tensors["weight"].dtype == torch.int8 else FLOAT
    input_scale = getattr(module, "input_scale", 0.0)
    return _Matrix(
        kind, outputs, inputs, 0, 0, address["weight"], address.get("scale"), address.get("bias"), input_scale
    )


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
