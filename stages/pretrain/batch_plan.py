"""How a global batch in tokens becomes micro-batches on ranks, and how many steps the token budget gives."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from data_schemas.errors import ConfigError
from infra.hardware import has_fast_bf16

if TYPE_CHECKING:
    from stages.pretrain.stage import PretrainConfig


@dataclass(frozen=True)
class BatchPlan:
    """Numbers that follow from the config and the number of ranks."""

    ranks: int
    micro_batch: int
    """Rows per forward pass and rank."""
    batch_rows: int
    """Rows of the global batch."""
    batch_tokens: int
    steps: int
    warmup_steps: int
    checkpoint_every_steps: int
    precision: Literal["bf16", "fp32"]

    @property
    def rows_per_rank(self) -> int:
        """Rows of the global batch that one rank reads."""
        return self.batch_rows // self.ranks

    @property
    def accumulation(self) -> int:
        """Micro-batches per optimiser step and rank."""
        return self.rows_per_rank // self.micro_batch


def plan_batches(config: "PretrainConfig") -> BatchPlan:
    """Derive the plan.

    Raises:
        ConfigError: where the global batch does not divide, with the nearest sizes that do.
    """
    ranks = max(config.workers, 1)
    unit = config.model.context_length * config.micro_batch * ranks
    if config.batch_tokens % unit:
        below, above = config.batch_tokens // unit * unit, -(-config.batch_tokens // unit) * unit
        choices = " or ".join(str(size) for size in (below, above) if size)
        raise ConfigError(
            f"pretrain.batch_tokens is {config.batch_tokens}, which context_length {config.model.context_length} x "
            f"micro_batch {config.micro_batch} x workers {ranks} = {unit} tokens does not divide; use {choices}"
        )
    steps = math.ceil(config.tokens / config.batch_tokens)
    return BatchPlan(
        ranks=ranks,
        micro_batch=config.micro_batch,
        batch_rows=config.batch_tokens // config.model.context_length,
        batch_tokens=config.batch_tokens,
        steps=steps,
        warmup_steps=max(1, round(steps * config.warmup_share)),
        checkpoint_every_steps=config.checkpoint_every_steps,
        precision=config.precision if config.precision != "auto" else "bf16" if has_fast_bf16() else "fp32",
    )
