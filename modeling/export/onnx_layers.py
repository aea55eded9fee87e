"""Modules of a network as operators of an ONNX graph.

- `add_network`: from tokens to logits; `unsupported_module`: the first module without operators

Outside attention, values are (batch x tokens, width), so that a linear layer is a single Gemm on the stored matrix and
a tied head needs no second table. Integers are multiplied as integers. Attention computes all scores of a row at once
and masks windows: memory grows with the square of the tokens.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import nn

from modeling.attention.int8_cache import Int8CacheAttention
from modeling.attention.kinds import AttentionKind, PooledAttention, WindowAttention
from modeling.attention.multi_head import Attention
from modeling.export.onnx_graph import OnnxGraph
from modeling.feed_forward import FeedForward
from modeling.initialization import logit_multiplier
from modeling.layers.int8 import LARGEST, Int8Embedding, Int8Linear, StaticInt8Linear
from modeling.layers.linear import LowRankLinear, ResizedLinear
from modeling.layers.sparse_feed_forward import SparseFeedForward
from modeling.replacements import kind_of
from modeling.rotary import signed_frequencies
from modeling.transformer import DecoderLayer, Transformer
from modeling.transformer_config import TransformerConfig

MAX_INT64 = torch.iinfo(torch.int64).max


def add_network(graph: OnnxGraph, model: Transformer) -> str:
    """Add a supported network in evaluation mode: from the input `tokens` to logits (batch, tokens, vocabulary)."""
    config = model.config
    rows = _Rows(graph, config)
    hidden = _add(graph, "embedding", model.embedding, graph.node("Reshape", "tokens", graph.integers(-1)))
    for index, layer in enumerate(model.layers.children()):
        assert isinstance(layer, DecoderLayer)
        hidden = _decoder_layer(rows, f"layers.{index}", layer, hidden)
    hidden = _times(graph, _norm(graph, "final_norm", model.final_norm, hidden), logit_multiplier(config))
    logits = _add(graph, "head", model.head, hidden)
    return graph.node("Reshape", logits, graph.node("Concat", rows.shape, graph.integers(-1), axis=0))


def unsupported_module(model: Transformer) -> str | None:
    """First module without ONNX operators, as "has ... as layers.0.attention"; None if all are supported."""
    for name, module in model.named_modules():
        if isinstance(module, Attention) and isinstance(module.kind, PooledAttention):
            return f"has pooled attention as {name}"
        if type(module) not in _SUPPORTED:
            return f"has {kind_of(module)} as {name}"
    return None


@dataclass(frozen=True)
class _Rows:
    """Values shared by all layers, added to the graph at first use."""

    graph: OnnxGraph
    config: TransformerConfig
    _masks: dict[AttentionKind, str] = field(default_factory=dict)

    @cached_property
    def shape(self) -> str:
        """[batch, tokens]."""
        return self.graph.node("Shape", "tokens")

    @cached_property
    def by_head(self) -> str:
        """[batch, tokens, heads, 3, head_width], with heads inferred."""
        inner = self.graph.integers(-1, 3, self.config.head_width)
        return self.graph.node("Concat", self.shape, inner, axis=0)

    @cached_property
    def rotation(self) -> tuple[str, str]:
        """Cosines and sines, (tokens, head_width) each."""
        graph, config = self.graph, self.config
        positions = graph.node("Unsqueeze", graph.cast(self._positions, torch.float32), graph.integers(1))
        speeds = signed_frequencies(config.head_width, config.rotary_base, torch.zeros(()))
        angles = graph.node("Mul", positions, graph.constant("rotary_speeds", speeds))
        return graph.node("Cos", angles), graph.node("Sin", angles)

    def mask(self, kind: AttentionKind) -> str:
        """Attention mask: bool (tokens, tokens), or (batch, 1, tokens, tokens) with separate documents."""
        if kind not in self._masks:
            graph = self.graph
            queries = graph.node("Unsqueeze", self._positions, graph.integers(1))
            mask = graph.node("LessOrEqual", self._positions, queries)
            if isinstance(kind, WindowAttention):
                before = graph.node("Sub", queries, graph.integer(kind.window))
                mask = graph.node("And", mask, graph.node("Greater", self._positions, before))
            if self.config.separate_documents:
                mask = graph.node("And", mask, self._same_document)
            self._masks[kind] = mask
        return self._masks[kind]

    @cached_property
    def _positions(self) -> str:
        """Positions 0, 1, 2 ... of the tokens of a row."""
        count = self.graph.node("Gather", self.shape, self.graph.integer(1))
        return self.graph.node("Range", self.graph.integer(0), count, self.graph.integer(1))

    @cached_property
    def _same_document(self) -> str:
        """(batch, 1, tokens, tokens) bool; documents as in `modeling.documents`."""
        graph = self.graph
        ends = graph.cast(graph.node("Equal", "tokens", graph.integer(self.config.end_of_text)), torch.int64)
        # The last token of a row does not begin a document: the row is padded with an end.
        padded = graph.node("Pad", ends, graph.integers(0, 0, 0, 1), graph.integer(1))
        following = graph.node("Slice", padded, graph.integers(1), graph.integers(MAX_INT64), graph.integers(1))
        begins = graph.cast(graph.node("Greater", ends, following), torch.int64)
        documents = graph.node("CumSum", begins, graph.integer(1))
        queries, keys = (graph.node("Unsqueeze", documents, graph.integers(1, axis)) for axis in (3, 2))
        return graph.node("Equal", queries, keys)


def _decoder_layer(rows: _Rows, name: str, layer: DecoderLayer, hidden: str) -> str:
    graph, multiplier = rows.graph, layer.residual_multiplier
    normed = _norm(graph, f"{name}.attention_norm", layer.attention_norm, hidden)
    update = _attention(rows, f"{name}.attention", layer.attention, normed)
    hidden = graph.node("Add", hidden, _times(graph, update, multiplier))
    normed = _norm(graph, f"{name}.feed_forward_norm", layer.feed_forward_norm, hidden)
    update = _add(graph, f"{name}.feed_forward", layer.feed_forward, normed)
    return graph.node("Add", hidden, _times(graph, update, multiplier))


def _attention(rows: _Rows, name: str, module: Attention, hidden: str) -> str:
    graph = rows.graph
    projected = _add(graph, f"{name}.query_key_value", module.query_key_value, hidden)
    by_head = graph.node("Reshape", projected, rows.by_head)
    # (query, key, value; batch, heads, tokens, head_width)
    by_head = graph.node("Transpose", by_head, perm=[3, 0, 2, 1, 4])
    rotated = _rotated(graph, by_head, rows.rotation, module.head_width)
    queries, keys = (graph.node("Gather", rotated, graph.integer(index), axis=0) for index in (0, 1))
    values = graph.node("Gather", by_head, graph.integer(2), axis=0)
    keys = graph.node("Transpose", keys, perm=[0, 1, 3, 2])
    scores = graph.node("MatMul", _times(graph, queries, module.scale), keys)
    scores = graph.node("Where", rows.mask(module.kind), scores, graph.number(-torch.inf))
    mixed = graph.node("MatMul", graph.node("Softmax", scores, axis=-1), values)
    mixed = graph.node("Transpose", mixed, perm=[0, 2, 1, 3])
    flat = graph.node("Reshape", mixed, graph.integers(-1, module.heads * module.head_width))
    return _add(graph, f"{name}.output", module.output, flat)


def _rotated(graph: OnnxGraph, by_head: str, rotation: tuple[str, str], head_width: int) -> str:
    """Rotated queries and keys (2, batch, heads, tokens, head_width), as by `modeling.rotary.rotate`."""

    def part(values: str, axis: int, start: int, stop: int) -> str:
        return graph.node("Slice", values, *(graph.integers(bound) for bound in (start, stop, axis)))

    vectors, half = part(by_head, 0, 0, 2), head_width // 2
    swapped = graph.node("Concat", part(vectors, -1, half, head_width), part(vectors, -1, 0, half), axis=-1)
    cosines, sines = rotation
    return graph.node("Add", graph.node("Mul", vectors, cosines), graph.node("Mul", swapped, sines))


def _norm(graph: OnnxGraph, name: str, module: nn.LayerNorm, hidden: str) -> str:
    parameters = [graph.weight(f"{name}.{kind}", getattr(module, kind)) for kind in ("weight", "bias")]
    return graph.node("LayerNormalization", hidden, *parameters, axis=-1, epsilon=module.eps)


def _times(graph: OnnxGraph, values: str, factor: float) -> str:
    return values if factor == 1 else graph.node("Mul", values, graph.number(factor))


def _add(graph: OnnxGraph, name: str, module: nn.Module, values: str) -> str:
    """Add a module with a single input: rows (rows, width), or tokens (rows,) of an embedding."""
    return _ADDERS[type(module)](graph, name, module, values)


def _linear(graph: OnnxGraph, name: str, module: nn.Linear, rows: str) -> str:
    bias = [] if module.bias is None else [graph.weight(f"{name}.bias", module.bias)]
    return graph.node("Gemm", rows, graph.weight(f"{name}.weight", module.weight), *bias, transB=1)


def _low_rank(graph: OnnxGraph, name: str, module: LowRankLinear, rows: str) -> str:
    return _add(graph, f"{name}.up", module.up, _add(graph, f"{name}.down", module.down, rows))


def _int8(graph: OnnxGraph, name: str, module: Int8Linear, rows: str) -> str:
    """int8 linear layer with a scale per row, as in `modeling.layers.int8.quantize_rows`."""
    largest = graph.node("ReduceMax", graph.node("Abs", rows), graph.integers(-1))
    scales = graph.node("Div", largest, graph.number(LARGEST))
    divisors = graph.node("Max", scales, graph.number(torch.finfo(torch.float32).tiny))
    codes = graph.node("Round", graph.node("Div", rows, divisors))
    return _scaled(graph, name, module, _int8_product(graph, name, module, codes), scales)


def _static_int8(graph: OnnxGraph, name: str, module: StaticInt8Linear, rows: str) -> str:
    scale = graph.number(module.input_scale)
    codes = graph.node("Round", graph.node("Div", rows, scale))
    codes = graph.node("Clip", codes, graph.number(-LARGEST), graph.number(LARGEST))
    return _scaled(graph, name, module, _int8_product(graph, name, module, codes), scale)


def _int8_product(graph: OnnxGraph, name: str, module: Int8Linear | StaticInt8Linear, codes: str) -> str:
    """(rows, inputs) integers in float32 -> (rows, outputs) float32, summed in int32."""
    matrix = graph.node("Transpose", graph.weight(f"{name}.weight", module.weight), perm=[1, 0])
    return graph.cast(graph.node("MatMulInteger", graph.cast(codes, torch.int8), matrix), torch.float32)


def _scaled(graph: OnnxGraph, name: str, module: Int8Linear | StaticInt8Linear, sums: str, scales: str) -> str:
    """Sums times the scales of activations and weights, plus bias."""
    result = graph.node("Mul", graph.node("Mul", sums, scales), graph.weight(f"{name}.scale", module.scale))
    return result if module.bias is None else graph.node("Add", result, graph.weight(f"{name}.bias", module.bias))


def _embedding(graph: OnnxGraph, name: str, module: nn.Embedding, tokens: str) -> str:
    return graph.node("Gather", graph.weight(f"{name}.weight", module.weight), tokens)


def _int8_embedding(graph: OnnxGraph, name: str, module: Int8Embedding, tokens: str) -> str:
    codes, scales = (
        graph.node("Gather", graph.weight(f"{name}.{kind}", tensor), tokens)
        for kind, tensor in (("weight", module.weight), ("scale", module.scale))
    )
    return graph.node("Mul", graph.cast(codes, torch.float32), graph.node("Unsqueeze", scales, graph.integers(1)))


def _feed_forward(graph: OnnxGraph, name: str, module: FeedForward, rows: str) -> str:
    active = graph.node("Relu", _add(graph, f"{name}.up", module.up, rows))
    return _add(graph, f"{name}.down", module.down, active)


def _sparse_feed_forward(graph: OnnxGraph, name: str, module: SparseFeedForward, rows: str) -> str:
    before = _add(graph, f"{name}.up", module.up, rows)
    active = graph.node("ThresholdedRelu", before, alpha=module.threshold)
    return _add(graph, f"{name}.down", module.down, active)


_ADDERS: dict[type[nn.Module], Callable[[OnnxGraph, str, Any, str], str]] = {
    nn.Linear: _linear,
    ResizedLinear: _linear,
    LowRankLinear: _low_rank,
    Int8Linear: _int8,
    StaticInt8Linear: _static_int8,
    nn.Embedding: _embedding,
    Int8Embedding: _int8_embedding,
    FeedForward: _feed_forward,
    SparseFeedForward: _sparse_feed_forward,
}
_SUPPORTED = {*_ADDERS, Transformer, nn.ModuleList, DecoderLayer, nn.LayerNorm, Attention, Int8CacheAttention}
