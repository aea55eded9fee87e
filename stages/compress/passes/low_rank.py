"""Low-rank factors of the decoder's matrices (SVD-LLM), trained after the cut."""

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from data_schemas.config import FrozenConfig
from stages.compress.recovery_config import Recovery

if TYPE_CHECKING:
    from modeling.transformer import Transformer
    from stages.compress.pass_context import PassContext


class LowRankPass(FrozenConfig):
    """Low-rank factors of the decoder's matrices, ranks by one budget for all (SVD-LLM, 2403.07378)."""

    kind: Literal["low_rank"] = "low_rank"
    times_smaller: float = Field(
        5.0,
        gt=1,
        description="parameters of the decoder layers' matrices before, divided by those after; embedding and head "
        "stay as they are",
    )
    whitened: bool = Field(
        True, description="factors that are best on sample text (2403.07378, section 3.1), or those of the plain SVD"
    )
    calibration_rows: int = Field(
        256, gt=0, description="training windows that inputs are measured on (2403.07378, section 4); only if whitened"
    )
    recovery: Recovery = Field(Recovery(), description="training of the factors")

    def apply(self, model: "Transformer", context: "PassContext") -> "Transformer":
        """The network with low-rank layers for the matrices that they make smaller.

        Raises:
            ConfigError: if the network has integers, is pruned or cannot get so small.
        """
        from modeling.compression.low_rank import factorize
        from stages.compress.recovery import recover, recovery_loss

        calibration = context.calibration(model.config.context_length, self.calibration_rows) if self.whitened else None
        smaller = factorize(model.eval(), self.times_smaller, calibration, self.whitened)
        recover(smaller, self.recovery, context, recovery_loss(self.recovery, context))
        return smaller
