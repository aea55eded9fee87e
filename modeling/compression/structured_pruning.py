"""Structured pruning of layers, heads and neurons by their activations (Minitron, 2407.14679, section 2).

- `remove_layers`: those that change the residual stream least
- `remove_heads_and_neurons`: those with the smallest activations; the matrices that read them are fitted again
- `keep_layers`, `keep_heads_and_neurons`: the network with only these parts

If all layers lose the same number of neurons, the result is a plain network of a smaller config. A config has heads of
width / heads numbers, so that attention with fewer heads needs resized linear layers.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from data_schemas.errors import ConfigError
from modeling.attention.kinds import AttentionKind
from modeling.attention.multi_head import Attention
from modeling.compression.calibration import InputStatistics, damped_cholesky, layer_influence, walk_layers
from modeling.experts.layer import Experts
from modeling.feed_forward import FeedForward
from modeling.initialization import residual_multiplier
from modeling.layers.linear import Description, LowRankLinear
from modeling.replacements import float_state, rebuild, replacements_of
from modeling.transformer import Transformer
from modeling.transformer_config import TransformerConfig

DAMPING = 1e-3
"""Added to the diagonal of the covariance in the fit of weights, as a share of its mean."""
Kept = Mapping[str, Sequence[int]]
"""Name of an `Attention` or `FeedForward` in the network -> sorted indices of the heads or neurons to keep."""


def remove_layers(model: Transformer, share: float, calibration: Tensor) -> Transformer:
    """Keep the layers whose output differs most from their input (ShortGPT, Men et al. 2024, 2403.03853, section 3).

    If not every layer has experts, whole periods of layers are removed, to preserve the pattern.

    Args:
        model: a float network in evaluation mode; it stays as it is.
        share: of the layers to keep, rounded, at least one layer (or period).
        calibration: (rows, tokens) int64.

    Raises:
        ConfigError: if the layers are not whole periods.
    """
    config = model.config
    period = config.experts.every if config.experts else 1
    if config.layers % period:
        raise ConfigError(
            f"structured.layers_share removes whole periods of layers, but experts.every is {period}, which does not "
            f"divide the {config.layers} layers; layers_share can only be 1"
        )
    influence = layer_influence(model, calibration).view(-1, period).sum(1)
    kept = _largest(influence, share)
    return keep_layers(model, [period * index + layer for index in kept for layer in range(period)])


def keep_layers(model: Transformer, kept: Sequence[int]) -> Transformer:
    """The network with only these layers, sorted indices from 0, as if the others added nothing to the stream."""
    config = model.config
    kinds = [config.layer_attention(layer) for layer in kept]
    smaller = _changed(config, layers=len(kept), attention=_shortest_period(kinds))
    renamed = {f"layers.{old}.": f"layers.{new}." for new, old in enumerate(kept)}
    state = _renamed(float_state(model, "structured"), renamed)
    result = rebuild(smaller, _renamed(replacements_of(model), renamed), state)
    # The residual multiplier depends on the number of layers; its change is folded into the weights.
    _scale_residual_outputs(result, residual_multiplier(config) / residual_multiplier(smaller))
    return result


def remove_heads_and_neurons(
    model: Transformer, heads_share: float, neurons_share: float, calibration: Tensor
) -> Transformer:
    """Keep each layer's heads and neurons of the largest activations, and fit the matrices that read them.

    A neuron's importance is its mean activation, a head's the root mean square of its mixed values' norm (Minitron,
    2407.14679, section 2.2), times the norm of the weights that read them: scaling one up and the other down does not
    change the network. The following matrix (`output`, `down`) then gets the weights and bias whose output is nearest,
    in mean square, to its former output; in a matrix with zeros only the bias is fitted. Layers are changed in order,
    each measured after the changed layers before it.

    Args:
        model: a float network in evaluation mode; it stays as it is.
        heads_share: of each layer's heads to keep, rounded, at least one.
        neurons_share: of the neurons of each feed-forward and expert to keep, rounded, at least two.
        calibration: (rows, tokens) int64.

    Raises:
        ConfigError: if another pass has replaced attention or feed-forwards by its own modules.
    """
    config = model.config
    _check_plain(model)
    work = rebuild(config, replacements_of(model), float_state(model, "structured"))
    heads: dict[str, list[int]] = {}
    neurons: dict[str, list[int]] = {}
    for layer_name, layer, statistics in walk_layers(work, calibration):
        for name, module in layer.named_modules(prefix=layer_name):
            if isinstance(module, Attention) and heads_share < 1:
                reader, inputs = module.output, _reader_inputs(f"{name}.output", module.output, statistics)
                heads[name] = _largest(head_importance(reader, inputs, config.head_width), heads_share)
                _fit_to_kept(reader, inputs, head_columns(heads[name], config.head_width))
            elif isinstance(module, FeedForward) and neurons_share < 1:
                reader, inputs = module.down, _reader_inputs(f"{name}.down", module.down, statistics)
                neurons[name] = _largest(neuron_importance(reader, inputs), neurons_share, minimum=2)
                _fit_to_kept(reader, inputs, neurons[name])
    return keep_heads_and_neurons(work, heads, neurons)


def neuron_importance(reader: nn.Module, inputs: InputStatistics) -> Tensor:
    """(neurons,) mean activation, at least 0 after ReLU, times the norm of the weights that read it."""
    activation = inputs.mean if inputs.rows else torch.ones_like(inputs.mean)
    importance: Tensor = activation * _read_matrix(reader).norm(dim=0)
    return importance


def head_importance(reader: nn.Module, inputs: InputStatistics, head_width: int) -> Tensor:
    """(heads,) root mean square over tokens of the norm of a head's mixed values, times that of its output weights."""
    energy = inputs.second_moment.diagonal().clamp_min(0).view(-1, head_width).sum(1)
    matrix = _read_matrix(reader)
    importance: Tensor = energy.sqrt() * matrix.view(len(matrix), -1, head_width).norm(dim=(0, 2))
    return importance


