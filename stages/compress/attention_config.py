"""The passes that put cheaper attention in softmax attention's place; without torch, as a plan reads them."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from data_schemas.config import FrozenConfig
from stages.compress.recovery_config import Recovery


def _each_once(layers: tuple[int, ...] | None) -> tuple[int, ...] | None:
    if layers is not None and (not layers or len(set(layers)) < len(layers) or min(layers) < 0):
        raise ValueError(f"layers are {list(layers)}; list at least one, each once, counted from 0")
    return layers


Layers = Annotated[
    tuple[int, ...] | None,
    AfterValidator(_each_once),
]


class LinearAttentionPass(FrozenConfig):
    """Linear attention with feature maps fitted to the trained weights (Hedgehog, 2402.04347)."""

    kind: Literal["linear_attention"] = "linear_attention"
    layers: Layers = Field(
        None, description="layers that are converted, counted from 0; left out: all that see all tokens so far"
    )
    features: int | None = Field(
        None,
        gt=0,
        description="numbers that a query or key is mapped to, before plus and minus double them; left out: as many as "
        "a head has (2402.04347, section 4.1)",
    )
    transfer_steps: int = Field(200, ge=0, description="steps in which the feature maps learn the attention weights")
    transfer_rows: int = Field(8, gt=0, description="training windows in each of them")
    transfer_learning_rate: float = Field(1e-2, gt=0, description="AdamW's in them (2402.04347, appendix B)")
    recovery: Recovery = Field(Recovery(), description="training of the whole network afterwards")


class LshAttentionPass(FrozenConfig):
    """Attention to what a hash puts near (Reformer, 2001.04451), for long contexts."""

    kind: Literal["lsh_attention"] = "lsh_attention"
    layers: Layers = Field(
        None, description="layers that are converted, counted from 0; left out: all that see all tokens so far"
    )
    rounds: int = Field(2, ge=1, description="of hashing; more miss less and take longer (2001.04451, table 2)")
    bucket_size: int = Field(
        32, gt=0, description="tokens per bucket on average; a chunk has twice as many (2001.04451, section 2)"
    )
    calibration_rows: int = Field(8, gt=0, description="training windows that the keys' norms are set on")
    recovery: Recovery = Field(Recovery(), description="training of the whole network afterwards")
