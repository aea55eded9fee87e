"""Distillation to a smaller network: cut it, then let the teacher teach it."""

import torch

from data_schemas.errors import ConfigError
from modeling.compression.pruning import linear_weights
from modeling.distillation.layer_matching import Matching
from modeling.distillation.loss import Comparison, distillation_loss, loss_from
from modeling.distillation.student import cut
from modeling.distillation.student_config import student_config
from modeling.distillation.student_plan import StudentPlan, plan_student
from modeling.loss.cross_entropy import next_token_loss
from modeling.replacements import replacements_of
from modeling.training.gradients import LossFunction
from modeling.transformer import Transformer
from modeling.transformer_config import TransformerConfig
from stages.compress.distill_config import DistillPass
from stages.compress.pass_context import PassContext
from stages.compress.recovery import recover
from stages.compress.recovery_config import Recovery
from stages.compress.teacher_logits import LogitSettings, StoredLogits, store_logits

MOST_ZEROS = 0.05
"""Share of zeros in the matrices above which a network is taken to be pruned."""


def apply(one: DistillPass, model: Transformer, context: PassContext) -> Transformer:
    """A student of `model`, trained; a killed one goes on.

    Args:
        one: sizes, loss and training.
        model: a float network without replaced modules and not pruned. It stays as it is.
        context: data, teacher and the place for progress.

    Raises:
        ConfigError: where the student is larger than the model or cannot be cut from it, or an earlier pass has left
            what cannot be cut.
    """
    _check_order(model)
    config = student_config(model.config, one.layers, one.width, one.heads, one.feed_forward_width)
    calibration = context.calibration(model.config.context_length, one.calibration_rows)
    plan = plan_student(model, config, calibration, one.stream, one.layer_choice)
    student = cut(model, plan) if one.initialize == "teacher" else _fresh(config, context.seed)
    if one.recovery.tokens:
        # Hidden states are held against the teacher's mean square over a micro-batch.
        apart = not one.hidden_weight
        recover(student, one.recovery, context, _loss(one, model.config, plan, context), rows_apart=apart)
    return student


def _check_order(model: Transformer) -> None:
    for name, description in replacements_of(model).items():
        raise ConfigError(
            f"an earlier pass has made the network's {name} {description['kind']}, and a student is cut from a network "
            "as pretraining leaves it; the order that works is distill, low rank, pruning, int8"
        )
    weights = linear_weights(model).values()
    zeros = sum(int((weight == 0).sum()) for weight in weights) / sum(weight.numel() for weight in weights)
    if zeros > MOST_ZEROS:
        raise ConfigError(
            f"{zeros:.0%} of the network's weights are zeros by an earlier pass, which training a student would fill "
            "again; the order that works is distill, low rank, pruning, int8"
        )


def _fresh(config: TransformerConfig, seed: int) -> Transformer:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Transformer(config)


def _loss(one: DistillPass, config: TransformerConfig, plan: StudentPlan, context: PassContext) -> LossFunction:
    if one.loss == "text":
        return next_token_loss
    teacher, recovery = context.teacher(), one.recovery
    comparison = Comparison(recovery.teacher_weight, recovery.temperature, one.divergence)
    if one.logits == "stored":
        return loss_from(_stored(one, teacher, plan.config.context_length, context), comparison)
    matching = _matching(one, teacher, config, plan) if one.hidden_weight or one.relation_weight else None
    return distillation_loss(teacher, recovery.teacher_weight, recovery.temperature, one.divergence, matching)


def _matching(one: DistillPass, teacher: Transformer, config: TransformerConfig, plan: StudentPlan) -> Matching:
    if teacher.config != config:
        raise ConfigError(
            "hidden_weight and relation_weight compare the student with the network that it was cut from, but an "
            "earlier pass has made that another one than the teacher; leave them at 0, or make this the first pass"
        )
    # A layer of the student hands on to what was cut from the next one that stayed, and so does the layer before that.
    layers = (*(layer - 1 for layer in plan.layers[1:]), config.layers - 1)
    matching = Matching(teacher, layers, plan.stream.matrix.float(), one.hidden_weight, one.relation_weight)
    matching.check(plan.config)
    return matching


def _stored(one: DistillPass, teacher: Transformer, context_length: int, context: PassContext) -> StoredLogits:
    sampler, rows = context.sampler(context_length), _rows(one.recovery, context_length)
    settings = LogitSettings.of(teacher, one.top_k, one.recovery.temperature, context_length)
    store_logits(teacher, sampler, rows, settings, context.work, context.listener)
    return StoredLogits(context.work, sampler, rows, settings)


def _rows(recovery: Recovery, context_length: int) -> int:
    """Windows that `recover` takes."""
    per_step = max(1, recovery.batch_tokens // context_length)
    return recovery.tokens // (per_step * context_length) * per_step