def keep_heads_and_neurons(model: Transformer, heads: Kept, neurons: Kept) -> Transformer:
    """The network with only these heads and neurons; modules that are not named keep all of theirs."""
    width = model.config.head_width
    state = float_state(model, "structured")
    replacements = replacements_of(model)
    for name, kept in heads.items():
        rows = head_columns(kept, 3 * width)
        _select(state, replacements, model, f"{name}.query_key_value", outputs=rows)
        _select(state, replacements, model, f"{name}.output", inputs=head_columns(kept, width))
        for key in [key for key in state if key.startswith(f"{name}.poolings.")]:
            state[key] = state[key][list(kept)]
    for name, kept in neurons.items():
        _select(state, replacements, model, f"{name}.up", outputs=kept)
        _select(state, replacements, model, f"{name}.down", inputs=kept)
    return rebuild(_narrowed(model, neurons), replacements, state)


def head_columns(heads: Sequence[int], width: int) -> list[int]:
    """Columns of these heads, `width` for each head."""
    return [head * width + column for head in heads for column in range(width)]


def _narrowed(model: Transformer, neurons: Kept) -> TransformerConfig:
    """The config with the remaining numbers of neurons, for roles in which all layers have the same number."""
    counts: dict[str, set[int]] = {"feed_forward_width": set(), "expert_width": set(), "shared_width": set()}
    experts = {name for name, module in model.named_modules() if isinstance(module, Experts)}
    for name, module in model.named_modules():
        if isinstance(module, FeedForward):
            owner = next((expert for expert in experts if name.startswith(f"{expert}.")), None)
            role = "feed_forward_width" if owner is None else "shared_width" if name.endswith(".shared") else ""
            remaining = len(neurons[name]) if name in neurons else _read_matrix(module.down).shape[1]
            counts[role or "expert_width"].add(remaining)
    changes: dict[str, Any] = {role: sizes.pop() for role, sizes in counts.items() if len(sizes) == 1}
    inside = {role: changes.pop(role) for role in ("expert_width", "shared_width") if role in changes}
    if inside and model.config.experts is not None:
        changes["experts"] = model.config.experts.model_dump() | inside
    return _changed(model.config, **changes)


def _check_plain(model: Transformer) -> None:
    for index, layer in enumerate(model.layers):
        for name, accepted in (("attention", Attention), ("feed_forward", FeedForward | Experts)):
            module = getattr(layer, name)
            if not isinstance(module, accepted):
                raise ConfigError(
                    f"the pass 'structured' found a {type(module).__name__} as layers.{index}.{name}, which it cannot "
                    "prune; put 'structured' before the pass that replaces it"
                )


