"""Cheaper attention for trained layers: linear (Hedgehog) or with locality-sensitive hashing (Reformer)."""

from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field

from data_schemas.config import FrozenConfig
from data_schemas.errors import ConfigError
from stages.compress.recovery_config import Recovery

if TYPE_CHECKING:
    from torch import Tensor

    from modeling.attention.multi_head import Attention
    from modeling.transformer import Transformer
    from stages.compress.pass_context import PassContext

LAYERS_DESCRIPTION = (
    "layers that are converted, counted from 0; by default all whose attention sees all preceding tokens"
)


def _no_repeats(layers: tuple[int, ...] | None) -> tuple[int, ...] | None:
    if layers is not None and (not layers or len(set(layers)) < len(layers) or min(layers) < 0):
        raise ValueError(f"layers are {list(layers)}; list at least one, each once, counted from 0")
    return layers


Layers = Annotated[tuple[int, ...] | None, AfterValidator(_no_repeats)]


class LinearAttentionPass(FrozenConfig):
    """Linear attention with feature maps fitted to the trained weights (Hedgehog, 2402.04347)."""

    kind: Literal["linear_attention"] = "linear_attention"
    layers: Layers = Field(None, description=LAYERS_DESCRIPTION)
    features: int | None = Field(
        None,
        gt=0,
        description="features of a query or key, before plus and minus double them; by default the width of a head "
        "(2402.04347, section 4.1)",
    )
    transfer_steps: int = Field(200, ge=0, description="steps in which the feature maps learn the attention weights")
    transfer_rows: int = Field(8, gt=0, description="training windows per transfer step")
    transfer_learning_rate: float = Field(
        1e-2, gt=0, description="AdamW's learning rate in transfer steps (2402.04347, appendix B)"
    )
    recovery: Recovery = Field(Recovery(), description="training of the whole network afterwards")

    def apply(self, model: "Transformer", context: "PassContext") -> "Transformer":
        """The same network with linear attention in the chosen layers, trained in place.

        Raises:
            ConfigError: if the network has integers, or a chosen layer cannot be converted.
        """
        import torch

        from modeling.attention.linear_attention import LinearAttention
        from modeling.compression.attention_transfer import transfer_attention
        from modeling.evaluation.network_counts import attention_heads

        replacements = {}
        for layer, attention in _convertible_layers(self, model).items():
            features = self.features or attention.head_width
            heads = attention_heads(attention)
            linear = LinearAttention.from_attention(attention, model.config.width, heads, features)
            replacements[layer] = linear.eval()
        sampler = context.sampler(model.config.context_length)
        batches = (
            torch.from_numpy(sampler.rows(step * self.transfer_rows, self.transfer_rows)[:, :-1])
            for step in range(self.transfer_steps)
        )
        losses = transfer_attention(model.eval(), replacements, batches, self.transfer_learning_rate)
        if losses:
            context.listener.logged(f"attention transfer: {losses[0]:.3f} to {losses[-1]:.3f} nats per token")
        for layer, linear in replacements.items():
            model.set_submodule(f"layers.{layer}.attention", linear)
        _recover(model, self.recovery, context, first_row=self.transfer_steps * self.transfer_rows)
        return model


