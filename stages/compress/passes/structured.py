"""Remove layers, then heads and neurons, and train what is left."""

from modeling.compression.pruning import apply_masks, zero_masks
from modeling.compression.structured_pruning import remove_heads_and_neurons, remove_layers
from modeling.replacements import check_float
from modeling.transformer import Transformer
from stages.compress.pass_context import PassContext
from stages.compress.recovery import recover
from stages.compress.recovery_loss import recovery_loss
from stages.compress.structured_config import StructuredPass


def apply(one: StructuredPass, model: Transformer, context: PassContext) -> Transformer:
    """The smaller network; what an earlier pass set to zero stays zero.

    Raises:
        ConfigError: where the network has integers, or layers with and without experts do not come in whole periods.
    """
    check_float(model, one.kind)
    smaller = model.eval()
    calibration = context.calibration(model.config.context_length, one.calibration_rows)
    if one.layers_share < 1:
        smaller = remove_layers(smaller, one.layers_share, calibration)
    if min(one.heads_share, one.neurons_share) < 1:
        smaller = remove_heads_and_neurons(smaller, one.heads_share, one.neurons_share, calibration)
    masks = zero_masks(smaller)
    recover(
        smaller,
        one.recovery,
        context,
        recovery_loss(one.recovery, context),
        after_step=lambda _: apply_masks(smaller, masks),
    )
    return smaller
