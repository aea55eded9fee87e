"""A smaller network cut from a larger one, as a student to distil into.

- `student_from`: the network; `cut`: the network of a plan from `modeling.distillation.student_plan`

The parts that stay are chosen by what they do on calibration windows, as in Minitron (Muralidharan et al. 2024,
2407.14679) and Sheared LLaMA (Xia et al. 2023, 2310.06694). What goes is not lost without trace: as far as the parts
that stay predict it (ridge regression on the same windows), the matrices that read both take it from those that stay.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from modeling.distillation.student_activations import Moments
from modeling.distillation.student_plan import LayerChoice, StreamChoice, StudentPlan, plan_student
from modeling.embeddings import tied_tensor
from modeling.initialization import logit_multiplier, residual_multiplier
from modeling.replacements import empty_network
from modeling.transformer import Transformer
from modeling.transformer_config import TransformerConfig

CONSTANT = 0.1
"""What a norm adds to each number where it has to stand in for biases."""


def student_from(
    teacher: Transformer,
    config: TransformerConfig,
    calibration: Tensor,
    stream: StreamChoice = "importance",
    layers: LayerChoice = "even",
) -> Transformer:
    """A smaller network of the teacher's parts; of the teacher's own size it is the teacher, bit for bit.

    Args:
        teacher: a float network, as pretraining leaves it.
        config: the student's, such as from `student_config`.
        calibration: (rows, tokens) int64 of training text; some ten thousand tokens.
        stream: channels of the residual stream by importance, or its principal components.
        layers: evenly spread with the first and the last, or those that change the stream most.

    Raises:
        ConfigError: where the student cannot be cut from the teacher.
    """
    return cut(teacher, plan_student(teacher, config, calibration, stream, layers))


def cut(teacher: Transformer, plan: StudentPlan) -> Transformer:
    """The student on the teacher's device, in evaluation mode."""
    device = teacher.final_norm.weight.device
    state: dict[str, Tensor] = {}
    with torch.no_grad():
        _cut_ends(_Weights(teacher), plan, state)
        for place, layer in enumerate(plan.layers):
            own: dict[str, Tensor] = {}
            _cut_attention(_Weights(teacher, f"layers.{layer}."), plan, place, own)
            _cut_feed_forward(_Weights(teacher, f"layers.{layer}."), plan, place, own)
            state |= {f"layers.{place}.{name}": tensor for name, tensor in own.items()}
    student = empty_network(plan.config, {})
    # Kernels want rows in order; projections come transposed.
    order = torch.contiguous_format
    state = {name: one.to(device, torch.float32).clone(memory_format=order) for name, one in state.items()}
    missing, unexpected = student.load_state_dict(state, strict=False, assign=True)
    assert not unexpected and all(tied_tensor(name, plan.config) for name in missing), (missing, unexpected)
    if plan.config.tied_embeddings:
        student.tie_head()
    return student.eval()


class _Weights:
    """The teacher's tensors below a name, in float64 on the CPU."""

    def __init__(self, teacher: Transformer, prefix: str = "") -> None:
        self.teacher, self.prefix = teacher, prefix
        self._state = teacher.state_dict()

    def __getitem__(self, name: str) -> Tensor:
        tensor: Tensor = self._state[self.prefix + name]
        return tensor.detach().double().cpu()

    def under(self, name: str) -> list[str]:
        """Names of the tensors below a name."""
        whole = f"{self.prefix}{name}."
        return [full.removeprefix(self.prefix) for full in self._state if full.startswith(whole)]


@dataclass(frozen=True)
class _Reading:
    """How what a teacher's norm gives is read from the student's norm n': as matrix n' + offset."""

    weight: Tensor
    bias: Tensor
    """Of the student's norm."""
    matrix: Tensor | None
    """(teacher's width, student's width); None where it is the unit matrix."""
    offset: Tensor | None
    """(teacher's width,), what is left for the biases of those that read."""

    def of(self, matrix: Tensor) -> Tensor:
        """A matrix (outputs, teacher's width) as the student's (outputs, student's width)."""
        return matrix if self.matrix is None else matrix @ self.matrix

    def bias_of(self, matrix: Tensor, bias: Tensor) -> Tensor:
        """The bias (outputs,) that goes with it."""
        return bias if self.offset is None else bias + matrix @ self.offset