class LshAttentionPass(FrozenConfig):
    """Attention to the tokens that a hash puts nearby (Reformer, 2001.04451), for long contexts."""

    kind: Literal["lsh_attention"] = "lsh_attention"
    layers: Layers = Field(None, description=LAYERS_DESCRIPTION)
    rounds: int = Field(
        2, ge=1, description="rounds of hashing; more miss fewer tokens and take longer (2001.04451, table 2)"
    )
    bucket_size: int = Field(
        32, gt=0, description="tokens per bucket on average; a chunk has twice as many (2001.04451, section 2)"
    )
    calibration_rows: int = Field(8, gt=0, description="training windows that the keys' norms are set on")
    recovery: Recovery = Field(Recovery(), description="training of the whole network afterwards")

    def apply(self, model: "Transformer", context: "PassContext") -> "Transformer":
        """The same network with hashed attention in the chosen layers, trained in place.

        Raises:
            ConfigError: if the network has integers, or a chosen layer cannot be converted.
        """
        from torch import nn

        from modeling.attention.lsh_attention import LshAttention
        from modeling.attention.lsh_plan import bucket_count
        from modeling.compression.attention_transfer import match_norms, share_query_key
        from modeling.evaluation.network_counts import attention_heads

        chosen = _convertible_layers(self, model)
        for layer, attention in chosen.items():
            projection = attention.query_key_value
            if not isinstance(projection, nn.Linear):
                raise ConfigError(
                    f"the pass {self.kind!r} found a {type(projection).__name__} in layer {layer}; it joins the "
                    "matrices of queries and keys, which must be whole: put it before the pass that factorizes them"
                )
        calibration = context.calibration(model.config.context_length, self.calibration_rows)
        inputs = _attention_inputs(model.eval(), chosen, calibration)
        for layer, attention in chosen.items():
            heads, head_width, seed = attention_heads(attention), attention.head_width, context.seed + layer
            buckets = bucket_count(model.config.context_length, self.bucket_size)
            hashed = LshAttention(
                model.config.width, heads, head_width, self.rounds, self.bucket_size, buckets, seed, attention.scale
            )
            share_query_key(attention, hashed)
            match_norms(attention, hashed, *inputs[layer])
            model.set_submodule(f"layers.{layer}.attention", hashed)
        _recover(model, self.recovery, context)
        return model


def _convertible_layers(
    settings: LinearAttentionPass | LshAttentionPass, model: "Transformer"
) -> "dict[int, Attention]":
    """Index of each layer to convert -> its attention."""
    from modeling.attention.kinds import FullAttention
    from modeling.attention.multi_head import Attention
    from modeling.replacements import check_float

    check_float(model, settings.kind)
    convertible: dict[int, Attention] = {}
    for index, layer in enumerate(model.layers.children()):
        attention = layer.get_submodule("attention")
        if isinstance(attention, Attention) and isinstance(attention.kind, FullAttention):
            convertible[index] = attention
    chosen = sorted(convertible if settings.layers is None else settings.layers)
    if not chosen or not set(chosen) <= convertible.keys():
        refused = f"layers {sorted(set(chosen) - convertible.keys())}" if chosen else "no layer"
        raise ConfigError(
            f"the pass {settings.kind!r} got {refused} to convert; it converts softmax attention that sees all "
            f"preceding tokens (kind 'full'), which is in layers {sorted(convertible) or 'none'} of the "
            f"{len(model.layers)} in this network"
        )
    return {index: convertible[index] for index in chosen}


def _attention_inputs(model: "Transformer", chosen: "dict[int, Attention]", tokens: "Tensor") -> dict[int, Any]:
    """Index of the layer -> (hidden, context) that its attention is called with."""
    import torch

    inputs: dict[int, Any] = {}

    def keep(layer: int) -> Any:
        return lambda module, arguments: inputs.update({layer: arguments[:2]})

    handles = [attention.register_forward_pre_hook(keep(layer)) for layer, attention in chosen.items()]
    try:
        with torch.no_grad():
            model.hidden_states(tokens)
    finally:
        for handle in handles:
            handle.remove()
    return inputs


def _recover(model: "Transformer", recovery: Recovery, context: "PassContext", first_row: int = 0) -> None:
    """Train the network; zeros of an earlier pass stay zeros."""
    from modeling.compression.pruning import apply_masks, zero_masks
    from stages.compress.recovery import recover, recovery_loss

    keep_zeros = partial(apply_masks, masks=zero_masks(model))
    recover(model, recovery, context, recovery_loss(recovery, context), keep_zeros, first_row)
