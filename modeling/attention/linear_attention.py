"""Softmax attention turned into linear attention: time linear in the tokens, a decode state of fixed size.

    out_t = sum over s <= t of phi(q_t) . phi(k_s) v_s, over sum over s <= t of phi(q_t) . phi(k_s)

(Katharopoulos et al. 2020, 2006.16236, section 3). The feature maps are Hedgehog's (Zhang et al. 2024, 2402.04347,
section 4.1): softmaxes of a learnt map, which can be as spiky and as monotone in q . k as softmax attention is. They
are fitted to the trained layer's own attention weights (`transfer_attention`), and the network is then trained on.

- `LinearAttention`: takes an `Attention`'s place; `RecurrentState`: what it keeps in decode
- `linear_attention`: the chunked causal form
- `transfer_attention`: fits the feature maps
"""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modeling.attention.key_value_cache import CacheSlots, CacheStep
from modeling.attention.multi_head import Attention, CacheUse, LayerContext
from modeling.documents import Documents
from modeling.recurrent_state import RecurrentState
from modeling.replacements import replaces
from modeling.rotary import rotate
from modeling.transformer import Transformer

CHUNK = 64
"""Tokens that look at one another by a masked product; all before them are in the state."""


class HedgehogFeatures(nn.Module):
    """phi(x) = [softmax(W x), softmax(-W x)] for each head; starts with W = 1, the identity's first rows."""

    def __init__(self, heads: int, head_width: int, features: int) -> None:
        """Make room for `projection` (heads, head_width, features)."""
        super().__init__()
        eye = torch.eye(head_width, features).expand(heads, -1, -1).clone()
        self.projection = nn.Parameter(eye)

    def forward(self, vectors: Tensor) -> Tensor:
        """(batch, heads, tokens, head_width) -> (batch, heads, tokens, 2 features), positive; each half sums to 1."""
        mapped = vectors @ self.projection
        return torch.cat((mapped.softmax(-1), (-mapped).softmax(-1)), dim=-1)


def linear_attention(
    queries: Tensor, keys: Tensor, values: Tensor, sums: Tensor | None = None, chunk: int = CHUNK
) -> tuple[Tensor, Tensor]:
    """The causal form in chunks (Hua et al. 2022, 2202.10447, section 3.2; Yang et al. 2023, 2312.06635, section 2).

    Args:
        queries: features (batch, heads, tokens, features), not negative.
        keys: features of the same shape; zeros for a token that nobody sees.
        values: (batch, heads, tokens, head_width).
        sums: (batch, heads, features, head_width + 1) of the tokens before these; the last column sums keys alone.
        chunk: tokens that look at one another directly.

    Returns:
        (batch, heads, tokens, head_width), and the sums with these tokens in them.
    """
    tokens = queries.shape[2]
    chunk = min(chunk, tokens)
    counted = F.pad(values, (0, 1), value=1.0)
    missing = -tokens % chunk
    # Padding has queries that see something: 0 / 0 would spoil the gradient though it is cut off.
    queries = torch.unflatten(F.pad(queries, (0, 0, 0, missing), value=1.0), 2, (-1, chunk))
    keys = torch.unflatten(F.pad(keys, (0, 0, 0, missing)), 2, (-1, chunk))
    counted = torch.unflatten(F.pad(counted, (0, 0, 0, missing)), 2, (-1, chunk))
    of_chunks = (keys.mT @ counted).cumsum(2)
    before = torch.zeros_like(of_chunks[:, :, :1]) if sums is None else sums[:, :, None].to(of_chunks.dtype)
    of_chunks = torch.cat((before, before + of_chunks), dim=2)
    total = (queries @ keys.mT).tril() @ counted + queries @ of_chunks[:, :, :-1]
    weight = total[..., -1:].clamp_min(torch.finfo(total.dtype).tiny)
    return (total[..., :-1] / weight).flatten(2, 3)[:, :, :tokens], of_chunks[:, :, -1]


