"""Initialize a student for distillation by pruning its teacher.

- `student_from`: the student of a config; `cut`: the student of a plan from `modeling.distillation.student_plan`

The kept parts are selected by their activations on calibration windows, as in Minitron (Muralidharan et al. 2024,
2407.14679) and Sheared LLaMA (Xia et al. 2023, 2310.06694). Removed parts are compensated: as far as the kept parts
predict them (ridge regression on the same windows), the matrices that read both are corrected.
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
"""Bias of each channel of a norm that replaces the biases of the matrices that read it."""


def student_from(
    teacher: Transformer,
    config: TransformerConfig,
    calibration: Tensor,
    stream: StreamChoice = "importance",
    layers: LayerChoice = "even",
) -> Transformer:
    """A smaller network from parts of the teacher; at the teacher's own size it equals the teacher, bit for bit.

    Args:
        teacher: float network, uncompressed.
        config: config of the student, such as from `student_config`.
        calibration: (rows, tokens) int64 of training text; some ten thousand tokens.
        stream: channels of the residual stream by importance, or its principal components.
        layers: evenly spaced layers including the first and the last, or those that change the stream most.

    Raises:
        ConfigError: if the student cannot be cut from the teacher.
    """
    return cut(teacher, plan_student(teacher, config, calibration, stream, layers))


def cut(teacher: Transformer, plan: StudentPlan) -> Transformer:
    """The student on the teacher's device, in evaluation mode."""
    device = teacher.final_norm.weight.device
    state: dict[str, Tensor] = {}
    with torch.no_grad():
        _cut_ends(_Weights(teacher), plan, state)
        for index, layer in enumerate(plan.layers):
            layer_state: dict[str, Tensor] = {}
            _cut_attention(_Weights(teacher, f"layers.{layer}."), plan, index, layer_state)
            _cut_feed_forward(_Weights(teacher, f"layers.{layer}."), plan, index, layer_state)
            state |= {f"layers.{index}.{name}": tensor for name, tensor in layer_state.items()}
    student = empty_network(plan.config, {})
    # Kernels need contiguous rows; projections are transposed.
    state = {
        name: tensor.to(device, torch.float32).clone(memory_format=torch.contiguous_format)
        for name, tensor in state.items()
    }
    missing, unexpected = student.load_state_dict(state, strict=False, assign=True)
    assert not unexpected and all(tied_tensor(name, plan.config) for name in missing), (missing, unexpected)
    if plan.config.tied_embeddings:
        student.tie_head()
    return student.eval()


class _Weights:
    """The teacher's tensors with a name prefix, in float64 on the CPU."""

    def __init__(self, teacher: Transformer, prefix: str = "") -> None:
        self.teacher, self.prefix = teacher, prefix
        self._state = teacher.state_dict()

    def __getitem__(self, name: str) -> Tensor:
        tensor: Tensor = self._state[self.prefix + name]
        return tensor.detach().double().cpu()

    def names(self, module: str) -> list[str]:
        """Names of the tensors of a submodule."""
        prefix = f"{self.prefix}{module}."
        return [name.removeprefix(self.prefix) for name in self._state if name.startswith(prefix)]


@dataclass(frozen=True)
class _Reading:
    """Prediction of the output of a teacher's norm from the output n' of the student's norm: matrix n' + offset."""

    weight: Tensor
    bias: Tensor
    """Weight and bias of the student's norm."""
    matrix: Tensor | None
    """(teacher's width, student's width); None for the identity."""
    offset: Tensor | None
    """(teacher's width,), to be added through the biases of the matrices that read the norm."""

    def cut_matrix(self, matrix: Tensor) -> Tensor:
        """The student's matrix (outputs, student's width) for the teacher's (outputs, teacher's width)."""
        return matrix if self.matrix is None else matrix @ self.matrix

    def cut_bias(self, matrix: Tensor, bias: Tensor) -> Tensor:
        """The student's bias (outputs,) for the teacher's matrix and bias."""
        return bias if self.offset is None else bias + matrix @ self.offset


def _reading(weights: _Weights, plan: StudentPlan, name: str, all_have_biases: bool = True) -> _Reading:
    """Reading of a norm by name; `all_have_biases`: all matrices that read it have biases."""
    weight, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
    if plan.stream.is_identity:
        return _Reading(weight, bias, None, None)
    moments, wide, narrow = plan.norms[weights.prefix + name], *plan.stream.matrix.shape
    matrix, offset = moments.prediction(
        torch.arange(wide), torch.arange(wide, wide + narrow), weight[:, None] * plan.stream.matrix
    )
    # Before weight and bias the output of a norm has mean 0, so that the effect of a matrix on a constant is free.
    matrix = matrix - matrix.mean(1, keepdim=True)
    if all_have_biases:
        return _Reading(torch.ones(narrow), torch.zeros(narrow), matrix, offset)
    # The bias of the norm carries the offset to matrices without a bias, such as a router or the head.
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
            state[f"head.{table}"] = reading.cut_matrix(vectors) if is_wide else vectors
        if not is_wide:
            name = f"projections.{band}.weight"
            state[f"embedding.{name}"] = plan.stream.project(weights[f"embedding.{name}"].T).T
            state[f"head.{name}"] = reading.cut_matrix(weights[f"head.{name}"])


