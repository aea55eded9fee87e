"""How a global batch in tokens becomes micro-batches on workers, and how many steps the token budget gives."""

import math
from dataclasses import dataclass

from data_schemas.errors import ConfigError
from infra.hardware import has_fast_bf16
from modeling.training.kinds import Precision
from stages.pretrain.config import PretrainConfig
from stages.pretrain.parallel.layout import WorkerLayout, worker_layout


@dataclass(frozen=True)
class BatchSize:
    """A stretch of steps with batches of one size."""

    steps: int
    rows: int


@dataclass(frozen=True)
class BatchPlan:
    """Numbers that follow from the config and the number of workers; all but `places` are the same for any number."""

    places: WorkerLayout
    micro_batch: int
    """Rows per forward pass and worker."""
    sizes: tuple[BatchSize, ...]
    """Of all steps in order: one, or a ramp of doublings and what follows it."""
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
        """Rows of the global batch of a step, counted from 1."""
        return self.rows_before(step + 1) - self.rows_before(step)

    def rows_before(self, step: int) -> int:
        """Rows of all steps before this one."""
        taken, rows = step - 1, 0
        for size in self.sizes:
            rows += min(taken, size.steps) * size.rows
            taken = max(taken - size.steps, 0)
        return rows

    @property
    def accumulation(self) -> int:
        """Micro-batches per worker of a step after the ramp."""
        return self.sizes[-1].rows // self.places.batch_ranks // self.micro_batch


def plan_batches(config: PretrainConfig, workers: int | None = None) -> BatchPlan:
    """Derive the plan, for all of the config's workers or for fewer.

    Raises:
        ConfigError: where the layout does not divide the network or the workers, where a batch does not divide, or
            where it has fewer micro-batches than a pipeline needs, with the nearest values that do.
    """
    places = worker_layout(config.layout, max(config.workers if workers is None else workers, 1), config.model)
    _check_divides(config, places, "batch_tokens", config.batch_tokens)
    if config.first_batch_tokens:
        _check_divides(config, places, "first_batch_tokens", config.first_batch_tokens)
    sizes = _batch_sizes(config)
    steps = sum(size.steps for size in sizes)
    plan = BatchPlan(
        places=places,
        micro_batch=config.micro_batch,
        sizes=sizes,
        context_length=config.model.context_length,
        warmup_steps=max(1, round(steps * config.warmup_share)),
        checkpoint_every_steps=config.checkpoint_every_steps,
        precision=config.precision if config.precision != "auto" else "bf16" if has_fast_bf16() else "fp32",
    )
    _check_pipeline(config, plan)
    return plan


def elastic_plans(config: PretrainConfig) -> dict[int, BatchPlan]:
    """The plan for each number of workers that the run may go on with.

    Raises:
        ConfigError: as `plan_batches`, for any of the numbers.
    """
    most = max(config.workers, 1)
    step = config.layout.model_workers * config.layout.shard
    fewest = config.min_workers or most
    if config.sample_every_steps and step * config.layout.expert > 1:
        raise ConfigError(
            f"pretrain.sample_every_steps is {config.sample_every_steps}, but with pretrain.layout no worker has the "
            "whole network to write with; use 0"
        )
    if fewest > most:
        raise ConfigError(f"pretrain.min_workers is {fewest}, more than pretrain.workers {most}; use 1 to {most}")
    return {workers: plan_batches(config, workers) for workers in range(most, fewest - 1, -step)}


def _batch_sizes(config: PretrainConfig) -> tuple[BatchSize, ...]:
    """A ramp gives each doubling the same number of tokens (GPT-3, 2005.14165, appendix B, grows linearly)."""
    context, last = config.model.context_length, config.batch_tokens
    first = config.first_batch_tokens or last
    doublings = round(math.log2(last / first)) if first <= last else -1
    if first << max(doublings, 0) != last:
        choices = ", ".join(str(last >> power) for power in range(1, 5) if last % (context << power) == 0)
        raise ConfigError(
            f"pretrain.first_batch_tokens is {first}, which does not double up to batch_tokens {last}; "
            f"use {choices or 'a batch_tokens that halves into whole rows'}"
        )
    sizes, left = [], config.tokens
    for power in range(doublings):
        tokens = first << power
        steps = math.ceil(config.tokens * config.ramp_share / doublings / tokens)
        sizes.append(BatchSize(steps, tokens // context))
        left -= steps * tokens
    sizes.append(BatchSize(max(math.ceil(left / last), 1), last // context))
    return tuple(sizes)


def _check_divides(config: PretrainConfig, places: WorkerLayout, field: str, given: int) -> None:
    unit = config.model.context_length * config.micro_batch * places.batch_ranks
    if given % unit:
        below, above = given // unit * unit, -(-given // unit) * unit
        choices = " or ".join(str(size) for size in (below, above) if size)
        raise ConfigError(
            f"pretrain.{field} is {given}, which context_length {config.model.context_length} x micro_batch "
            f"{config.micro_batch} x {places.batch_ranks} workers with rows of their own = {unit} tokens does not "
            f"divide; use {choices}"
        )


def _check_pipeline(config: PretrainConfig, plan: BatchPlan) -> None:
    layout = config.layout
    if layout.pipeline == 1:
        return
    if len(plan.sizes) > 1:
        raise ConfigError(
            "pretrain.first_batch_tokens makes a ramp, but a pipeline has the same number of micro-batches in each "
            "step; leave first_batch_tokens out or set pretrain.layout.pipeline to 1"
        )
    unit = config.model.context_length * config.micro_batch * plan.places.batch_ranks
    fewest = layout.pipeline if layout.schedule == "interleaved" else layout.stages
    wrong = plan.accumulation % fewest if layout.schedule == "interleaved" else plan.accumulation < fewest
    if wrong:
        needed = "a multiple of" if layout.schedule == "interleaved" else "at least"
        raise ConfigError(
            f"pretrain.batch_tokens {config.batch_tokens} gives each worker {plan.accumulation} micro-batches per "
            f"step; a {layout.schedule} pipeline of {layout.pipeline} needs {needed} {fewest}: use {needed} "
            f"{fewest * unit} tokens, or a smaller micro_batch"
        )
