"""Distillation: a smaller student is cut from the network, and the teacher's predictions train it."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, model_validator

from data_schemas.config import FrozenConfig
from data_schemas.errors import ConfigError
from stages.compress.recovery_config import Recovery

if TYPE_CHECKING:
    from modeling.distillation.layer_matching import Matching
    from modeling.distillation.student_plan import StudentPlan
    from modeling.training.gradients import LossFunction
    from modeling.transformer import Transformer
    from modeling.transformer_config import TransformerConfig
    from stages.compress.pass_context import PassContext
    from stages.compress.teacher_logits import StoredLogits

MAX_ZEROS = 0.05
"""Share of zeros in the matrices above which a network counts as pruned."""


class DistillPass(FrozenConfig):
    """A smaller network cut from the current one and trained on the pretrained one's predictions."""

    renamed_fields: ClassVar[Mapping[str, str]] = {"initialise": "initialize"}

    kind: Literal["distill"] = "distill"
    layers: int | None = Field(None, gt=0, description="decoder layers of the student; by default as many as now")
    width: int | None = Field(
        None, gt=0, description="width of the student's residual stream; by default the current width"
    )
    heads: int | None = Field(
        None, gt=0, description="attention heads; by default as many as keep the width of a head, if any number does"
    )
    feed_forward_width: int | None = Field(
        None, gt=1, description="neurons of the student's feed-forward; by default in the same ratio to the width"
    )
    initialize: Literal["teacher", "random"] = Field(
        "teacher", description="weights cut from the current network, or random ones (a control for the cut)"
    )
    stream: Literal["pca", "importance"] = Field(
        "pca",
        description="the student's residual stream: principal components of the teacher's (SliceGPT, 2401.15024), or "
        "its channels of the largest mean magnitude (Minitron, 2407.14679)",
    )
    layer_choice: Literal["even", "influence"] = Field(
        "even",
        description="layers that stay: evenly spread with the first and the last, or those that change the stream most "
        "(ShortGPT, 2403.03853)",
    )
    calibration_rows: int = Field(
        64, gt=0, description="windows of training text that importance is measured on (Minitron has 1024)"
    )
    loss: Literal["distillation", "text"] = Field(
        "distillation", description="loss that is minimized; text alone is a control for the teacher"
    )
    divergence: Literal["forward", "reverse", "mixed"] = Field(
        "forward",
        description="forward: KL(teacher | student) (1503.02531); reverse: KL(student | teacher) (MiniLLM, "
        "2306.08543); mixed: the mean of both",
    )
    hidden_weight: float = Field(
        0.0,
        ge=0,
        description="weight of the mean squared error between the student's residual stream and the teacher's after "
        "the cut, divided by the teacher's mean square (TinyBERT, 1909.10351)",
    )
    relation_weight: float = Field(
        0.0,
        ge=0,
        description="weight of the divergence between the last layers' relations among queries, keys and values "
        "(MiniLMv2, 2012.15828)",
    )
    logits: Literal["streamed", "stored"] = Field(
        "streamed",
        description="the teacher runs beside the student, or once beforehand and its top-k predictions are stored; "
        "storing pays if a recovery is likely to be killed and started again",
    )
    top_k: int = Field(
        64, gt=0, description="stored predictions per token; all others are kept as one sum (compare 2503.16870)"
    )
    recovery: Recovery = Field(Recovery(tokens=2_000_000, learning_rate=1e-3), description="the student's training")

    @model_validator(mode="after")
    def _fields_agree(self) -> "DistillPass":
        sizes = (self.layers, self.width, self.heads, self.feed_forward_width)
        matched = [name for name in ("hidden_weight", "relation_weight") if getattr(self, name)]
        if all(size is None for size in sizes):
            raise ValueError(
                "a student needs at least one of layers, width, heads and feed_forward_width; omitted ones stay as "
                "they are, or follow from the others"
            )
        if matched and (self.loss == "text" or self.logits == "stored"):
            reason = "loss is 'text'" if self.loss == "text" else "logits is 'stored'"
            raise ValueError(
                f"{' and '.join(matched)} need the teacher beside the student, but {reason}; use loss 'distillation' "
                "and logits 'streamed', or leave the weight at 0"
            )
        if self.loss == "distillation" and not self.recovery.distill:
            raise ValueError(
                "recovery.distill is false, but loss is 'distillation'; set loss to 'text' to train on the text alone"
            )
        return self

    def apply(self, model: "Transformer", context: "PassContext") -> "Transformer":
        """A trained student of `model`, which must be a float network without replaced modules and is not changed.

        Raises:
            ConfigError: if the student is larger than the model or cannot be cut from it, or an earlier pass has
                pruned the model or replaced its modules.
        """
        from modeling.distillation.student import cut
        from modeling.distillation.student_config import student_config
        from modeling.distillation.student_plan import plan_student
        from stages.compress.recovery import recover

        _check_not_pruned(model)
        config = student_config(model.config, self.layers, self.width, self.heads, self.feed_forward_width)
        calibration = context.calibration(model.config.context_length, self.calibration_rows)
        plan = plan_student(model, config, calibration, self.stream, self.layer_choice)
        student = cut(model, plan) if self.initialize == "teacher" else _random_network(config, context.seed)
        if self.recovery.tokens:
            # Hidden states are compared relative to the teacher's mean square over a micro-batch.
            rows_apart = not self.hidden_weight
            loss_of = self._loss(model.config, plan, context)
            recover(student, self.recovery, context, loss_of, rows_apart=rows_apart)
        return student

    def _loss(self, config: "TransformerConfig", plan: "StudentPlan", context: "PassContext") -> "LossFunction":
        from modeling.distillation.loss import Comparison, distillation_loss, loss_from
        from modeling.loss.cross_entropy import next_token_loss

        if self.loss == "text":
            return next_token_loss
        teacher, recovery = context.teacher(), self.recovery
        if self.logits == "stored":
            comparison = Comparison(recovery.teacher_weight, recovery.temperature, self.divergence)
            return loss_from(self._store_logits(teacher, plan.config.context_length, context), comparison)
        matching = self._matching(teacher, config, plan) if self.hidden_weight or self.relation_weight else None
        return distillation_loss(teacher, recovery.teacher_weight, recovery.temperature, self.divergence, matching)

    def _matching(self, teacher: "Transformer", config: "TransformerConfig", plan: "StudentPlan") -> "Matching":
        from modeling.distillation.layer_matching import Matching

        if teacher.config != config:
            raise ConfigError(
                "hidden_weight and relation_weight compare the student with the network that it was cut from, but an "
                "earlier pass has made that a network other than the teacher; leave them at 0, or make this the first "
                "pass"
            )
        # The output of a student's layer is the input of what was cut from the next layer that stays, and so is the
        # output of the teacher's layer before that one.
        layers = (*(layer - 1 for layer in plan.layers[1:]), config.layers - 1)
        matching = Matching(teacher, layers, plan.stream.matrix.float(), self.hidden_weight, self.relation_weight)
        matching.check(plan.config)
        return matching

    def _store_logits(self, teacher: "Transformer", length: int, context: "PassContext") -> "StoredLogits":
        from stages.compress.teacher_logits import LogitSettings, StoredLogits, store_logits

        sampler, rows = context.sampler(length), self.recovery.plan(length).all_rows
        settings = LogitSettings.of(teacher, self.top_k, self.recovery.temperature, length)
        store_logits(teacher, sampler, rows, settings, context.work, context.listener)
        return StoredLogits(context.work, sampler, rows, settings)


def _check_not_pruned(model: "Transformer") -> None:
    from modeling.compression.pruning import linear_weights

    weights = linear_weights(model).values()
    count = sum(weight.numel() for weight in weights)
    zeros = sum(int((weight == 0).sum()) for weight in weights) / max(1, count)
    if zeros > MAX_ZEROS:
        raise ConfigError(
            f"{zeros:.0%} of the network's weights are zeros from an earlier pass, and training a student would fill "
            "them again; put 'distill' before the pass that prunes"
        )


def _random_network(config: "TransformerConfig", seed: int) -> "Transformer":
    import torch

    from modeling.transformer import Transformer

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Transformer(config)
