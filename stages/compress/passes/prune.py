"""Pruning: weights set to zero round by round, with recovery training after each round."""

import re
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from data_schemas.config import FrozenConfig
from stages.compress.recovery_config import Recovery

if TYPE_CHECKING:
    from modeling.compression.sparsity import Sparsity
    from modeling.transformer import Transformer
    from stages.compress.pass_context import PassContext

UNSTRUCTURED = "unstructured"


class PrunePass(FrozenConfig):
    """Iterative pruning with recovery training between rounds (Han et al. 2015, 1506.02626)."""

    kind: Literal["prune"] = "prune"
    sparsity: float = Field(
        0.5,
        gt=0,
        lt=1,
        description="share of the decoder's linear weights that end as zeros; an N:M pattern implies it",
    )
    rounds: int = Field(3, ge=1, description="prune and recover this many times, on a cubic schedule (1710.01878)")
    pattern: str = Field(
        UNSTRUCTURED,
        description="unstructured, or N:M such as 2:4: of each M consecutive inputs of an output N weights stay "
        "(Mishra et al. 2021, 2104.08378)",
    )
    criterion: Literal["magnitude", "wanda", "sparsegpt"] = Field(
        "sparsegpt",
        description="weights that are set to zero: the smallest; the smallest times the norm of their input "
        "(2306.11695); those that cost least after the others compensate for them (2301.00774)",
    )
    calibration_rows: int = Field(
        128, gt=0, description="training windows that inputs are measured on (2301.00774, section 4); not for magnitude"
    )
    recovery: Recovery = Field(Recovery(), description="training over all rounds together; each has an equal share")

    @model_validator(mode="before")
    @classmethod
    def _sparsity_of_pattern(cls, fields: Any) -> Any:
        """Fill in the sparsity that an N:M pattern implies."""
        groups = _groups(fields.get("pattern")) if isinstance(fields, dict) else None
        if groups is None or "sparsity" in fields or not 0 < groups[0] < groups[1]:
            return fields
        return {**fields, "sparsity": 1 - groups[0] / groups[1]}

    @model_validator(mode="after")
    def _pattern_is_valid(self) -> "PrunePass":
        if self.pattern == UNSTRUCTURED:
            return self
        groups = self.groups
        if groups is None or not 0 < groups[0] < groups[1]:
            raise ValueError(
                f"pattern is {self.pattern!r}; accepted are {UNSTRUCTURED!r} and N:M with N of M weights kept, "
                "N from 1 to M - 1, such as '2:4'"
            )
        if abs(self.sparsity - (1 - groups[0] / groups[1])) > 1e-6:
            raise ValueError(
                f"sparsity is {self.sparsity:g}, but the pattern {self.pattern} sets {1 - groups[0] / groups[1]:g} of "
                "the weights to zero; omit sparsity"
            )
        return self

    @property
    def groups(self) -> tuple[int, int] | None:
        """(N, M) of an N:M pattern."""
        return _groups(self.pattern)

    def apply(self, model: "Transformer", context: "PassContext") -> "Transformer":
        """Prune `model` in place; zeros stay zeros through recovery and later rounds.

        Raises:
            ConfigError: if the network has integers, or an N:M pattern does not divide a matrix's inputs.
        """
        from modeling.compression.pruning import apply_masks, prune
        from modeling.replacements import check_float
        from stages.compress.recovery import recover, recovery_loss

        check_float(model, self.kind)
        model.eval()
        length = model.config.context_length
        calibration = None if self.criterion == "magnitude" else context.calibration(length, self.calibration_rows)
        recovery = self.recovery.model_copy(update={"tokens": self.recovery.tokens // self.rounds})
        loss_of = recovery_loss(recovery, context)
        for number in range(1, self.rounds + 1):
            context.listener.advanced("prune", number - 1, self.rounds, f"round {number} of {self.rounds}")
            masks = prune(model, self.sparsity_of_round(number), self.criterion, calibration)
            recover(
                model,
                recovery,
                context,
                loss_of,
                after_step=partial(apply_masks, masks=masks),
                # By windows, not by steps: windows of a round that fill no step are skipped.
                first_row=(number - 1) * (recovery.tokens // length),
                name=f"recovery-{number}.pt",
            )
        return model

    def sparsity_of_round(self, number: int) -> "Sparsity":
        """Sparsity after round `number`, counted from 1; groups lose a whole number of weights."""
        from modeling.compression.pruning import cubic_sparsity
        from modeling.compression.sparsity import GroupSparsity

        if self.groups is None:
            return cubic_sparsity(number, self.rounds, self.sparsity)
        kept, group = self.groups
        return GroupSparsity(group - round(cubic_sparsity(number, self.rounds, group - kept)), group)


def _groups(pattern: Any) -> tuple[int, int] | None:
    match = re.fullmatch(r"(\d+):(\d+)", pattern) if isinstance(pattern, str) else None
    return (int(match[1]), int(match[2])) if match else None
