"""What of a network becomes its student: which layers, channels, heads and neurons, by what they do.

- `plan_student`: chooses them on calibration windows
- `Stream`: how the teacher's residual stream becomes the student's; `StudentPlan`: all that is chosen
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
    """The student's residual stream as a product of the teacher's: x P."""

    matrix: Tensor
    """P, (teacher's width, student's width) float64; of norm 1 in each column."""
    whole: bool
    """P is the unit matrix."""

    def project(self, vectors: Tensor) -> Tensor:
        """(..., teacher's width) -> (..., student's width), in the same dtype."""
        return vectors if self.whole else (vectors.double() @ self.matrix.to(vectors.device)).to(vectors.dtype)


@dataclass(frozen=True)
class StudentPlan:
    """What stays of the teacher."""

    config: TransformerConfig
    layers: tuple[int, ...]
    """The teacher's layer in the place of each of the student's."""
    stream: Stream
    heads: tuple[Tensor, ...]
    """Of each student's layer: the heads that stay, (heads,) int64."""
    values: tuple[Tensor, ...]
    """Of each student's layer: the numbers of those heads' values that stay, (heads, head_width) int64."""
    neurons: tuple[Mapping[str, Tensor], ...]
    """Of each student's layer and each of its feed-forwards: the neurons that stay, int64."""
    activations: Activations
    norms: Mapping[str, Moments]
    """From `norm_moments`; empty where the stream is whole."""


def plan_student(
    teacher: Transformer,
    config: TransformerConfig,
    calibration: Tensor,
    stream: StreamChoice = "importance",
    layers: LayerChoice = "even",
) -> StudentPlan:
    """Choose what stays; arguments and errors as in `modeling.distillation.student.student_from`."""
    for name, description in replacements_of(teacher).items():
        raise ConfigError(
            f"an earlier pass has made the teacher's {name} {description['kind']}, but a "
            "student can only be cut from a network as pretraining leaves it: distill first"
        )
    check_student(teacher.config, config)
    found = measure(teacher, calibration)
    influence = [layer.influence for layer in found.layers]
    kept = evenly_spread(teacher.config, config)
    if layers == "influence":
        kept = most_influential(teacher.config, config, influence)
    own_stream = _stream(teacher.config, config, found, stream)
    moments = {} if own_stream.whole else norm_moments(teacher, calibration, own_stream.project)
    parts = [_choose_heads(teacher, config, layer, found.layers[layer].heads) for layer in kept]
    neurons = [_choose_neurons(teacher, config, place, layer, found) for place, layer in enumerate(kept)]
    heads, values = zip(*parts, strict=True)
    return StudentPlan(config, kept, own_stream, heads, values, tuple(neurons), found, moments)


def _stream(teacher: TransformerConfig, student: TransformerConfig, found: Activations, choice: StreamChoice) -> Stream:
    """Channels, or principal components of the normed stream.

    Principal components as in SliceGPT (Ashkboos et al. 2024, 2401.15024), but with LayerNorm kept as it is: norms
    subtract the mean, so the stream's mean is nothing that any matrix reads, and the components are embedded so that
    their mean is 0 for every token: P = Q B^T, where the columns of Q are components and those of B a basis of what is
    orthogonal to (1, ..., 1). The student's norms then subtract nothing, and its variance is that of the components
    that are kept. With all of them it would be the teacher's but for epsilon.
    """
    width, narrow = teacher.width, student.width
    if choice == "importance":
        channels = _largest(found.channels, narrow)
        return Stream(torch.eye(width, dtype=torch.float64)[:, channels], whole=narrow == width)
    components = torch.linalg.eigh(found.stream.covariance).eigenvectors[:, width - (narrow - 1) :]
    ones_first = torch.cat([torch.ones(narrow, 1), torch.eye(narrow)[:, 1:]], 1).double()
    basis = torch.linalg.qr(ones_first).Q[:, 1:]
    return Stream(components @ basis.T, whole=False)


def _choose_heads(
    teacher: Transformer, student: TransformerConfig, layer: int, mixed: Moments
) -> tuple[Tensor, Tensor]:
    """The heads, and the numbers of their values, that add most to the stream: by variance, as a mean is a bias."""
    shape = (teacher.config.heads, teacher.config.head_width)
    output = layers_of(teacher)[layer].attention.output.weight.detach().double().cpu()
    # Variance of what a head adds: the trace of W C W^T over its own numbers.
    products = (output.T @ output * mixed.covariance).view(*shape, *shape)
    within = torch.stack([products[head, :, head] for head in range(shape[0])])
    heads = _largest(within.sum((1, 2)), student.heads)
    values = torch.stack([_largest(within[head].sum(1), student.head_width) for head in heads])
    return heads, values


def _choose_neurons(
    teacher: Transformer, student: TransformerConfig, place: int, layer: int, found: Activations
) -> dict[str, Tensor]:
    """The neurons that add most to the stream: by the variance of their activation times that of the weights."""
    experts, chosen = student.layer_experts(place), {}
    for name, feed_forward in feed_forwards(layers_of(teacher)[layer]).items():
        neurons = student.feed_forward_width
        if experts is not None:
            neurons = experts.shared_width if name == "shared" else experts.expert_width or neurons
        weights = feed_forward.down.weight.detach().double().cpu()
        added = found.layers[layer].neurons[name].covariance.diagonal() * weights.square().sum(0)
        chosen[name] = _largest(added, neurons)
    return chosen


def _largest(values: Tensor, count: int) -> Tensor:
    """Their places, ascending."""
    return values.argsort(descending=True, stable=True)[:count].sort().values
