"""Select the layers, channels, heads and neurons of a teacher that its student keeps.

- `plan_student`: selection by activations on calibration windows
- `Stream`: projection of the teacher's residual stream to the student's; `StudentPlan`: the whole selection
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from data_schemas.errors import ConfigError
from modeling.distillation.student_activations import (
    Activations,
    Moments,
    feed_forwards,
    layers_of,
    measure,
    norm_moments,
)
from modeling.distillation.student_config import check_student, evenly_spread, most_influential
from modeling.replacements import replacements_of
from modeling.transformer import Transformer
from modeling.transformer_config import TransformerConfig

StreamChoice = Literal["importance", "pca"]
LayerChoice = Literal["even", "influence"]


@dataclass(frozen=True)
class Stream:
    """The student's residual stream as a projection of the teacher's: x P."""

    matrix: Tensor
    """P, (teacher's width, student's width) float64; columns have norm 1."""
    is_identity: bool

    def project(self, vectors: Tensor) -> Tensor:
        """(..., teacher's width) -> (..., student's width), in the same dtype."""
        return vectors if self.is_identity else (vectors.double() @ self.matrix.to(vectors.device)).to(vectors.dtype)


@dataclass(frozen=True)
class StudentPlan:
    """Parts of the teacher that the student keeps."""

    config: TransformerConfig
    layers: tuple[int, ...]
    """The teacher's layer for each of the student's layers."""
    stream: Stream
    heads: tuple[Tensor, ...]
    """Indices of the kept heads of each layer of the student, (heads,) int64."""
    values: tuple[Tensor, ...]
    """Indices of the kept channels of those heads' values, (heads, head_width) int64."""
    neurons: tuple[Mapping[str, Tensor], ...]
    """Indices of the kept neurons by feed-forward, of each layer of the student, int64."""
    activations: Activations
    norms: Mapping[str, Moments]
    """Result of `norm_moments`; empty if the stream is the identity."""


def plan_student(
    teacher: Transformer,
    config: TransformerConfig,
    calibration: Tensor,
    stream: StreamChoice = "importance",
    layers: LayerChoice = "even",
) -> StudentPlan:
    """Select the kept parts; arguments and errors as in `modeling.distillation.student.student_from`."""
    for name, description in replacements_of(teacher).items():
        raise ConfigError(
            f"the teacher's {name} was replaced by {description['kind']} in an earlier pass, but a student can only be "
            "cut from an uncompressed network: distill first"
        )
    check_student(teacher.config, config)
    activations = measure(teacher, calibration)
    influence = [layer.influence for layer in activations.layers]
    kept = evenly_spread(teacher.config, config)
    if layers == "influence":
        kept = most_influential(teacher.config, config, influence)
    projection = _stream(teacher.config, config, activations, stream)
    moments = {} if projection.is_identity else norm_moments(teacher, calibration, projection.project)
    attention = [_select_heads(teacher, config, layer, activations.layers[layer].heads) for layer in kept]
    neurons = [_select_neurons(teacher, config, index, layer, activations) for index, layer in enumerate(kept)]
    heads, values = zip(*attention, strict=True)
    return StudentPlan(config, kept, projection, heads, values, tuple(neurons), activations, moments)


def _stream(
    teacher: TransformerConfig, student: TransformerConfig, activations: Activations, choice: StreamChoice
) -> Stream:
    """Most important channels, or principal components of the normalized stream.

    Principal components as in SliceGPT (Ashkboos et al. 2024, 2401.15024), but with LayerNorm unchanged: norms subtract
    the mean, so no matrix reads the mean of the stream, and the components are embedded so that their mean is 0 for
    every token: P = Q B^T, where the columns of Q are components and those of B a basis of the orthogonal complement of
    (1, ..., 1). The student's norms then subtract 0, and its variance is that of the kept components. With all
    components it would equal the teacher's except for epsilon.
    """
    width, narrow = teacher.width, student.width
    if choice == "importance":
        channels = _largest(activations.channels, narrow)
        return Stream(torch.eye(width, dtype=torch.float64)[:, channels], is_identity=narrow == width)
    components = torch.linalg.eigh(activations.stream.covariance).eigenvectors[:, width - (narrow - 1) :]
    ones_first = torch.cat([torch.ones(narrow, 1), torch.eye(narrow)[:, 1:]], 1).double()
    basis = torch.linalg.qr(ones_first).Q[:, 1:]
    return Stream(components @ basis.T, is_identity=False)


def _select_heads(
    teacher: Transformer, student: TransformerConfig, layer: int, mixed: Moments
) -> tuple[Tensor, Tensor]:
    """Heads, and channels of their values, that contribute most variance to the stream; means become biases."""
    shape = (teacher.config.heads, teacher.config.head_width)
    output = layers_of(teacher)[layer].attention.output.weight.detach().double().cpu()
    # Variance of a head's contribution: the trace of W C W^T over its own channels.
    products = (output.T @ output * mixed.covariance).view(*shape, *shape)
    within = torch.stack([products[head, :, head] for head in range(shape[0])])
    heads = _largest(within.sum((1, 2)), student.heads)
    values = torch.stack([_largest(within[head].sum(1), student.head_width) for head in heads])
    return heads, values


def _select_neurons(
    teacher: Transformer, student: TransformerConfig, index: int, layer: int, activations: Activations
) -> dict[str, Tensor]:
    """Neurons that contribute most to the stream: variance of the activation times squared norm of the weights."""
    experts, selected = student.layer_experts(index), {}
    for name, feed_forward in feed_forwards(layers_of(teacher)[layer]).items():
        neurons = student.feed_forward_width
        if experts is not None:
            neurons = experts.shared_width if name == "shared" else experts.expert_width or neurons
        weights = feed_forward.down.weight.detach().double().cpu()
        contribution = activations.layers[layer].neurons[name].covariance.diagonal() * weights.square().sum(0)
        selected[name] = _largest(contribution, neurons)
    return selected


def _largest(values: Tensor, count: int) -> Tensor:
    """Indices of the `count` largest values, ascending."""
    return values.argsort(descending=True, stable=True)[:count].sort().values