def _reading(weights: _Weights, plan: StudentPlan, name: str, all_have_biases: bool = True) -> _Reading:
    """Of a norm by name; whether all that read it have biases."""
    weight, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
    if plan.stream.whole:
        return _Reading(weight, bias, None, None)
    moments, wide, narrow = plan.norms[weights.prefix + name], *plan.stream.matrix.shape
    matrix, offset = moments.prediction(
        torch.arange(wide), torch.arange(wide, wide + narrow), weight[:, None] * plan.stream.matrix
    )
    # What the student's norm can add is read without a bias too, as by a router or the head.
    # Before weight and bias a norm gives mean 0, so that what a matrix does with a constant is free.
    matrix = matrix - matrix.mean(1, keepdim=True)
    if all_have_biases:
        return _Reading(torch.ones(narrow), torch.zeros(narrow), matrix, offset)
    # It carries the offset to those that have no bias.
    constant = torch.full((narrow,), CONSTANT, dtype=torch.float64)
    return _Reading(torch.ones(narrow), constant, matrix + offset[:, None] / (CONSTANT * narrow), None)


def _cut_ends(weights: _Weights, plan: StudentPlan, state: dict[str, Tensor]) -> None:
    """Embedding, final norm and head."""
    teacher, config = weights.teacher.config, plan.config
    wide_bands = [width == teacher.width for _, width in teacher.bands]
    shared = config.tied_embeddings and any(wide_bands)
    reading = (
        _diagonal_reading(weights, plan) if shared else _reading(weights, plan, "final_norm", all_have_biases=False)
    )
    multiplier = logit_multiplier(teacher) / logit_multiplier(config)
    state |= {"final_norm.weight": multiplier * reading.weight, "final_norm.bias": multiplier * reading.bias}
    for band, is_wide in enumerate(wide_bands):
        table = f"tables.{band}.weight" if config.embedding_bands else "weight"
        vectors = weights[f"embedding.{table}"]
        state[f"embedding.{table}"] = plan.stream.project(vectors) if is_wide else vectors
        if not config.tied_embeddings:
            vectors = weights[f"head.{table}"]
            state[f"head.{table}"] = reading.of(vectors) if is_wide else vectors
        if not is_wide:
            name = f"projections.{band}.weight"
            state[f"embedding.{name}"] = plan.stream.project(weights[f"embedding.{name}"].T).T
            state[f"head.{name}"] = reading.of(weights[f"head.{name}"])


def _diagonal_reading(weights: _Weights, plan: StudentPlan) -> _Reading:
    """Of the final norm where the head's table is the embedding's, which takes no matrix: each number by itself."""
    projection = plan.stream.matrix
    if plan.stream.whole:
        return _reading(weights, plan, "final_norm")
    moments, wide = plan.norms["final_norm"], len(projection)
    covariance, mean = moments.covariance, moments.mean
    across = (projection * covariance[:wide, wide:]).sum(0)
    weight = across / covariance.diagonal()[wide:].clamp_min(torch.finfo(torch.float32).tiny)
    bias = projection.T @ mean[:wide] - weight * mean[wide:]
    return _Reading(weight, bias, projection, None)


