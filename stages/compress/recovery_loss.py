"""What recovery training minimizes."""

from modeling.loss.cross_entropy import next_token_loss
from modeling.training.gradients import LossFunction
from stages.compress.pass_context import PassContext
from stages.compress.recovery_config import Recovery


def recovery_loss(recovery: Recovery, context: PassContext) -> LossFunction:
    """The text's loss, or the teacher's and the text's; the teacher is read only where it is needed."""
    if not recovery.distill or not recovery.tokens:
        return next_token_loss
    from modeling.distillation.loss import distillation_loss

    return distillation_loss(context.teacher(), recovery.teacher_weight, recovery.temperature)
