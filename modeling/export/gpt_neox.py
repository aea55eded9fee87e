"""Dense networks as GPT-NeoX (Black et al. 2022, 2204.06745), the published architecture that they match exactly.

- `dense_weights`: float weights of a network that GPT-NeoX can express, with its multipliers folded in
- `fold_multipliers`: fold factors of the forward pass into the weights
- `tensor_names`: map our tensor names to those of another format

The network is GPT-NeoX with hidden_act="relu", use_parallel_residual=False and rotary_pct=1.0.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor

from data_schemas.errors import ContractError
from modeling.attention.kinds import FullAttention
from modeling.export.onnx_layers import unsupported_module
from modeling.finite_weights import check_finite
from modeling.initialization import attention_scale, logit_multiplier, residual_multiplier
from modeling.replacements import replacements_of
from modeling.transformer import Transformer
from modeling.transformer_config import TransformerConfig

Weights = dict[str, Tensor]

EXPORT_HEADRACE = "export it with --format headrace, which `headrace generate FOLDER` loads"

_LAYER_MODULES = (
    "attention_norm",
    "attention.query_key_value",
    "attention.output",
    "feed_forward_norm",
    "feed_forward.up",
    "feed_forward.down",
)


def dense_weights(model: Transformer, target: str) -> Weights:
    """Weights on the CPU under our names, without a tied head.

    Args:
        model: any network.
        target: name of the target format, for errors.

    Raises:
        ContractError: if GPT-NeoX cannot express the network, or a weight is not finite.
    """
    config = model.config
    for feature, remedy in _unsupported(model):
        raise ContractError(f"the network {feature}, which {target} cannot express; {remedy}")
    weights = {
        name: tensor.detach().cpu()
        for name, tensor in model.state_dict().items()
        if not (config.tied_embeddings and name.startswith("head."))
    }
    known = {module for module, _ in _named_modules(config)}
    unknown = [name for name in weights if name.rpartition(".")[0] not in known]
    if unknown:
        raise ContractError(f"the network has a tensor {unknown[0]}, which {target} cannot express; {EXPORT_HEADRACE}")
    check_finite(weights, f"the network to export to {target}")
    return fold_multipliers(weights, config, Multipliers.from_config(config))


def _unsupported(model: Transformer) -> Iterator[tuple[str, str]]:
    """(feature that GPT-NeoX does not have, remedy)."""
    config = model.config
    remedy = EXPORT_HEADRACE if unsupported_module(model) else "export it with --format onnx, or --format headrace"
    kinds = {kind.kind for kind in config.attention if not isinstance(kind, FullAttention)}
    if kinds:
        yield f"has {' and '.join(sorted(kinds))} attention", remedy
    if config.experts is not None:
        yield "has mixtures of experts", remedy
    if config.embedding_bands:
        yield "has an embedding in bands", remedy
    for name, description in replacements_of(model).items():
        kind = description["kind"]
        module = f"a linear layer with {description['outputs']} outputs" if kind == "linear" else kind
        yield f"has {module} as {name}", f"{remedy}, or the network before compression with --stage pretrain"


@dataclass(frozen=True)
class Multipliers:
    """Factors in the forward pass of a network trained with muP, which GPT-NeoX does not have."""

    residual: float = 1.0
    """Factor on the outputs of attention and feed-forward."""
    logits: float = 1.0
    """Factor on the hidden state between the final norm and the head."""
    scores: float = 1.0
    """Factor on the attention scores, in addition to 1 / sqrt(head width)."""

    @classmethod
    def from_config(cls, config: TransformerConfig) -> "Multipliers":
        """Multipliers of a network; all 1 in the standard parametrization."""
        scores = attention_scale(config) / (1 / math.sqrt(config.head_width))
        return cls(residual_multiplier(config), logit_multiplier(config), scores)


def fold_multipliers(weights: Mapping[str, Tensor], config: TransformerConfig, factors: Multipliers) -> Weights:
    """Weights of an equivalent network without the factors; exact up to rounding, bitwise for powers of two.

    The final norm gets the logits' factor, so that a tied head works too; queries get that of the scores, which
    commutes with the rotary embedding.

    Args:
        weights: weights under our names; not changed.
        config: config of the network.
        factors: factors of its forward pass.
    """
    folded = dict(weights)
    for name, tensor in weights.items():
        module = name.rpartition(".")[0]
        if module.endswith(("attention.output", "feed_forward.down")):
            folded[name] = tensor * factors.residual
        elif module == "final_norm":
            folded[name] = tensor * factors.logits
        elif module.endswith("attention.query_key_value"):
            folded[name] = tensor.clone()
            folded[name].view(config.heads, 3, -1)[:, 0] *= factors.scores
    return folded


def tensor_names(
    config: TransformerConfig, outer: Mapping[str, str], inner: Mapping[str, str], layer: str
) -> dict[str, str]:
    """Map from our tensor names to those of another format.

    Args:
        config: config of a network that GPT-NeoX can express.
        outer: names of the modules outside the layers in the other format.
        inner: names of the modules inside a layer.
        layer: prefix of a layer, with {} for its index.
    """
    names = {}
    for module, index in _named_modules(config):
        target = outer[module] if index is None else layer.format(index) + inner[module.split(".", 2)[2]]
        for kind in ("weight",) if module in ("embedding", "head") else ("weight", "bias"):
            names[f"{module}.{kind}"] = f"{target}.{kind}"
    return names


def _named_modules(config: TransformerConfig) -> Iterator[tuple[str, int | None]]:
    """(our name, layer index) of every module with tensors, except a tied head."""
    yield "embedding", None
    for index in range(config.layers):
        for module in _LAYER_MODULES:
            yield f"layers.{index}.{module}", index
    yield "final_norm", None
    if not config.tied_embeddings:
        yield "head", None
