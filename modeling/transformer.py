"""The decoder: embedding, pre-norm layers, final norm, head.

Laid out as GPT-NeoX with hidden_act="relu", use_parallel_residual=False and rotary_pct=1.0 (Black et al. 2022,
2204.06745), tensor by tensor, so that export to it only renames them.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from modeling.attention.context_parallel import TokenShare
from modeling.attention.key_value_cache import MAX_NEW_TOKENS, CacheUse, DecoderCache
from modeling.attention.multi_head import Attention, LayerContext
from modeling.documents import find_documents
from modeling.embeddings import build_embedding, build_head, head_bands, tie
from modeling.experts.layer import Experts
from modeling.experts.router import RoutingReport
from modeling.feed_forward import FeedForward
from modeling.initialization import attention_scale, initialize, logit_multiplier, residual_multiplier
from modeling.loss.cross_entropy import TrainingLoss, chunked_token_losses, linear_cross_entropy
from modeling.rotary import rotation_at
from modeling.transformer_config import TransformerConfig


class DecoderLayer(nn.Module):
    """x + attention(norm(x)), then x + feed_forward(norm(x)) (pre-norm: Xiong et al. 2020, 2002.04745)."""

    def __init__(self, config: TransformerConfig, layer: int) -> None:
        """Build the layer at this depth, counted from 0."""
        super().__init__()
        experts = config.layer_experts(layer)
        self.residual_multiplier = residual_multiplier(config)
        self.attention_norm = nn.LayerNorm(config.width, config.norm_epsilon)
        self.attention = Attention(config.layer_attention(layer), config.width, config.heads, attention_scale(config))
        self.feed_forward_norm = nn.LayerNorm(config.width, config.norm_epsilon)
        self.feed_forward: FeedForward | Experts = (
            FeedForward(config.width, config.feed_forward_width)
            if experts is None
            else Experts(config.width, config.feed_forward_width, experts)
        )

    def forward(
        self, hidden: Tensor, context: LayerContext, cache: CacheUse | None = None
    ) -> tuple[Tensor, RoutingReport | None]:
        """(batch, tokens, width), the residual stream -> the same after this layer, and the experts' report."""
        hidden = self._add(hidden, self.attention(self.attention_norm(hidden), context, cache))
        update = self.feed_forward(self.feed_forward_norm(hidden))
        update, report = update if isinstance(update, tuple) else (update, None)
        return self._add(hidden, update), report

    def _add(self, hidden: Tensor, update: Tensor) -> Tensor:
        return hidden + update if self.residual_multiplier == 1 else hidden + self.residual_multiplier * update


