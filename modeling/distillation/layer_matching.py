"""A student's layers held against its teacher's: residual streams, and how queries, keys and values relate.

- `Matching`: which layers, and with what weight; `Watched`: what both networks' layers gave in one forward pass
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

HIDDEN = -1e30
"""The score of a later token; finite, so that differences stay numbers."""


@dataclass(frozen=True)
class Matching:
    """What is compared besides the predictions."""

    teacher: Transformer
    layers: tuple[int, ...]
    """The teacher's layer behind which its stream is held against that behind each of the student's."""
    projection: Tensor
    """(teacher's width, student's width), fixed: how the student was cut."""
    hidden_weight: float = 0.0
    """Of the mean squared error of the streams, over the mean square of the teacher's (FitNets, Romero et al. 2014,
    1412.6550; TinyBERT, Jiao et al. 2019, 1909.10351, equation 8)."""
    relation_weight: float = 0.0
    """Of the divergence of the last layer's relations (MiniLMv2, Wang et al. 2020, 2012.15828, 3.1)."""

    def check(self, student: TransformerConfig) -> None:
        """Refuse relations where attention is not full.

        Raises:
            ConfigError: naming the attention.
        """
        for name, config in (("teacher", self.teacher.config), ("student", student)):
            kind = config.layer_attention(config.layers - 1)
            if self.relation_weight and (not isinstance(kind, FullAttention) or config.separate_documents):
                found = "keeps documents apart" if config.separate_documents else f"is of the kind {kind.kind!r}"
                raise ConfigError(
                    f"attention in the {name}'s last layer {found}, but relations compare all pairs of tokens, as full "
                    "attention does; set relation_weight to 0 (hidden_weight works with any attention)"
                )

    @contextmanager
    def watching(self, student: Transformer) -> Iterator["Watched"]:
        """While it is open, both networks' next forward pass over the same tokens is watched."""
        watched = Watched(self, student.config.heads)
        handles = []
        if self.hidden_weight:
            theirs = [layers_of(self.teacher)[layer] for layer in self.layers]
            handles += [_keep(layer, watched.teacher_streams) for layer in theirs]
            handles += [_keep(layer, watched.student_streams) for layer in layers_of(student)]
        if self.relation_weight:
            for model, kept in ((self.teacher, watched.teacher_relations), (student, watched.student_relations)):
                handles.append(_keep(layers_of(model)[-1].attention.query_key_value, kept))
        try:
            yield watched
        finally:
            for handle in handles:
                handle.remove()


@dataclass
class Watched:
    """One forward pass of both."""

    matching: Matching
    student_heads: int
    teacher_streams: list[Tensor] = field(default_factory=list)
    student_streams: list[Tensor] = field(default_factory=list)
    teacher_relations: list[Tensor] = field(default_factory=list)
    student_relations: list[Tensor] = field(default_factory=list)

    def loss(self) -> Tensor:
        """Scalar, weighted; both networks have run."""
        matching = self.matching
        total = torch.zeros((), device=matching.teacher.final_norm.weight.device)
        pairs = list(zip(self.teacher_streams, self.student_streams, strict=True))
        for theirs, ours in pairs:
            wanted = theirs.detach() @ matching.projection.to(theirs)
            error = F.mse_loss(ours.float(), wanted.float()) / wanted.float().square().mean()
            total = total + matching.hidden_weight / len(pairs) * error
        for theirs, ours in zip(self.teacher_relations, self.student_relations, strict=True):
            total = total + matching.relation_weight * relation_divergence(
                theirs.detach(), ours, matching.teacher.config.heads, self.student_heads
            )
        return total


def relation_divergence(teacher: Tensor, student: Tensor, teacher_heads: int, student_heads: int) -> Tensor:
    """KL(teacher | student) of softmax(X X^T / sqrt(d)) over the tokens so far, for X of queries, keys and values each.

    Args:
        teacher: (batch, tokens, 3 x width), as `query_key_value` gives it.
        student: (batch, tokens, 3 x its width).
        teacher_heads: its heads.
        student_heads: the student's; both are regrouped into as many relation heads as divide both.

    Returns:
        Scalar, the mean over rows, relation heads, tokens and the three.
    """
    relation_heads = math.gcd(teacher_heads, student_heads)
    theirs, ours = (
        _relations(projected, heads, relation_heads)
        for projected, heads in ((teacher, teacher_heads), (student, student_heads))
    )
    return (theirs.exp() * (theirs - ours)).sum(-1).mean()


def _relations(projected: Tensor, heads: int, relation_heads: int) -> Tensor:
    """Log-probabilities (3, batch, relation heads, tokens, tokens), next to none for later tokens."""
    vectors = torch.unflatten(projected.float(), -1, (heads, 3, -1)).movedim(-2, 0).flatten(-2)
    vectors = torch.unflatten(vectors, -1, (relation_heads, -1)).transpose(-2, -3)
    scores = vectors @ vectors.mT / math.sqrt(vectors.shape[-1])
    later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
    logarithms: Tensor = scores.masked_fill(later, HIDDEN).log_softmax(-1)
    return logarithms


def _keep(module: nn.Module, kept: list[Tensor]) -> Any:
    def keep(_: nn.Module, inputs: Any, outputs: Any) -> None:
        kept.append(outputs[0] if isinstance(outputs, tuple) else outputs)

    return module.register_forward_hook(keep)
