"""Batch plan: micro-batches per worker and optimizer steps, from the batch size and the token budget in tokens.

- `BatchPlan`: the plan of a run for a number of workers
- `plan_batches`, `elastic_plans`: the plan for one number of workers, and for each number that the run may have
"""

import math
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from data_schemas.errors import ConfigError
from infra.precision import resolved_precision
from modeling.training.kinds import Precision
from stages.pretrain.config import PretrainConfig
from stages.pretrain.parallel.layout import WorkerLayout, worker_layout

MAX_CHOICES = 6
"""Numbers of workers that an error names."""


@dataclass(frozen=True)
class BatchSize:
    """Consecutive steps with batches of the same size."""

    steps: int
    rows: int


@dataclass(frozen=True)
class BatchPlan:
    """Numbers that follow from the config; only `layout` depends on the number of workers."""

    layout: WorkerLayout
    micro_batch: int
    """Rows per forward pass and worker."""
    sizes: tuple[BatchSize, ...]
    """Batch sizes of all steps in order: a single one, or a ramp of doublings and the full size after it."""
    context_length: int
    warmup_steps: int
    checkpoint_every_steps: int
    precision: Precision

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole run."""
        return sum(size.steps for size in self.sizes)

    @property
    def tokens(self) -> int:
        """Tokens that the whole run trains on."""
        return self.rows_before(self.steps + 1) * self.context_length

    @property
    def batch_tokens(self) -> int:
        """Tokens of a step after the ramp."""
        return self.sizes[-1].rows * self.context_length

    def rows_of(self, step: int) -> int:
        """Rows of the global batch of a step; steps are counted from 1."""
        return self.rows_before(step + 1) - self.rows_before(step)

    def rows_before(self, step: int) -> int:
        """Rows of all steps before this one."""
        steps, rows = step - 1, 0
        for size in self.sizes:
            rows += min(steps, size.steps) * size.rows
            steps = max(steps - size.steps, 0)
        return rows

    @property
    def accumulation(self) -> int:
        """Micro-batches per worker in a step after the ramp."""
        return self.sizes[-1].rows // self.layout.batch_ranks // self.micro_batch


def plan_batches(config: PretrainConfig, workers: int | None = None) -> BatchPlan:
    """Batch plan for all of the config's workers, or for fewer.

    Raises:
        ConfigError: if the layout does not divide the network or the workers, if a batch does not divide into
            micro-batches, or if it has fewer micro-batches than a pipeline needs; names the nearest values that do.
    """
    layout = worker_layout(config.layout, max(config.workers if workers is None else workers, 1), config.model)
    _check_divides(config, layout, "batch_tokens", config.batch_tokens)
    if config.first_batch_tokens:
        _check_divides(config, layout, "first_batch_tokens", config.first_batch_tokens)
    sizes = _batch_sizes(config)
    steps = sum(size.steps for size in sizes)
    plan = BatchPlan(
        layout=layout,
        micro_batch=config.micro_batch,
        sizes=sizes,
        context_length=config.model.context_length,
        warmup_steps=max(1, round(steps * config.warmup_share)),
        checkpoint_every_steps=config.checkpoint_every_steps,
        precision=resolved_precision(config.precision, config.computes_on),
    )
    _check_pipeline(config, plan)
    return plan


def elastic_plans(config: PretrainConfig) -> dict[int, BatchPlan]:
    """Batch plan for each number of workers that the run may have, the largest first.

    Numbers between `min_workers` and `workers` among which layout or batches do not divide are omitted: with room for
    one of them, training takes the next lower number.

    Raises:
        ConfigError: as `plan_batches`, for all workers; or if there is no plan for `min_workers`, with the numbers for
            which there are.
    """
    max_workers = max(config.workers, 1)
    min_workers = config.min_workers or max_workers
    if config.sample_every_steps and config.layout.model_workers * config.layout.shard * config.layout.expert > 1:
        raise ConfigError(
            f"pretrain.sample_every_steps is {config.sample_every_steps}, but with this pretrain.layout no worker has "
            "the whole network to sample from; use 0"
        )
    if min_workers > max_workers:
        raise ConfigError(
            f"pretrain.min_workers is {min_workers}, more than pretrain.workers {max_workers}; use 1 to {max_workers}"
        )
    plans = {max_workers: plan_batches(config)} | _smaller_plans(config, min_workers)
    if min_workers not in plans:
        *others, last = map(str, _nearest([*plans, *_smaller_plans(config, 1)], min_workers))
        raise ConfigError(
            f"pretrain.min_workers is {min_workers}, among which pretrain.layout, micro_batch and batch_tokens do not "
            f"divide; use {', '.join(others)}{' or ' if others else ''}{last}"
        )
    return plans


def _smaller_plans(config: PretrainConfig, min_workers: int) -> dict[int, BatchPlan]:
    """Plans for fewer workers than all."""
    plans, unit = {}, config.layout.model_workers * config.layout.shard
    for workers in range(max(config.workers, 1) - unit, max(min_workers, 1) - 1, -unit):
        with suppress(ConfigError):
            plans[workers] = plan_batches(config, workers)
    return plans


def _nearest(counts: Iterable[int], wanted: int) -> list[int]:
    """Up to `MAX_CHOICES` of the numbers, those nearest to `wanted`, in ascending order."""
    return sorted(sorted(set(counts), key=lambda count: (abs(count - wanted), count))[:MAX_CHOICES])


def _batch_sizes(config: PretrainConfig) -> tuple[BatchSize, ...]:
    """Batch sizes; each doubling of a ramp has the same number of tokens (GPT-3, 2005.14165, B, grows linearly)."""
    context, last = config.model.context_length, config.batch_tokens
    first = config.first_batch_tokens or last
    doublings = round(math.log2(last / first)) if first <= last else -1
    if first << max(doublings, 0) != last:
        choices = ", ".join(str(last >> power) for power in range(1, 5) if last % (context << power) == 0)
        raise ConfigError(
            f"pretrain.first_batch_tokens is {first}, which does not double up to batch_tokens {last}; "
            f"use {choices or 'a batch_tokens that halves into whole rows'}"
        )
    sizes, remaining = [], config.tokens
    for power in range(doublings):
        tokens = first << power
        steps = math.ceil(config.tokens * config.ramp_share / doublings / tokens)
        sizes.append(BatchSize(steps, tokens // context))
        remaining -= steps * tokens
    sizes.append(BatchSize(max(math.ceil(remaining / last), 1), last // context))
    return tuple(sizes)


def _check_divides(config: PretrainConfig, layout: WorkerLayout, field: str, tokens: int) -> None:
    unit = config.model.context_length * config.micro_batch * layout.batch_ranks
    if tokens % unit:
        below, above = tokens // unit * unit, -(-tokens // unit) * unit
        choices = " or ".join(str(size) for size in (below, above) if size)
        raise ConfigError(
            f"pretrain.{field} is {tokens}, not a multiple of context_length {config.model.context_length} x "
            f"micro_batch {config.micro_batch} x {layout.batch_ranks} workers with different rows = {unit} tokens; "
            f"use {choices}"
        )


def _check_pipeline(config: PretrainConfig, plan: BatchPlan) -> None:
    layout = config.layout
    if layout.pipeline == 1:
        return
    if len(plan.sizes) > 1:
        raise ConfigError(
            "pretrain.first_batch_tokens makes a ramp, but a pipeline needs the same number of micro-batches in each "
            "step; omit first_batch_tokens or set pretrain.layout.pipeline to 1"
        )
    unit = config.model.context_length * config.micro_batch * plan.layout.batch_ranks
    interleaved = layout.schedule == "interleaved"
    required = layout.pipeline if interleaved else layout.stages
    if plan.accumulation % required if interleaved else plan.accumulation < required:
        needed = "a multiple of" if interleaved else "at least"
        raise ConfigError(
            f"pretrain.batch_tokens {config.batch_tokens} gives each worker {plan.accumulation} micro-batches per "
            f"step; a {layout.schedule} pipeline of {layout.pipeline} needs {needed} {required}: use {needed} "
            f"{required * unit} tokens, or a smaller micro_batch"
        )
