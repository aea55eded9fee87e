"""The pass that sets weights to zero; without torch, as a plan reads it."""

import re
from typing import Any, Literal

from pydantic import Field, model_validator

from data_schemas.config import FrozenConfig
from stages.compress.recovery_config import Recovery

UNSTRUCTURED = "unstructured"


class PrunePass(FrozenConfig):
    """Iterative pruning with recovery training between rounds (Han et al. 2015, 1506.02626)."""

    kind: Literal["prune"] = "prune"
    sparsity: float = Field(
        0.5,
        gt=0,
        lt=1,
        description="share of the decoder's linear weights that end as zeros; an N:M pattern says it by itself",
    )
    rounds: int = Field(3, ge=1, description="prune and recover this many times, on a cubic schedule (1710.01878)")
    pattern: str = Field(
        UNSTRUCTURED,
        description="unstructured, or N:M such as 2:4: of each M consecutive inputs of an output N weights stay "
        "(Mishra et al. 2021, 2104.08378)",
    )
    criterion: Literal["magnitude", "wanda", "sparsegpt"] = Field(
        "sparsegpt",
        description="which weights go: the smallest; the smallest times the norm of their input (2306.11695); those "
        "that cost least after the others have made up for them (2301.00774)",
    )
    calibration_rows: int = Field(
        128, gt=0, description="training windows that inputs are measured on (2301.00774, section 4); not for magnitude"
    )
    recovery: Recovery = Field(Recovery(), description="training over all rounds together; each has an equal share")

    @model_validator(mode="before")
    @classmethod
    def _sparsity_of_pattern(cls, fields: Any) -> Any:
        """An N:M pattern says the sparsity."""
        groups = _groups(fields.get("pattern")) if isinstance(fields, dict) else None
        if groups is None or "sparsity" in fields or not 0 < groups[0] < groups[1]:
            return fields
        return {**fields, "sparsity": 1 - groups[0] / groups[1]}

    @model_validator(mode="after")
    def _pattern_fits(self) -> "PrunePass":
        if self.pattern == UNSTRUCTURED:
            return self
        groups = self.groups
        if groups is None or not 0 < groups[0] < groups[1]:
            raise ValueError(
                f"pattern is {self.pattern!r}; it can be {UNSTRUCTURED!r}, or N:M with N of M weights kept, "
                "N from 1 to M - 1, such as '2:4'"
            )
        if abs(self.sparsity - (1 - groups[0] / groups[1])) > 1e-6:
            raise ValueError(
                f"sparsity is {self.sparsity:g}, but the pattern {self.pattern} makes {1 - groups[0] / groups[1]:g} of "
                "the weights zero; leave sparsity out"
            )
        return self

    @property
    def groups(self) -> tuple[int, int] | None:
        """(N, M) of an N:M pattern."""
        return _groups(self.pattern)


def _groups(pattern: Any) -> tuple[int, int] | None:
    match = re.fullmatch(r"(\d+):(\d+)", pattern) if isinstance(pattern, str) else None
    return (int(match[1]), int(match[2])) if match else None