def _select(
    state: dict[str, Tensor],
    replacements: dict[str, Description],
    model: Transformer,
    name: str,
    outputs: Sequence[int] | None = None,
    inputs: Sequence[int] | None = None,
) -> None:
    """Keep these outputs or inputs of a linear or low-rank layer."""
    is_low_rank = isinstance(model.get_submodule(name), LowRankLinear)
    last, first = (f"{name}.up", f"{name}.down") if is_low_rank else (name, name)
    if outputs is not None:
        for key in (f"{last}.weight", f"{last}.bias"):
            if key in state:
                state[key] = state[key][list(outputs)]
    if inputs is not None:
        state[f"{first}.weight"] = state[f"{first}.weight"][:, list(inputs)]
    if is_low_rank:
        sizes = {"inputs": state[f"{first}.weight"].shape[1], "outputs": len(state[f"{last}.weight"])}
        replacements[name] = replacements[name] | sizes


@torch.no_grad()
def _fit_to_kept(reader: nn.Module, inputs: InputStatistics, kept: Sequence[int]) -> None:
    """Fit a layer, in place, to its former outputs in mean square with only these inputs."""
    first = reader.down if isinstance(reader, LowRankLinear) else reader
    last = reader.up if isinstance(reader, LowRankLinear) else reader
    assert isinstance(first, nn.Linear) and isinstance(last, nn.Linear)
    before = first.weight.double()
    after = torch.zeros_like(before)
    after[:, kept] = before[:, kept]
    covariance = inputs.covariance
    if bool(covariance.any()) and bool(before.all()):
        lost = (before - after) @ covariance[:, kept]
        after[:, kept] += torch.cholesky_solve(lost.T, damped_cholesky(covariance[kept][:, kept], DAMPING)).T
    first.weight.copy_(after)
    shift = (before - after) @ inputs.mean
    assert last.bias is not None
    last.bias.add_(shift if last is first else last.weight.double() @ shift)


def _read_matrix(module: nn.Module) -> Tensor:
    """(outputs, inputs) float64."""
    if isinstance(module, LowRankLinear):
        return module.up.weight.detach().double() @ module.down.weight.detach().double()
    return module.get_parameter("weight").detach().double()


def _reader_inputs(name: str, module: nn.Module, statistics: Mapping[str, InputStatistics]) -> InputStatistics:
    return statistics[f"{name}.down" if isinstance(module, LowRankLinear) else name]


def _largest(importance: Tensor, share: float, minimum: int = 1) -> list[int]:
    """Sorted indices of the most important entries."""
    count = min(max(minimum, round(share * len(importance))), len(importance))
    return sorted(importance.argsort(descending=True, stable=True)[:count].tolist())


@torch.no_grad()
def _scale_residual_outputs(model: Transformer, factor: float) -> None:
    if factor == 1:
        return
    for module in model.layers.modules():
        if isinstance(module, Attention | FeedForward):
            reader = module.output if isinstance(module, Attention) else module.down
            last = reader.up if isinstance(reader, LowRankLinear) else reader
            for parameter in last.parameters():
                parameter.mul_(factor)


def _renamed(named: Mapping[str, Any], prefixes: Mapping[str, str]) -> dict[str, Any]:
    """Entries of layers in `prefixes` under their new names, without other layers; entries outside layers unchanged."""
    result = {}
    for name, value in named.items():
        if not name.startswith("layers."):
            result[name] = value
        for old, new in prefixes.items():
            if name.startswith(old):
                result[new + name.removeprefix(old)] = value
    return result


def _shortest_period(kinds: Sequence[AttentionKind]) -> list[AttentionKind]:
    for length in range(1, len(kinds) + 1):
        if len(kinds) % length == 0 and all(kind == kinds[i % length] for i, kind in enumerate(kinds)):
            return list(kinds[:length])
    raise AssertionError("the whole list is a period")


def _changed(config: TransformerConfig, **changes: Any) -> TransformerConfig:
    return TransformerConfig.model_validate(config.model_dump() | changes)
