"""GPT-NeoX (Black et al. 2022, 2204.06745), the published architecture that a dense network of ours is exactly.

- `dense_weights`: a network's float weights, if the architecture can express it, with its multipliers folded in
- `fold_multipliers`: factors of the forward pass drawn into the weights
- `tensor_names`: our tensor names -> those of another naming

The network is GPT-NeoX with hidden_act="relu", use_parallel_residual=False and rotary_pct=1.0.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor

from data_schemas.errors import ContractError
from modeling.attention.kinds import FullAttention
from modeling.export.onnx_layers import obstacle
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
    """The weights on the CPU under our names, a tied head's left out.

    Args:
        model: any network.
        target: what the weights are for, as errors name it.

    Raises:
        ContractError: where GPT-NeoX cannot express the network, or a weight is not finite.
    """
    config = model.config
    for what, remedy in _inexpressible(model):
        raise ContractError(f"the network {what}, which {target} cannot express; {remedy}")
    weights = {
        name: tensor.detach().cpu()
        for name, tensor in model.state_dict().items()
        if not (config.tied_embeddings and name.startswith("head."))
    }
    known = {ours for ours, _ in _named_modules(config)}
    strange = [name for name in weights if name.rpartition(".")[0] not in known]
    if strange:
        raise ContractError(
            f"the network has a tensor {strange[0]}, which {target} has no place for; {EXPORT_HEADRACE}"
        )
    check_finite(weights, f"the network to export to {target}")
    return fold_multipliers(weights, config, Multipliers.of(config))


def _inexpressible(model: Transformer) -> Iterator[tuple[str, str]]:
    """What the network has that GPT-NeoX has not, and what helps."""
    config = model.config
    elsewhere = EXPORT_HEADRACE if obstacle(model) else "export it with --format onnx, or --format headrace"
    kinds = {kind.kind for kind in config.attention if not isinstance(kind, FullAttention)}
    if kinds:
        yield f"has {' and '.join(sorted(kinds))} attention", elsewhere
    if config.experts is not None:
        yield "has mixtures of experts", elsewhere
    if config.embedding_bands:
        yield "has an embedding in bands", elsewhere
    for name, description in replacements_of(model).items():
        kind = description["kind"]
        what = f"a linear layer with {description['outputs']} outputs" if kind == "linear" else kind
        yield f"has {what} as {name}", f"{elsewhere}, or the one before compression with --stage pretrain"


@dataclass(frozen=True)
class Multipliers:
    """Factors that a network trained with muP has in its forward pass and GPT-NeoX has not."""

    residual: float = 1.0
    """On what attention and feed-forward add to the residual stream."""
    logits: float = 1.0
    """On the hidden state between the final norm and the head."""
    scores: float = 1.0
    """On the attention scores, beside 1 / sqrt(head width)."""

    @classmethod
    def of(cls, config: TransformerConfig) -> "Multipliers":
        """Those of a network; all 1 in the standard parametrization."""
        scores = attention_scale(config) / (1 / math.sqrt(config.head_width))
        return cls(residual_multiplier(config), logit_multiplier(config), scores)


def fold_multipliers(weights: Mapping[str, Tensor], config: TransformerConfig, factors: Multipliers) -> Weights:
    """Weights of a network without the factors that predicts the same; exact up to rounding, bitwise for powers of two.

    The final norm takes the logits' factor, so that it works for a tied head too. Queries take that of the scores: a
    rotation keeps it.

    Args:
        weights: under our names; not changed.
        config: the network's.
        factors: what its forward pass multiplies by.
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
    """Every tensor's name of ours -> its name elsewhere.

    Args:
        config: of a network that GPT-NeoX can express.
        outer: module outside the layers -> its name elsewhere.
        inner: the same inside a layer.
        layer: prefix of a layer elsewhere, with {} for its number.
    """
    names = {}
    for ours, number in _named_modules(config):
        theirs = outer[ours] if number is None else layer.format(number) + inner[ours.split(".", 2)[2]]
        for kind in ("weight",) if ours in ("embedding", "head") else ("weight", "bias"):
            names[f"{ours}.{kind}"] = f"{theirs}.{kind}"
    return names


def _named_modules(config: TransformerConfig) -> Iterator[tuple[str, int | None]]:
    """Name of ours and number of the layer of every module with tensors, a tied head left out."""
    yield "embedding", None
    for number in range(config.layers):
        for module in _LAYER_MODULES:
            yield f"layers.{number}.{module}", number
    yield "final_norm", None
    if not config.tied_embeddings:
        yield "head", None