@replaces("linear_attention")
class LinearAttention(nn.Module):
    """In place of an `Attention` that sees all tokens so far."""

    def __init__(self, width: int, heads: int, head_width: int, features: int) -> None:
        """Make room.

        Args:
            width: numbers per token.
            heads: of the layer, which may have lost some.
            head_width: numbers per head.
            features: numbers that a query or key is mapped to; softmax of plus and minus makes twice as many.
        """
        super().__init__()
        self._sizes = {"width": width, "heads": heads, "head_width": head_width, "features": features}
        self.head_width = head_width
        self.query_key_value = nn.Linear(width, 3 * heads * head_width)
        self.output = nn.Linear(heads * head_width, width)
        self.query_features = HedgehogFeatures(heads, head_width, features)
        self.key_features = HedgehogFeatures(heads, head_width, features)

    @classmethod
    def from_attention(cls, given: Attention, width: int, heads: int, features: int) -> "LinearAttention":
        """With the very projections of `given`, and feature maps that are not fitted yet."""
        made = cls(width, heads, given.head_width, features)
        made.query_key_value, made.output = given.query_key_value, given.output
        return made.train(given.training)

    def forward(self, hidden: Tensor, context: LayerContext, cache: CacheUse | None = None) -> Tensor:
        """As `Attention.forward`: (batch, tokens, width), normed -> the same, to be added to the residual stream."""
        projected = self.query_key_value(hidden).unflatten(-1, (-1, 3, self.head_width))
        projected = rotate(projected, context.rotation)
        if cache is None:
            mixed = self._within(projected, context.documents)
        elif isinstance(cache.layer, RecurrentState):
            mixed = self._behind_state(projected, cache.layer, cache.step)
        else:
            mixed = self._behind_keys(projected, cache)
        return self.output(mixed.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]

    def sizes(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return dict(self._sizes)

    def mixing_products(self, tokens: int) -> int:
        """Multiply-accumulates per token of a row of `tokens`, projections not counted; with 1, those of decode."""
        heads, features = self._sizes["heads"], 2 * self._sizes["features"]
        columns = self.head_width + 1
        return heads * features * (self.head_width + 2 * columns) + heads * min(tokens, CHUNK) * (features + columns)

    def new_state(self, batch: int, capacity: int, like: Tensor) -> RecurrentState:
        """An empty state for decode; stands in the place of the layer's cache in `DecoderCache.layers`."""
        heads, features = self._sizes["heads"], 2 * self._sizes["features"]
        return RecurrentState(like.new_zeros(batch, heads, features, self.head_width + 1), capacity)

    def features(self, projected: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features of queries and keys (batch, heads, tokens, 2 features), and values (..., head_width)."""
        queries, keys, values = projected.transpose(1, 2).unbind(3)
        return self.query_features(queries), self.key_features(keys), values

    def _within(self, projected: Tensor, documents: Documents | None) -> Tensor:
        """(batch, heads, tokens, head_width)."""
        queries, keys, values = self.features(projected)
        if documents is None:
            return linear_attention(queries, keys, values)[0]
        rows: list[list[Tensor]] = [[] for _ in queries]
        for row, start, stop in documents.spans():
            here = slice(row, row + 1), slice(None), slice(start, stop)
            rows[row].append(linear_attention(queries[here], keys[here], values[here])[0])
        return torch.cat([torch.cat(parts, dim=2) for parts in rows])

    def _behind_state(self, projected: Tensor, state: RecurrentState, step: CacheStep | list[CacheSlots]) -> Tensor:
        queries, keys, values = self.features(projected)
        counted = state.counted(step.tokens if isinstance(step, CacheStep) else step[0])
        if counted is not None:
            keys = keys * counted[:, None, :, None]
        mixed, state.sums = linear_attention(queries, keys, values, state.sums)
        return mixed

    def _behind_keys(self, projected: Tensor, cache: CacheUse) -> Tensor:
        """From keys and values of all tokens, where the cache is one for softmax attention: the same, in more time."""
        if not isinstance(cache.step, CacheStep):
            cache.layer.write(0, projected[..., 1:, :], cache.step[0])
            return self._within(projected, None)
        cache.layer.write(0, projected[..., 1:, :], cache.step.tokens)
        keys, values = cache.layer.keys_and_values(cache.step.used).transpose(1, 2).unbind(3)
        queries = projected[..., 0, :].transpose(1, 2)
        weights = self.query_features(queries) @ self.key_features(keys).mT
        if cache.step.mask is not None:
            weights = weights.masked_fill(cache.step.mask < 0, 0.0)
        mixed: Tensor = weights / weights.sum(-1, keepdim=True) @ values
        return mixed


def transfer_attention(
    model: Transformer, made: Mapping[int, LinearAttention], batches: Iterable[Tensor], learning_rate: float
) -> list[float]:
    """Fit feature maps to the attention weights of the layers whose places they are to take (Hedgehog, equation 4).

    Every layer learns on its own, on the inputs that it has in the network as it is.

    Args:
        model: with the softmax attention still in it; not changed.
        made: number of the layer -> what is to take its attention's place. Its feature maps alone are trained.
        batches: (rows, tokens) int64, one for each step. Weights of all pairs of tokens are held, a layer at a time.
        learning_rate: AdamW's, constant.

    Returns:
        Cross-entropy between the two kinds of weights, in nats per token, mean over layers: one for each step.
    """
    maps = [part for one in made.values() for part in (one.query_features, one.key_features)]
    optimizer = torch.optim.AdamW([p for part in maps for p in part.parameters()], learning_rate, weight_decay=0.0)
    handles = []
    losses: list[float] = []

    def learn(one: LinearAttention, scale: float) -> Any:
        def hook(module: nn.Module, given: tuple[Any, ...]) -> None:
            with torch.enable_grad():
                loss = transfer_loss(one, given[0].detach(), given[1], scale) / len(made)
                loss.backward()  # type: ignore[no-untyped-call]
            losses[-1] += float(loss.detach())

        return hook

    for number, one in made.items():
        attention = model.layers[number].get_submodule("attention")
        assert isinstance(attention, Attention)
        handles.append(attention.register_forward_pre_hook(learn(one, attention.scale)))
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


def transfer_loss(one: LinearAttention, hidden: Tensor, context: LayerContext, scale: float) -> Tensor:
    """Cross-entropy of linear weights against softmax weights, nats per token and head; gradient of feature maps only.

    Args:
        one: gives both; its projections are the trained layer's.
        hidden: (batch, tokens, width), normed.
        context: of these tokens.
        scale: of the softmax scores.
    """
    with torch.no_grad():
        projected = one.query_key_value(hidden).unflatten(-1, (-1, 3, one.head_width))
        projected = rotate(projected, context.rotation)
        queries, keys, _ = projected.transpose(1, 2).unbind(3)
        seen = _seen(context.documents, hidden)
        teacher = (queries @ keys.mT * scale).masked_fill(~seen, -torch.inf).softmax(-1)
    query_features, key_features, _ = one.features(projected)
    weights = (query_features @ key_features.mT).masked_fill(~seen, 0.0)
    tiny = torch.finfo(weights.dtype).tiny
    logarithms = weights.clamp_min(tiny).log() - weights.sum(-1, keepdim=True).clamp_min(tiny).log()
    return -(teacher * logarithms).sum(-1).mean()


def _seen(documents: Documents | None, hidden: Tensor) -> Tensor:
    """(batch or 1, 1, queries, keys) bool."""
    places = torch.arange(hidden.shape[1], device=hidden.device)
    causal = places <= places[:, None]
    if documents is None:
        return causal[None, None]
    starts = torch.from_numpy(documents.starts).to(hidden.device)
    return (causal & (places >= starts[..., None]))[:, None]