def _diagonal_reading(weights: _Weights, plan: StudentPlan) -> _Reading:
    """Reading of the final norm for a tied head, whose table is fixed: regression of each channel by itself."""
    projection = plan.stream.matrix
    if plan.stream.is_identity:
        return _reading(weights, plan, "final_norm")
    moments, wide = plan.norms["final_norm"], len(projection)
    covariance, mean = moments.covariance, moments.mean
    across = (projection * covariance[:wide, wide:]).sum(0)
    weight = across / covariance.diagonal()[wide:].clamp_min(torch.finfo(torch.float32).tiny)
    bias = projection.T @ mean[:wide] - weight * mean[wide:]
    return _Reading(weight, bias, projection, None)


def _cut_attention(weights: _Weights, plan: StudentPlan, index: int, state: dict[str, Tensor]) -> None:
    teacher, student = weights.teacher.config, plan.config
    heads, values = plan.heads[index], plan.values[index]
    reading = _reading(weights, plan, "attention_norm")
    rows, scale = query_key_value_rows(teacher, student, heads, values)
    matrix = weights["attention.query_key_value.weight"][rows] * scale[:, None]
    bias = weights["attention.query_key_value.bias"][rows] * scale
    mixed = (heads[:, None] * teacher.head_width + values).flatten()
    moments = plan.activations.layers[plan.layers[index]].heads
    output = _cut_inputs(weights["attention.output.weight"], weights["attention.output.bias"], moments, mixed)
    state |= {"attention_norm.weight": reading.weight, "attention_norm.bias": reading.bias}
    state |= {
        "attention.query_key_value.weight": reading.cut_matrix(matrix),
        "attention.query_key_value.bias": reading.cut_bias(matrix, bias),
    }
    state |= _output_linear("attention.output", output, plan, teacher)
    for name in weights.names("attention.poolings"):
        parameter = weights[name][heads]
        state[name] = parameter.gather(1, values) if name.endswith("content") else parameter


def query_key_value_rows(
    teacher: TransformerConfig, student: TransformerConfig, heads: Tensor, values: Tensor
) -> tuple[Tensor, Tensor]:
    """Rows of the teacher's matrix that a student's layer keeps, and the factor on each.

    If heads get narrower, every r-th rotary pair of queries and keys is kept (see `student_config.fitting_heads`), and
    the factor keeps the scale of the scores, which attention divides by the root of a smaller head width.

    Args:
        teacher: config of the teacher.
        student: config of the student.
        heads: (heads,) int64, indices of the kept heads.
        values: (heads, head_width) int64, indices of the kept channels of their values.

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


def _cut_feed_forward(weights: _Weights, plan: StudentPlan, index: int, state: dict[str, Tensor]) -> None:
    layer = plan.layers[index]
    routed = "feed_forward.router.weight" in weights.names("feed_forward")
    reading = _reading(weights, plan, "feed_forward_norm", all_have_biases=not routed)
    state |= {"feed_forward_norm.weight": reading.weight, "feed_forward_norm.bias": reading.bias}
    if routed:
        state["feed_forward.router.weight"] = reading.cut_matrix(weights["feed_forward.router.weight"])
    for name, kept in plan.neurons[index].items():
        module = f"feed_forward.{name}".rstrip(".")
        matrix, bias = weights[f"{module}.up.weight"][kept], weights[f"{module}.up.bias"][kept]
        state |= {
            f"{module}.up.weight": reading.cut_matrix(matrix),
            f"{module}.up.bias": reading.cut_bias(matrix, bias),
        }
        moments = plan.activations.layers[layer].neurons[name]
        down = _cut_inputs(weights[f"{module}.down.weight"], weights[f"{module}.down.bias"], moments, kept)
        state |= _output_linear(f"{module}.down", down, plan, weights.teacher.config)


def _cut_inputs(matrix: Tensor, bias: Tensor, moments: Moments, kept: Tensor) -> tuple[Tensor, Tensor]:
    """Matrix (outputs, kept inputs) and bias that approximate those of all inputs by least squares."""
    inputs = matrix.shape[1]
    if len(kept) == inputs:
        return matrix, bias
    identity = torch.eye(inputs, dtype=torch.float64)[:, kept]
    predicted, offset = moments.prediction(torch.arange(inputs), kept, identity)
    return matrix @ predicted, bias + matrix @ offset


def _output_linear(
    name: str, linear: tuple[Tensor, Tensor], plan: StudentPlan, teacher: TransformerConfig
) -> Mapping[str, Tensor]:
    """Weight and bias of a linear layer whose outputs are added to the residual stream."""
    multiplier = residual_multiplier(teacher) / residual_multiplier(plan.config)
    matrix, bias = linear
    return {
        f"{name}.weight": multiplier * plan.stream.project(matrix.T).T,
        f"{name}.bias": multiplier * plan.stream.project(bias),
    }
