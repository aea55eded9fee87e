"""Large activations made smaller and their weights larger, before both are rounded; and how large activations get.

SmoothQuant (Xiao et al. 2022, 2211.10438, section 4): a few channels of the activations are far larger than the others
and take the whole range of int8. Dividing channel j by s_j and multiplying the weights that read it by s_j leaves the
product as it is; s_j = max |x_j|^alpha / max |w_j|^(1 - alpha) shares the difficulty out. The division costs nothing:
it goes into the LayerNorm in front, or into the first matrix of a ReLU feed-forward for the second one, because
relu(x / s) = relu(x) / s for s > 0.

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
"""Half of the difficulty to either side (2211.10438, section 4)."""


@torch.no_grad()
def input_ranges(model: Transformer, tokens: Tensor, batch_rows: int = BATCH_ROWS) -> dict[str, Tensor]:
    """Largest magnitude of each input of each linear layer, the head and projections among them.

    Args:
        model: any network; in evaluation mode.
        tokens: (rows, tokens) int64, calibration windows.
        batch_rows: windows in one forward pass.

    Returns:
        Name of the `nn.Linear` -> (inputs,); 0 for an expert that no token was sent to.
    """
    assert not model.training, "ranges are those of the network as it predicts"
    found: dict[str, Tensor] = {}
    handles = []
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            found[name] = module.weight.new_zeros(module.in_features)
            handles.append(module.register_forward_pre_hook(_taker(found[name])))
    try:
        for batch in torch.split(tokens.to(model.final_norm.weight.device), batch_rows):
            model.head(model.hidden_states(batch))
    finally:
        for handle in handles:
            handle.remove()
    return found


def static_scales(model: Transformer, ranges: Mapping[str, Tensor]) -> dict[str, float]:
    """One scale for all activations of a linear layer, by its name: the largest that was seen becomes 127.

    Layers that saw nothing have none, and those of a `SparseFeedForward` neither: its kernels, which save more time,
    take a scale for each token.
    """
    skipping = tuple(f"{name}." for name, module in model.named_modules() if isinstance(module, SparseFeedForward))
    largest = {name: float(one.max()) for name, one in ranges.items() if not name.startswith(skipping)}
    return {name: one / LARGEST for name, one in largest.items() if one > 0}


@torch.no_grad()
def smooth(model: Transformer, ranges: Mapping[str, Tensor], alpha: float = ALPHA) -> None:
    """Move the scales of channels from activations into weights, in place; the network stays the same function.

    Attention's projection, a feed-forward's first and second matrix and an untied head are smoothed. Attention's
    output, whose inputs no norm precedes, is not, and neither is the second matrix behind a threshold above 0.

    Args:
        model: a float network, whose modules may have been replaced.
        ranges: of `input_ranges`, as the network is now.
        alpha: share of the difficulty that goes to the weights, 0 to 1.
    """
    names = {module: name for name, module in model.named_modules()}
    for pair in _pairs(model):
        activations = torch.stack([ranges[names[reader]] for reader in pair.readers]).amax(0)
        weights = torch.stack([reader.weight.abs().amax(0) for reader in pair.readers]).amax(0)
        scales = activations.pow(alpha) / weights.pow(1 - alpha)
        # A channel that is never seen or never read has no difficulty to share.
        scales[(activations == 0) | (weights == 0)] = 1
        for tensor in pair.writers:
            tensor.div_(scales if tensor.ndim == 1 else scales[:, None])
        for tensor in (*(reader.weight for reader in pair.readers), *pair.followers):
            tensor.mul_(scales)


@dataclass(frozen=True)
class _Pair:
    """Where channels come from, and the linear layers that read them."""

    writers: list[Tensor]
    """Weight and bias of a norm, or of a linear layer: channels are the first dimension."""
    readers: list[nn.Linear]
    followers: list[Tensor]
    """Other matrices on the same channels, whose precision does not matter: routers."""


def _pairs(model: Transformer) -> Iterator[_Pair]:
    layer: Any
    for layer in model.layers:
        attention = layer.attention
        entry = getattr(attention, "query_key_value", None) or attention.shared_key_value
        yield _Pair(_tensors(layer.attention_norm), [_first(entry)], [])
        feed_forwards, routers = _feed_forwards(layer.feed_forward)
        # The first matrix is a writer here and a reader next: its rows must have their final scales by then.
        for one in feed_forwards:
            if getattr(one, "threshold", 0.0) == 0:
                yield _Pair(_tensors(_last(one.up)), [_first(one.down)], [])
        yield _Pair(_tensors(layer.feed_forward_norm), [_first(one.up) for one in feed_forwards], routers)
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


def _taker(largest: Tensor) -> Any:
    def take(_: nn.Module, given: tuple[Tensor]) -> None:
        flat = given[0].detach().flatten(0, -2)
        if len(flat):
            largest.copy_(torch.maximum(largest, flat.abs().amax(0)))

    return take
