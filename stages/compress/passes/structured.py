"""Structured pruning: whole layers, heads and neurons are removed and the remaining network is trained."""

from functools import partial
from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from data_schemas.config import FrozenConfig
from stages.compress.recovery_config import Recovery

if TYPE_CHECKING:
    from modeling.transformer import Transformer
    from stages.compress.pass_context import PassContext


class StructuredPass(FrozenConfig):
    """Layers, heads and neurons removed by their importance on sample text (Minitron, 2407.14679, section 2)."""

    kind: Literal["structured"] = "structured"
    layers_share: float = Field(
        1.0,
        gt=0,
        le=1,
        description="share of the layers that stay, at least one (block influence, 2403.03853)",
    )
    heads_share: float = Field(1.0, gt=0, le=1, description="share of each layer's heads that stay, at least one")
    neurons_share: float = Field(
        0.5,
        gt=0,
        le=1,
        description="share of the neurons that stay in each feed-forward, or in each expert's; at least two",
    )
    calibration_rows: int = Field(
        256, gt=0, description="training windows that activations are measured on (2407.14679 has 1,024, section 2)"
    )
    recovery: Recovery = Field(Recovery(), description="training of the remaining network")

    @model_validator(mode="after")
    def _something_is_removed(self) -> "StructuredPass":
        if self.layers_share == self.heads_share == self.neurons_share == 1:
            raise ValueError(
                "layers_share, heads_share and neurons_share are all 1, so nothing would be removed; "
                "set one of them below 1, or omit the pass"
            )
        return self

    def apply(self, model: "Transformer", context: "PassContext") -> "Transformer":
        """The smaller network; zeros of an earlier pass stay zeros.

        Raises:
            ConfigError: if the network has integers, or layers with and without experts do not come in whole periods.
        """
        from modeling.compression.pruning import apply_masks, zero_masks
        from modeling.compression.structured_pruning import remove_heads_and_neurons, remove_layers
        from modeling.replacements import check_float
        from stages.compress.recovery import recover, recovery_loss

        check_float(model, self.kind)
        smaller = model.eval()
        calibration = context.calibration(model.config.context_length, self.calibration_rows)
        if self.layers_share < 1:
            smaller = remove_layers(smaller, self.layers_share, calibration)
        if min(self.heads_share, self.neurons_share) < 1:
            smaller = remove_heads_and_neurons(smaller, self.heads_share, self.neurons_share, calibration)
        keep_zeros = partial(apply_masks, masks=zero_masks(smaller))
        recover(smaller, self.recovery, context, recovery_loss(self.recovery, context), keep_zeros)
        return smaller
