"""SmoothQuant: scales of activation channels moved into the weights before both are quantized; ranges of activations.

SmoothQuant (Xiao et al. 2022, 2211.10438, section 4): a few channels of the activations are far larger than the others
and use up the range of int8. Dividing channel j by s_j and multiplying the weights that read it by s_j leaves the
product unchanged; s_j = max |x_j|^alpha / max |w_j|^(1 - alpha) splits the difficulty between the two. The division
costs nothing: it is folded into the preceding LayerNorm, or, for the second matrix of a ReLU feed-forward, into the
first, because relu(x / s) = relu(x) / s for s > 0.

- `smooth`: a network, in place
- `input_ranges`: largest input of each linear layer, by channel; `static_scales`: one scale for each layer from them
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from modeling.compression.calibration import BATCH_ROWS
from modeling.experts.layer import Experts
from modeling.feed_forward import FeedForward
from modeling.layers.int8 import LARGEST
from modeling.layers.linear import LowRankLinear
from modeling.layers.sparse_feed_forward import SparseFeedForward
from modeling.transformer import Transformer

ALPHA = 0.5
"""Equal split between activations and weights (2211.10438, section 4)."""


@torch.no_grad()
def input_ranges(model: Transformer, tokens: Tensor, batch_rows: int = BATCH_ROWS) -> dict[str, Tensor]:
    """Largest magnitude of each input of each linear layer, including the head and projections.

    Args:
        model: any network; in evaluation mode.
        tokens: (rows, tokens) int64, calibration windows.
        batch_rows: windows in one forward pass.

    Returns:
        Name of the `nn.Linear` -> (inputs,); 0 for an expert without tokens.
    """
    assert not model.training, "ranges are those of evaluation mode"
    ranges: dict[str, Tensor] = {}
    handles = []
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            ranges[name] = module.weight.new_zeros(module.in_features)
            handles.append(module.register_forward_pre_hook(_update_range(ranges[name])))
    try:
        for batch in torch.split(tokens.to(model.final_norm.weight.device), batch_rows):
            model.head(model.hidden_states(batch))
    finally:
        for handle in handles:
            handle.remove()
    return ranges


def static_scales(model: Transformer, ranges: Mapping[str, Tensor]) -> dict[str, float]:
    """One scale for all activations of a linear layer, by its name: the largest activation becomes 127.

    Layers without inputs have none, nor do those of a `SparseFeedForward`: its kernels, which save more time, need a
    scale for each token.
    """
    sparse = tuple(f"{name}." for name, module in model.named_modules() if isinstance(module, SparseFeedForward))
    largest = {name: float(values.max()) for name, values in ranges.items() if not name.startswith(sparse)}
    return {name: value / LARGEST for name, value in largest.items() if value > 0}


@torch.no_grad()
def smooth(model: Transformer, ranges: Mapping[str, Tensor], alpha: float = ALPHA) -> None:
    """Move the scales of channels from activations into weights, in place; the network stays the same function.

    Attention's projection, a feed-forward's first and second matrix and an untied head are smoothed. Attention's
    output, whose inputs follow no norm, is not, nor is the second matrix after a threshold above 0.

    Args:
        model: a float network, whose modules may have been replaced.
        ranges: from `input_ranges` of the network in its present state.
        alpha: share of the difficulty that moves to the weights, 0 to 1.
    """
    names = {module: name for name, module in model.named_modules()}
    for pair in _pairs(model):
        activations = torch.stack([ranges[names[reader]] for reader in pair.readers]).amax(0)
        weights = torch.stack([reader.weight.abs().amax(0) for reader in pair.readers]).amax(0)
        scales = activations.pow(alpha) / weights.pow(1 - alpha)
        # A channel that is always 0 or never read needs no scale.
        scales[(activations == 0) | (weights == 0)] = 1
        for tensor in pair.writers:
            tensor.div_(scales if tensor.ndim == 1 else scales[:, None])
        for tensor in (*(reader.weight for reader in pair.readers), *pair.followers):
            tensor.mul_(scales)


@dataclass(frozen=True)
class _Pair:
    """The parameters that produce channels, and the linear layers that read them."""

    writers: list[Tensor]
    """Weight and bias of a norm, or of a linear layer: channels are the first dimension."""
    readers: list[nn.Linear]
    followers: list[Tensor]
    """Other matrices on the same channels, which are not quantized: routers."""


def _pairs(model: Transformer) -> Iterator[_Pair]:
    layer: Any
    for layer in model.layers:
        attention = layer.attention
        entry = getattr(attention, "query_key_value", None) or attention.shared_key_value
        yield _Pair(_tensors(layer.attention_norm), [_first(entry)], [])
        feed_forwards, routers = _feed_forwards(layer.feed_forward)
        # The first matrix is a writer in this pair and a reader in the next, which needs its rows' final scales.
        for feed_forward in feed_forwards:
            if getattr(feed_forward, "threshold", 0.0) == 0:
                yield _Pair(_tensors(_last(feed_forward.up)), [_first(feed_forward.down)], [])
        readers = [_first(feed_forward.up) for feed_forward in feed_forwards]
        yield _Pair(_tensors(layer.feed_forward_norm), readers, routers)
    if isinstance(model.head, nn.Linear) and not model.config.tied_embeddings:
        yield _Pair(_tensors(model.final_norm), [model.head], [])


def _feed_forwards(module: nn.Module) -> tuple[list[FeedForward | SparseFeedForward], list[Tensor]]:
    """All that read one norm's output, and routers that read it too."""
    if not isinstance(module, Experts):
        assert isinstance(module, FeedForward | SparseFeedForward)
        return [module], []
    inner = [*module.experts.children(), *([module.shared] if module.shared else [])]
    return inner, [module.router.weight]  # type: ignore[return-value]


def _first(module: Any) -> nn.Linear:
    """The linear layer that reads a matrix's inputs."""
    linear = module.down if isinstance(module, LowRankLinear) else module
    assert isinstance(linear, nn.Linear)
    return linear


def _last(module: Any) -> nn.Linear:
    """The linear layer that writes a matrix's outputs."""
    linear = module.up if isinstance(module, LowRankLinear) else module
    assert isinstance(linear, nn.Linear)
    return linear


def _tensors(module: nn.Module) -> list[Tensor]:
    return [parameter for _, parameter in module.named_parameters(recurse=False)]


def _update_range(largest: Tensor) -> Any:
    def hook(_: nn.Module, arguments: tuple[Tensor]) -> None:
        flat = arguments[0].detach().flatten(0, -2)
        if len(flat):
            largest.copy_(torch.maximum(largest, flat.abs().amax(0)))

    return hook
