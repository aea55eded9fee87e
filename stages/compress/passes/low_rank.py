"""Factorize the decoder's matrices and train the factors."""

from modeling.compression.low_rank import factorize
from modeling.transformer import Transformer
from stages.compress.low_rank_config import LowRankPass
from stages.compress.pass_context import PassContext
from stages.compress.recovery import recover
from stages.compress.recovery_loss import recovery_loss


def apply(one: LowRankPass, model: Transformer, context: PassContext) -> Transformer:
    """The network with low-rank layers where they are smaller.

    Raises:
        ConfigError: where the network has integers, is pruned or cannot get so small.
    """
    calibration = context.calibration(model.config.context_length, one.calibration_rows) if one.whitened else None
    smaller = factorize(model.eval(), one.times_smaller, calibration, one.whitened)
    recover(smaller, one.recovery, context, recovery_loss(one.recovery, context))
    return smaller