def _cut_attention(weights: _Weights, plan: StudentPlan, place: int, state: dict[str, Tensor]) -> None:
    teacher, student = weights.teacher.config, plan.config
    heads, values = plan.heads[place], plan.values[place]
    reading = _reading(weights, plan, "attention_norm")
    rows, scale = query_key_value_rows(teacher, student, heads, values)
    matrix = weights["attention.query_key_value.weight"][rows] * scale[:, None]
    bias = weights["attention.query_key_value.bias"][rows] * scale
    mixed = (heads[:, None] * teacher.head_width + values).flatten()
    moments = plan.activations.layers[plan.layers[place]].heads
    output = _cut_inputs(weights["attention.output.weight"], weights["attention.output.bias"], moments, mixed)
    state |= {"attention_norm.weight": reading.weight, "attention_norm.bias": reading.bias}
    state |= {
        "attention.query_key_value.weight": reading.of(matrix),
        "attention.query_key_value.bias": reading.bias_of(matrix, bias),
    }
    state |= _written("attention.output", output, plan, teacher)
    for name in weights.under("attention.poolings"):
        parameter = weights[name][heads]
        state[name] = parameter.gather(1, values) if name.endswith("content") else parameter


def query_key_value_rows(
    teacher: TransformerConfig, student: TransformerConfig, heads: Tensor, values: Tensor
) -> tuple[Tensor, Tensor]:
    """Rows of the teacher's matrix that a student's layer keeps, and the factor on each.

    Where heads get narrower, every r-th rotary pair of queries and keys stays (see `student_shape.fitting_heads`), and
    scores of those pairs keep their size, though attention divides by the root of a smaller head width.

    Args:
        teacher: its config.
        student: its config.
        heads: (heads,) int64 that stay.
        values: (heads, head_width) int64, numbers of their values that stay.

    Returns:
        (3 x width,) int64 and float64.
    """
    wide, narrow = teacher.head_width, student.head_width
    first_halves = torch.arange(narrow // 2) * (wide // narrow)
    pairs = torch.cat([first_halves, wide // 2 + first_halves]).expand_as(values)
    within = torch.stack([pairs, wide + pairs, 2 * wide + values], 1)
    scale = torch.ones(within.shape, dtype=torch.float64)
    scale[:, 0] = (narrow / wide) ** 0.5
    return (heads[:, None, None] * 3 * wide + within).flatten(), scale.flatten()


def _cut_feed_forward(weights: _Weights, plan: StudentPlan, place: int, state: dict[str, Tensor]) -> None:
    layer = plan.layers[place]
    routed = "feed_forward.router.weight" in weights.under("feed_forward")
    reading = _reading(weights, plan, "feed_forward_norm", all_have_biases=not routed)
    state |= {"feed_forward_norm.weight": reading.weight, "feed_forward_norm.bias": reading.bias}
    if routed:
        state["feed_forward.router.weight"] = reading.of(weights["feed_forward.router.weight"])
    for name, kept in plan.neurons[place].items():
        whole = f"feed_forward.{name}".rstrip(".")
        matrix, bias = weights[f"{whole}.up.weight"][kept], weights[f"{whole}.up.bias"][kept]
        state |= {f"{whole}.up.weight": reading.of(matrix), f"{whole}.up.bias": reading.bias_of(matrix, bias)}
        moments = plan.activations.layers[layer].neurons[name]
        down = _cut_inputs(weights[f"{whole}.down.weight"], weights[f"{whole}.down.bias"], moments, kept)
        state |= _written(f"{whole}.down", down, plan, weights.teacher.config)


def _cut_inputs(matrix: Tensor, bias: Tensor, moments: Moments, kept: Tensor) -> tuple[Tensor, Tensor]:
    """Matrix (outputs, kept inputs) and bias that do best what those of all inputs do."""
    inputs = matrix.shape[1]
    if len(kept) == inputs:
        return matrix, bias
    among = torch.eye(inputs, dtype=torch.float64)[:, kept]
    predicted, offset = moments.prediction(torch.arange(inputs), kept, among)
    return matrix @ predicted, bias + matrix @ offset


def _written(
    name: str, linear: tuple[Tensor, Tensor], plan: StudentPlan, teacher: TransformerConfig
) -> Mapping[str, Tensor]:
    """Weight and bias of a linear layer whose outputs are added to the residual stream."""
    multiplier = residual_multiplier(teacher) / residual_multiplier(plan.config)
    matrix, bias = linear
    return {
        f"{name}.weight": multiplier * plan.stream.project(matrix.T).T,
        f"{name}.bias": multiplier * plan.stream.project(bias),
    }
