"""Put linear or LSH attention in trained layers' places, and train on."""

from typing import Any

import torch
from torch import nn

from data_schemas.errors import ConfigError
from modeling.attention.kinds import FullAttention
from modeling.attention.linear_attention import LinearAttention
from modeling.attention.lsh_attention import LshAttention
from modeling.attention.multi_head import Attention
from modeling.compression.attention_transfer import match_norms, share_query_key, transfer_attention
from modeling.compression.pruning import apply_masks, zero_masks
from modeling.evaluation.network_counts import attention_heads
from modeling.replacements import check_float
from modeling.transformer import Transformer
from stages.compress.attention_config import LinearAttentionPass, LshAttentionPass
from stages.compress.pass_context import PassContext
from stages.compress.recovery import recover
from stages.compress.recovery_loss import recovery_loss


def apply(one: LinearAttentionPass | LshAttentionPass, model: Transformer, context: PassContext) -> Transformer:
    """The same network with cheaper attention in the chosen layers, trained in place.

    Raises:
        ConfigError: where the network has integers, or a chosen layer cannot be converted.
    """
    check_float(model, one.kind)
    chosen = _chosen(one, model)
    if isinstance(one, LinearAttentionPass):
        return _apply_linear(one, model, chosen, context)
    return _apply_lsh(one, model, chosen, context)


def _apply_linear(
    one: LinearAttentionPass, model: Transformer, chosen: dict[int, Attention], context: PassContext
) -> Transformer:
    width = model.config.width
    made = {
        number: LinearAttention.from_attention(
            given, width, attention_heads(given), one.features or given.head_width
        ).eval()
        for number, given in chosen.items()
    }
    sampler = context.sampler(model.config.context_length)
    batches = (
        torch.from_numpy(sampler.rows(step * one.transfer_rows, one.transfer_rows)[:, :-1])
        for step in range(one.transfer_steps)
    )
    losses = transfer_attention(model.eval(), made, batches, one.transfer_learning_rate)
    if losses:
        context.listener.logged(f"attention transfer: {losses[0]:.3f} to {losses[-1]:.3f} nats per token")
    for number, attention in made.items():
        model.set_submodule(f"layers.{number}.attention", attention)
    _train(one, model, context, first_row=one.transfer_steps * one.transfer_rows)
    return model


def _apply_lsh(
    one: LshAttentionPass, model: Transformer, chosen: dict[int, Attention], context: PassContext
) -> Transformer:
    for number, given in chosen.items():
        if not isinstance(given.query_key_value, nn.Linear):
            raise ConfigError(
                f"the pass {one.kind!r} found a {type(given.query_key_value).__name__} in layer {number}; it joins the "
                "matrices of queries and keys, which must be whole: put it before the pass that factorizes them"
            )
    calls = _attention_inputs(
        model.eval(), chosen, context.calibration(model.config.context_length, one.calibration_rows)
    )
    for number, given in chosen.items():
        heads, seed = attention_heads(given), context.seed + number
        made = LshAttention(model.config.width, heads, given.head_width, one.rounds, one.bucket_size, seed, given.scale)
        share_query_key(given, made)
        match_norms(given, made, *calls[number])
        model.set_submodule(f"layers.{number}.attention", made)
    _train(one, model, context)
    return model


def _train(
    one: LinearAttentionPass | LshAttentionPass, model: Transformer, context: PassContext, first_row: int = 0
) -> None:
    """Recovery, in which zeros of an earlier pass stay zeros."""
    masks = zero_masks(model)
    loss_of = recovery_loss(one.recovery, context)
    recover(model, one.recovery, context, loss_of, lambda _: apply_masks(model, masks), first_row)


def _chosen(one: LinearAttentionPass | LshAttentionPass, model: Transformer) -> dict[int, Attention]:
    """Number of the layer -> the attention whose place is taken."""
    able: dict[int, Attention] = {}
    for number, layer in enumerate(model.layers.children()):
        attention = layer.get_submodule("attention")
        if isinstance(attention, Attention) and isinstance(attention.kind, FullAttention):
            able[number] = attention
    wanted = able if one.layers is None else one.layers
    if not wanted or not set(wanted) <= able.keys():
        found = f"layers {sorted(set(wanted) - able.keys())}" if wanted else "no layer"
        raise ConfigError(
            f"the pass {one.kind!r} got {found} to convert; it converts softmax attention that sees all tokens so far "
            f"(kind 'full'), which is in layers {sorted(able) or 'none'} of the {len(model.layers)} here"
        )
    return {number: able[number] for number in sorted(wanted)}


@torch.no_grad()
def _attention_inputs(model: Transformer, chosen: dict[int, Attention], tokens: torch.Tensor) -> dict[int, Any]:
    """(hidden, context) that each layer's attention is called with."""
    found: dict[int, Any] = {}

    def keep(number: int) -> Any:
        return lambda module, given: found.update({number: given[:2]})

    handles = [given.register_forward_pre_hook(keep(number)) for number, given in chosen.items()]
    try:
        model.hidden_states(tokens)
    finally:
        for handle in handles:
            handle.remove()
    return found