class Transformer(nn.Module):
    """A decoder that predicts the next token at every position."""

    def __init__(self, config: TransformerConfig) -> None:
        """Build with random weights from torch's global generator; on the device of a `torch.device` context."""
        super().__init__()
        self.config = config
        self.embedding = build_embedding(config)
        self.layers = nn.ModuleList(DecoderLayer(config, layer) for layer in range(config.layers))
        self.final_norm = nn.LayerNorm(config.width, config.norm_epsilon)
        self.head = build_head(config)
        self.logit_multiplier = logit_multiplier(config)
        self.routing_reports: list[RoutingReport] = []
        """From the last forward pass, without gradient, for the log: one for each layer with experts."""
        self.token_share: TokenShare | None = None
        """Set if several processes share each row's tokens; `tokens` and `targets` are whole rows nevertheless."""
        self.shared_loss: Callable[[nn.Module, Tensor, Tensor, float], TrainingLoss] | None = None
        """(head, hidden, targets, z_loss) -> loss; set if several processes share the head's table."""
        self.recompute = False
        """Activation checkpointing: layers keep only their inputs for the gradient (Chen et al. 2016, 1604.06174)."""
        if config.tied_embeddings:
            self.tie_head()
        initialize(self, config)

    def forward(
        self,
        tokens: Tensor,
        targets: Tensor | None = None,
        cache: DecoderCache | None = None,
        counts: Tensor | None = None,
        z_loss: float = 0.0,
    ) -> Tensor | TrainingLoss:
        """Predict, or compute the loss of the prediction.

        The loss is computed in here, and not from logits outside, so that a data-parallel wrapper sees the whole
        step and logits of all tokens are never held.

        Args:
            tokens: (batch, tokens) int64.
            targets: (batch, tokens) int64, the token after each; None to predict.
            cache: from `new_cache`; `tokens` continue the tokens it holds, and are added to it.
            counts: (batch,) int64 on the CPU, with a cache only: tokens of each row that count, at least 1 when the
                cache is empty; those after them are padding. None if all count.
            z_loss: weight of the squared log-sum-exp of the logits, with targets only.

        Returns:
            Without targets: logits (batch, tokens, vocabulary). With targets: the loss, in nats.
        """
        reports: list[RoutingReport] = []
        hidden = self.hidden_states(tokens, cache, counts, reports)
        self.routing_reports = [report._replace(loss=report.loss.detach()) for report in reports]
        if targets is None:
            return self.head(hidden)  # type: ignore[no-any-return]
        if self.token_share is not None:
            targets = self.token_share.cut(targets)
        loss = self._prediction_loss(hidden, targets, z_loss)
        return TrainingLoss(loss.total + sum(report.loss for report in reports), loss.cross_entropy)

    def _prediction_loss(self, hidden: Tensor, targets: Tensor, z_loss: float) -> TrainingLoss:
        if self.shared_loss is not None:
            return self.shared_loss(self.head, hidden, targets, z_loss)
        if torch.is_grad_enabled() and any(parameter.requires_grad for parameter in self.head.parameters()):
            return linear_cross_entropy(head_bands(self.head, hidden), targets, z_loss)
        cross_entropy = chunked_token_losses(hidden, self.head, targets).mean()
        return TrainingLoss(cross_entropy, cross_entropy.detach())

    def hidden_states(
        self,
        tokens: Tensor,
        cache: DecoderCache | None = None,
        counts: Tensor | None = None,
        reports: list[RoutingReport] | None = None,
    ) -> Tensor:
        """States after the final norm, before the head.

        Args:
            tokens: as in `forward`; or vectors (batch, tokens, width) in place of embeddings, such as parts of images,
                whose rows are one document each.
            cache: as in `forward`. More than `MAX_NEW_TOKENS` tokens after those it holds are taken in pieces.
            counts: as in `forward`.
            reports: the layers with experts append their reports to it.

        Returns:
            (batch, tokens, width).
        """
        config, new = self.config, tokens.shape[1]
        positions, documents = torch.arange(new), None
        uses: Sequence[CacheUse | None] = [None] * config.layers
        if cache is None:
            if config.separate_documents and not tokens.is_floating_point():
                documents = find_documents(tokens, config.end_of_text)
            if self.token_share is not None:
                tokens, positions = self.token_share.cut(tokens), self.token_share.cut(positions[None])[0]
        else:
            counts = torch.full(tokens.shape[:1], new) if counts is None else counts
            if cache.longest > 0 and new > MAX_NEW_TOKENS:
                pieces = [
                    (tokens[:, start : start + MAX_NEW_TOKENS], counts - start)
                    for start in range(0, new, MAX_NEW_TOKENS)
                ]
                states = [
                    self.hidden_states(piece, cache, left.clamp(0, MAX_NEW_TOKENS), reports) for piece, left in pieces
                ]
                return torch.cat(states, dim=1)
            if cache.longest > 0:
                positions = cache.lengths[:, None] + positions
            uses = cache.extend(counts, new)

        hidden = tokens if tokens.is_floating_point() else self.embedding(tokens)
        context = LayerContext(rotation_at(positions, config.head_width, config.rotary_base, hidden), documents)
        for layer, use in zip(self.layers.children(), uses, strict=True):
            hidden, report = self.run_layer(layer, hidden, context, use)
            if report is not None and reports is not None:
                reports.append(report)
        hidden = self.final_norm(hidden)
        return hidden if self.logit_multiplier == 1 else hidden * self.logit_multiplier  # type: ignore[no-any-return]

    def run_layer(
        self, layer: nn.Module, hidden: Tensor, context: LayerContext, cache: CacheUse | None = None
    ) -> tuple[Tensor, RoutingReport | None]:
        """`DecoderLayer.forward`, with activation checkpointing if `recompute` is set."""
        if self.recompute and torch.is_grad_enabled():
            return checkpoint(layer, hidden, context, use_reentrant=False)  # type: ignore[no-any-return]
        return layer(hidden, context, cache)  # type: ignore[no-any-return]

    def new_cache(self, batch: int, capacity: int | None = None) -> DecoderCache:
        """An empty cache for rows of up to `capacity` tokens, by default the context length."""
        config = self.config
        capacity = config.context_length if capacity is None else capacity
        kinds = [config.layer_attention(layer) for layer in range(config.layers)]
        attentions = [layer.attention for layer in self.layers.children()]
        heads = [getattr(attention, "heads", config.heads) for attention in attentions]
        like = self.final_norm.weight
        cache = DecoderCache(kinds, batch, capacity, heads, config.head_width, like)
        for index, attention in enumerate(attentions):
            new_state: Any = getattr(attention, "new_state", None)
            if new_state is not None:  # a recurrent state, or keys and values in int8
                cache.layers[index] = new_state(batch, capacity, like)
        return cache

    def tie_head(self) -> None:
        """Make the head's tables the embedding's own tensors."""
        tie(self.embedding, self.head)
