"""Initialization of linear and LSH attention from a trained layer's softmax attention.

- `transfer_attention`: fits the feature maps of linear attention (Hedgehog, Zhang et al. 2024, 2402.04347, equation 4)
- `share_query_key`, `match_norms`: the nearest shared query-key projection for LSH attention, and its keys' norms
"""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modeling.attention.linear_attention import LinearAttention
from modeling.attention.lsh_attention import LshAttention
from modeling.attention.multi_head import Attention, LayerContext
from modeling.documents import Documents
from modeling.rotary import rotate
from modeling.transformer import Transformer


def transfer_attention(
    model: Transformer, replacements: Mapping[int, LinearAttention], batches: Iterable[Tensor], learning_rate: float
) -> list[float]:
    """Fit feature maps to the attention weights of the layers that they are to replace (Hedgehog, equation 4).

    Every layer is fitted separately, on its inputs in the unchanged network.

    Args:
        model: with its softmax attention; not changed.
        replacements: layer's index -> replacement of its attention, of which only the feature maps are trained.
        batches: (rows, tokens) int64, one for each step. Weights of all pairs of tokens are held, a layer at a time.
        learning_rate: AdamW's, constant.

    Returns:
        Cross-entropy between the two kinds of weights, in nats per token, mean over layers: one for each step.
    """
    maps = [part for layer in replacements.values() for part in (layer.query_features, layer.key_features)]
    optimizer = torch.optim.AdamW([p for part in maps for p in part.parameters()], learning_rate, weight_decay=0.0)
    handles = []
    losses: list[float] = []

    def fit(replacement: LinearAttention, scale: float) -> Any:
        def hook(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            with torch.enable_grad():
                loss = transfer_loss(replacement, inputs[0].detach(), inputs[1], scale) / len(replacements)
                loss.backward()  # type: ignore[no-untyped-call]
            losses[-1] += float(loss.detach())

        return hook

    for index, replacement in replacements.items():
        attention = model.layers[index].get_submodule("attention")
        assert isinstance(attention, Attention)
        handles.append(attention.register_forward_pre_hook(fit(replacement, attention.scale)))
    try:
        for tokens in batches:
            optimizer.zero_grad(set_to_none=True)
            losses.append(0.0)
            with torch.no_grad():
                model.hidden_states(tokens)
            optimizer.step()
    finally:
        for handle in handles:
            handle.remove()
    return losses


def transfer_loss(layer: LinearAttention, hidden: Tensor, context: LayerContext, scale: float) -> Tensor:
    """Cross-entropy of linear weights against softmax weights, nats per token and head; gradient of feature maps only.

    Args:
        layer: computes both; its projections are the trained layer's.
        hidden: (batch, tokens, width), normed.
        context: of these tokens.
        scale: of the softmax scores.
    """
    with torch.no_grad():
        projected = layer.query_key_value(hidden).unflatten(-1, (-1, 3, layer.head_width))
        projected = rotate(projected, context.rotation)
        queries, keys, _ = projected.transpose(1, 2).unbind(3)
        visible = _visible(context.documents, hidden)
        teacher = (queries @ keys.mT * scale).masked_fill(~visible, -torch.inf).softmax(-1)
    query_features, key_features, _ = layer.features(projected)
    weights = (query_features @ key_features.mT).masked_fill(~visible, 0.0)
    tiny = torch.finfo(weights.dtype).tiny
    logarithms = weights.clamp_min(tiny).log() - weights.sum(-1, keepdim=True).clamp_min(tiny).log()
    return -(teacher * logarithms).sum(-1).mean()


def _visible(documents: Documents | None, hidden: Tensor) -> Tensor:
    """(batch or 1, 1, queries, keys) bool."""
    positions = torch.arange(hidden.shape[1], device=hidden.device)
    causal = positions <= positions[:, None]
    if documents is None:
        return causal[None, None]
    starts = torch.from_numpy(documents.starts).to(hidden.device)
    return (causal & (positions >= starts[..., None]))[:, None]


def share_query_key(source: Attention, target: LshAttention) -> None:
    """Fill `target` from a trained layer: the shared projection is the mean of both, the values are copied.

    The keys' norms are left for `match_norms`. `source.query_key_value` must be an `nn.Linear`.
    """
    separate, shared = source.query_key_value, target.shared_key_value
    with torch.no_grad():
        for to, tensor in ((shared.weight, separate.weight), (shared.bias, separate.bias)):
            query, key, value = torch.unflatten(tensor, 0, (-1, 3, source.head_width)).unbind(1)
            to.copy_(torch.stack(((query + key) / 2, value), dim=1).flatten(0, 2))
    target.output = source.output


@torch.no_grad()
def match_norms(source: Attention, target: LshAttention, hidden: Tensor, context: LayerContext) -> None:
    """Set the keys' norms so that scores spread as the trained layer's do, on its inputs (batch, tokens, width)."""
    projected = rotate(source.query_key_value(hidden).unflatten(-1, (-1, 3, source.head_width)), context.rotation)
    queries, keys, _ = projected.transpose(1, 2).unbind(3)
    cosines, sines = context.rotation
    projected = target.shared_key_value(hidden).unflatten(-1, (-1, 2, target.head_width))
    shared = rotate(projected, (cosines[..., ::2, :], sines[..., ::2, :])).transpose(1, 2)[..., 0, :]
    earlier = torch.ones(hidden.shape[1], hidden.shape[1], dtype=torch.bool, device=hidden.device).tril(-1)
    source_spread = (queries @ keys.mT)[..., earlier].std(-1).mean(0)
    target_spread = (shared @ F.normalize(shared, dim=-1).mT)[..., earlier].std(-1).mean(0)
    target.key_norms.copy_(source_spread / target_spread.clamp_min(torch.finfo(target_spread.dtype).tiny))
