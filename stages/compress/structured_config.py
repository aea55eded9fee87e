"""The pass that removes layers, heads and neurons; without torch, as a plan reads it."""

from typing import Literal

from pydantic import Field, model_validator

from data_schemas.config import FrozenConfig
from stages.compress.recovery_config import Recovery


class StructuredPass(FrozenConfig):
    """Whole layers, heads and neurons removed by what they do on sample text (Minitron, 2407.14679, section 2)."""

    kind: Literal["structured"] = "structured"
    layers_share: float = Field(
        1.0,
        gt=0,
        le=1,
        description="share of the layers that stay, at least one (block influence, 2403.03853)",
    )
    heads_share: float = Field(1.0, gt=0, le=1, description="share of each layer's heads that stay, at least one")
    neurons_share: float = Field(
        0.5, gt=0, le=1, description="share of each feed-forward's neurons that stay, at least two; of each expert's"
    )
    calibration_rows: int = Field(
        256, gt=0, description="training windows that activations are measured on (2407.14679 has 1,024, section 2)"
    )
    recovery: Recovery = Field(Recovery(), description="training of what is left")

    @model_validator(mode="after")
    def _something_goes(self) -> "StructuredPass":
        if self.layers_share == self.heads_share == self.neurons_share == 1:
            raise ValueError(
                "layers_share, heads_share and neurons_share are all 1, so that nothing would be removed; "
                "set one of them below 1, or leave the pass out"
            )
        return self
