"""The pretraining loop in plain torch: it knows its rank and its callbacks, not Ray."""

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel

from infra.token_stream import WindowSampler
from modeling.optimizer import cosine_with_warmup
from modeling.router import load_statistics
from modeling.training_step import training_step
from modeling.transformer import Transformer
from stages.pretrain.batch_plan import BatchPlan
from stages.pretrain.stage import PretrainConfig


@dataclass(frozen=True)
class LogRow:
    """One row of the training log."""

    step: int
    tokens: int
    loss: float
    """Mean over the global batch and the steps since the last row, nats per token."""
    learning_rate: float
    gradient_norm: float
    seconds: float
    """Since this process began to train; timings stay out of the artifact's files."""
    experts: dict[str, Any] | None = None
    """How evenly rank 0 used its experts in the last micro-batch, by layer; None for networks without."""

    def as_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class Callbacks:
    """What the loop tells its surroundings; called on every rank."""

    log: Callable[[LogRow], None]
    checkpoint: Callable[[int], None]


def train(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    sampler: WindowSampler,
    config: PretrainConfig,
    plan: BatchPlan,
    rank: int,
    first_step: int,
    callbacks: Callbacks,
    mean_over_ranks: Callable[[float], float] = lambda value: value,
) -> None:
    """Train from `first_step` to the end.

    Args:
        model: the network, wrapped for data parallelism if there is more than one rank.
        optimizer: over the network's parameters.
        sampler: rows (context_length + 1) int64 by position.
        config: the schedule.
        plan: how a global batch is shared out.
        rank: which part of each global batch is this process's.
        first_step: steps already taken.
        callbacks: hear of log rows and of checkpoints that are due.
        mean_over_ranks: averages a number over all ranks.

    Raises:
        TrainingDivergedError: where the loss or the gradient is no longer finite.
    """
    begun = time.perf_counter()
    losses: list[float] = []
    for step in range(first_step + 1, plan.steps + 1):
        learning_rate = cosine_with_warmup(
            step,
            peak=config.peak_learning_rate,
            floor=config.peak_learning_rate * config.floor_share,
            warmup_steps=plan.warmup_steps,
            total_steps=plan.steps,
        )
        result = training_step(
            model,
            optimizer,
            list(micro_batches(sampler, plan, rank, step)),
            learning_rate,
            config.clip_norm,
            plan.precision,
            config.z_loss,
        )
        losses.append(result.loss)
        if step % config.log_every_steps == 0 or step == plan.steps:
            loss = mean_over_ranks(sum(losses) / len(losses))
            seconds = time.perf_counter() - begun
            tokens, experts = step * plan.batch_tokens, _expert_use(model)
            callbacks.log(LogRow(step, tokens, loss, learning_rate, result.gradient_norm, seconds, experts))
            losses.clear()
        if step % plan.checkpoint_every_steps == 0 or step == plan.steps:
            callbacks.checkpoint(step)


def _expert_use(model: torch.nn.Module) -> dict[str, Any] | None:
    network = model.module if isinstance(model, DistributedDataParallel) else model
    assert isinstance(network, Transformer)
    return load_statistics(network.routing_reports) if network.routing_reports else None


def micro_batches(sampler: WindowSampler, plan: BatchPlan, rank: int, step: int) -> Iterator[torch.Tensor]:
    """This rank's share of the global batch of a step: tensors (micro_batch, context_length + 1), int64.

    Global batches are the same rows for every number of ranks.
    """
    first = (step - 1) * plan.batch_rows + rank * plan.rows_per_rank
    for start in range(first, first + plan.rows_per_rank, plan.micro_batch):
        yield torch.from_numpy(sampler.rows(start, plan.micro_batch))
