"""Set weights to zero and train those that are left, round by round."""

from modeling.compression.pruning import apply_masks, cubic_sparsity, prune
from modeling.compression.sparsity import GroupSparsity, Sparsity
from modeling.replacements import check_float
from modeling.transformer import Transformer
from stages.compress.pass_context import PassContext
from stages.compress.prune_config import PrunePass
from stages.compress.recovery import recover
from stages.compress.recovery_loss import recovery_loss


def apply(one: PrunePass, model: Transformer, context: PassContext) -> Transformer:
    """Prune `model` in place; what is zero stays zero through recovery and later rounds.

    Raises:
        ConfigError: where the network has integers, or an N:M pattern does not divide a matrix's inputs.
    """
    check_float(model, one.kind)
    model.eval()
    length = model.config.context_length
    calibration = None if one.criterion == "magnitude" else context.calibration(length, one.calibration_rows)
    recovery = one.recovery.model_copy(update={"tokens": one.recovery.tokens // one.rounds})
    loss_of = recovery_loss(recovery, context)
    for number in range(1, one.rounds + 1):
        sparsity = sparsity_of_round(one, number)
        context.listener.advanced("prune", number - 1, one.rounds, f"round {number} of {one.rounds}")
        masks = prune(model, sparsity, one.criterion, calibration)
        recover(
            model,
            recovery,
            context,
            loss_of,
            after_step=lambda _, masks=masks: apply_masks(model, masks),  # type: ignore[misc]
            first_row=(number - 1) * (recovery.tokens // length),
            name=f"recovery-{number}.pt",
        )
    return model


def sparsity_of_round(one: PrunePass, number: int) -> Sparsity:
    """What is to be zero after round `number`, counted from 1; of groups a whole number of weights."""
    if one.groups is None:
        return cubic_sparsity(number, one.rounds, one.sparsity)
    kept, group = one.groups
    return GroupSparsity(group - round(cubic_sparsity(number, one.rounds, group - kept)), group)
