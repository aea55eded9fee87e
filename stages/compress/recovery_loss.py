"""What recovery training minimises."""

from modeling.gradients import LossFunction
from modeling.loss import next_token_loss
from stages.compress.pass_context import PassContext
from stages.compress.recovery_config import Recovery


def recovery_loss(recovery: Recovery, context: PassContext) -> LossFunction:
    """The text's loss, or the teacher's and the text's; the teacher is read only where it is needed."""
    if not recovery.distill or not recovery.tokens:
        return next_token_loss
    from modeling.distillation import distillation_loss

    return distillation_loss(context.teacher(), recovery.teacher_weight, recovery.temperature)
