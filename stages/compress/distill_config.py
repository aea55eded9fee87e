"""The config of distillation to a smaller network. Imports no torch, as a plan reads it."""

from typing import Literal

from pydantic import Field, model_validator

from data_schemas.config import FrozenConfig
from stages.compress.recovery_config import Recovery


class DistillPass(FrozenConfig):
    """A smaller network cut from the one there is, taught by the pretrained one's predictions."""

    kind: Literal["distill"] = "distill"
    layers: int | None = Field(None, gt=0, description="decoder layers of the student; as many as now where left out")
    width: int | None = Field(
        None, gt=0, description="numbers per token in the student's residual stream; as now where left out"
    )
    heads: int | None = Field(
        None, gt=0, description="attention heads; where left out as many as keep the width of a head, if any do"
    )
    feed_forward_width: int | None = Field(
        None, gt=1, description="neurons of the student's feed-forward; where left out in the same ratio to the width"
    )
    initialize: Literal["teacher", "random"] = Field(
        "teacher", description="weights cut from the network there is, or fresh ones (to see what the cut is worth)"
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
        64, gt=0, description="windows of training text on which it is measured what stays (Minitron has 1024)"
    )
    loss: Literal["distillation", "text"] = Field(
        "distillation", description="what is minimized; text alone is there to see what the teacher is worth"
    )
    divergence: Literal["forward", "reverse", "mixed"] = Field(
        "forward",
        description="forward: KL(teacher | student) (1503.02531); reverse: KL(student | teacher) (MiniLLM, "
        "2306.08543); mixed: the mean of both",
    )
    hidden_weight: float = Field(
        0.0,
        ge=0,
        description="of the mean squared error between the student's residual stream and the teacher's as it was cut, "
        "over the teacher's mean square (TinyBERT, 1909.10351)",
    )
    relation_weight: float = Field(
        0.0, ge=0, description="of the last layer's relations among queries, keys, values (MiniLMv2, 2012.15828)"
    )
    logits: Literal["streamed", "stored"] = Field(
        "streamed",
        description="the teacher runs beside the student, or once before, and its likeliest predictions are stored; "
        "storing pays where a recovery is likely to be killed and begun again",
    )
    top_k: int = Field(
        64, gt=0, description="stored predictions per token; all others are kept as one sum (compare 2503.16870)"
    )
    recovery: Recovery = Field(Recovery(tokens=2_000_000, learning_rate=1e-3), description="the student's training")

    @model_validator(mode="after")
    def _makes_sense(self) -> "DistillPass":
        sizes = (self.layers, self.width, self.heads, self.feed_forward_width)
        matched = [name for name in ("hidden_weight", "relation_weight") if getattr(self, name)]
        if all(size is None for size in sizes):
            raise ValueError(
                "a student needs at least one of layers, width, heads and feed_forward_width; what is left out stays "
                "as it is, or follows from the others"
            )
        if matched and (self.loss == "text" or self.logits == "stored"):
            why = "loss is 'text'" if self.loss == "text" else "logits is 'stored'"
            raise ValueError(
                f"{' and '.join(matched)} need the teacher beside the student, but {why}; use loss 'distillation' and "
                "logits 'streamed', or leave the weight at 0"
            )
        if self.loss == "distillation" and not self.recovery.distill:
            raise ValueError(
                "recovery.distill is false, but loss is 'distillation'; set loss to 'text' to train on the text alone"
            )
        return self
