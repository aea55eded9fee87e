"""Losses on intermediate layers: residual streams, and relations of queries, keys and values.

- `Matching`: layers to match and their weights; `LayerOutputs`: outputs of both networks' layers in a forward pass
- `relation_divergence`: the relation loss of MiniLMv2
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data_schemas.errors import ConfigError
from modeling.attention.kinds import FullAttention
from modeling.distillation.student_activations import layers_of
from modeling.transformer import Transformer
from modeling.transformer_config import TransformerConfig

MASKED = -1e30
"""Score of later tokens; finite, so that differences are not NaN."""


@dataclass(frozen=True)
class Matching:
    """Comparison of layers in addition to the predictions."""

    teacher: Transformer
    layers: tuple[int, ...]
    """For each layer of the student, the layer of the teacher whose output is compared with it."""
    projection: Tensor
    """(teacher's width, student's width), fixed: the projection by which the student was cut."""
    hidden_weight: float = 0.0
    """Weight of the mean squared error of the residual streams, relative to the mean square of the teacher's (FitNets,
    Romero et al. 2014, 1412.6550; TinyBERT, Jiao et al. 2019, 1909.10351, equation 8)."""
    relation_weight: float = 0.0
    """Weight of the divergence of the last layer's relations (MiniLMv2, Wang et al. 2020, 2012.15828, section 3.1)."""

    def check(self, student: TransformerConfig) -> None:
        """Check that attention is full if relations are compared.

        Raises:
            ConfigError: if attention in a last layer is not full; names its kind.
        """
        for name, config in (("teacher", self.teacher.config), ("student", student)):
            kind = config.layer_attention(config.layers - 1)
            if self.relation_weight and (not isinstance(kind, FullAttention) or config.separate_documents):
                problem = "separates documents" if config.separate_documents else f"is of kind {kind.kind!r}"
                raise ConfigError(
                    f"attention in the {name}'s last layer {problem}, but the relation loss needs full attention, "
                    "which compares all pairs of tokens; set relation_weight to 0 (hidden_weight has no such limit)"
                )

    @contextmanager
    def capture(self, student: Transformer) -> Iterator["LayerOutputs"]:
        """Capture the layer outputs of both networks during the block, in a forward pass over the same tokens."""
        outputs = LayerOutputs(self, student.config.heads)
        handles = []
        if self.hidden_weight:
            teacher_layers = [layers_of(self.teacher)[layer] for layer in self.layers]
            handles += [_append_output(layer, outputs.teacher_streams) for layer in teacher_layers]
            handles += [_append_output(layer, outputs.student_streams) for layer in layers_of(student)]
        if self.relation_weight:
            for model, tensors in ((self.teacher, outputs.teacher_relations), (student, outputs.student_relations)):
                handles.append(_append_output(layers_of(model)[-1].attention.query_key_value, tensors))
        try:
            yield outputs
        finally:
            for handle in handles:
                handle.remove()


@dataclass
class LayerOutputs:
    """Layer outputs of both networks in a forward pass."""

    matching: Matching
    student_heads: int
    teacher_streams: list[Tensor] = field(default_factory=list)
    student_streams: list[Tensor] = field(default_factory=list)
    teacher_relations: list[Tensor] = field(default_factory=list)
    student_relations: list[Tensor] = field(default_factory=list)

    def loss(self) -> Tensor:
        """Weighted sum of the losses, a scalar; after the forward passes of both networks."""
        matching = self.matching
        total = torch.zeros((), device=matching.teacher.final_norm.weight.device)
        pairs = list(zip(self.teacher_streams, self.student_streams, strict=True))
        for teacher, student in pairs:
            target = (teacher.detach() @ matching.projection.to(teacher)).float()
            error = F.mse_loss(student.float(), target) / target.square().mean()
            total = total + matching.hidden_weight / len(pairs) * error
        for teacher, student in zip(self.teacher_relations, self.student_relations, strict=True):
            total = total + matching.relation_weight * relation_divergence(
                teacher.detach(), student, matching.teacher.config.heads, self.student_heads
            )
        return total


def relation_divergence(teacher: Tensor, student: Tensor, teacher_heads: int, student_heads: int) -> Tensor:
    """KL(teacher | student) of softmax(X X^T / sqrt(d)) over earlier tokens, for X each of queries, keys and values.

    Args:
        teacher: (batch, tokens, 3 x teacher's width), the output of `query_key_value`.
        student: (batch, tokens, 3 x student's width).
        teacher_heads: heads of the teacher.
        student_heads: heads of the student; both are regrouped into gcd(teacher_heads, student_heads) relation heads.

    Returns:
        Scalar, the mean over rows, relation heads, tokens and the three.
    """
    relation_heads = math.gcd(teacher_heads, student_heads)
    teacher_logs, student_logs = (
        _relations(projected, heads, relation_heads)
        for projected, heads in ((teacher, teacher_heads), (student, student_heads))
    )
    return (teacher_logs.exp() * (teacher_logs - student_logs)).sum(-1).mean()


def _relations(projected: Tensor, heads: int, relation_heads: int) -> Tensor:
    """Log-probabilities (3, batch, relation heads, tokens, tokens); about -1e30 for later tokens."""
    vectors = torch.unflatten(projected.float(), -1, (heads, 3, -1)).movedim(-2, 0).flatten(-2)
    vectors = torch.unflatten(vectors, -1, (relation_heads, -1)).transpose(-2, -3)
    scores = vectors @ vectors.mT / math.sqrt(vectors.shape[-1])
    later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
    log_probabilities: Tensor = scores.masked_fill(later, MASKED).log_softmax(-1)
    return log_probabilities


def _append_output(module: nn.Module, tensors: list[Tensor]) -> Any:
    def append(_: nn.Module, inputs: Any, outputs: Any) -> None:
        tensors.append(outputs[0] if isinstance(outputs, tuple) else outputs)

    return module.register_forward_hook(append)
