"""The training recipes that `benchmarks.quality_vs_time` compares: ours, nanoGPT's and nanochat's.

Each is a network of the same layers, width, heads and context, and a training step that follows the share of the time,
or of the tokens, that has passed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from benchmarks.common import nanochat, nanogpt
from benchmarks.common.nanochat import Nanochat, NanochatOptimizer, NanochatSettings
from benchmarks.common.nanogpt import NanoGPT, NanoShape
from infra.hardware import has_fast_bf16
from infra.precision import resolved_precision
from infra.store.artifacts import Artifact
from modeling.loss.cross_entropy import next_token_loss
from modeling.training.optimizer import build_optimizer
from modeling.training.schedule import ScheduleKind, learning_rate_at
from modeling.training.step import training_step
from modeling.transformer import Transformer
from stages.pretrain.config import PretrainConfig
from stages.pretrain.stage import model_config_for

RecipeName = Literal["nanogpt", "nanochat", "headrace"]
PEERS: tuple[RecipeName, ...] = ("nanogpt", "nanochat")
SCHEDULE_STEPS = 1_000_000
"""Length of the learning-rate schedules, which follow the share of time elapsed."""


@dataclass(frozen=True)
class NanogptSettings:
    """nanoGPT's recipe for small networks, with what is tuned for the short runs here."""

    rows: int = 8
    rate: float = 3e-3
    warmup_share: float = 0.5


@dataclass(frozen=True)
class Recipe:
    """A network and its training step, as the timed loop uses them."""

    step: Callable[[list[Tensor], float], None]
    """Takes micro-batches and the share of time elapsed."""
    loss: Callable[[Tensor], float]
    rows: int
    micro_batch: int
    context_length: int


Settings = TypeVar("Settings", NanogptSettings, NanochatSettings)


def with_overrides(settings: Settings, overrides: Sequence[str]) -> Settings:
    """Settings changed by NAME=VALUE.

    Raises:
        ValueError: if there is no such setting, or the value is not of its type.
    """
    changes: dict[str, Any] = {}
    for override in overrides:
        name, _, value = override.partition("=")
        current = getattr(settings, name, None)
        if current is None:
            raise ValueError(f"{override!r}: accepted are {', '.join(f'{field}=' for field in vars(settings))}")
        changes[name] = value == "true" if isinstance(current, bool) else type(current)(value)
    return replace(settings, **changes)


def headrace_recipe(config: PretrainConfig, tokens: Artifact) -> Recipe:
    """Headrace's recipe by a run config."""
    model = Transformer(model_config_for(config, tokens)).train()
    precision = resolved_precision(config.precision, "processor")
    betas = (config.beta1, config.beta2)
    peak, floor = config.peak_learning_rate, config.peak_learning_rate * config.floor_share
    optimizer = build_optimizer(
        model,
        config.optimizer,
        peak,
        betas,
        config.weight_decay,
        config.momentum,
        precision,
        embedding_rate=config.embedding_rate,
    )

    def step(batches: list[Tensor], progress: float) -> None:
        rate = rate_at(progress, config.schedule, peak, floor, config.warmup_share)
        training_step(model, optimizer, batches, rate, config.clip_norm, precision, config.z_loss)

    def loss(rows: Tensor) -> float:
        return float(next_token_loss(model.eval(), rows, 0.0).cross_entropy)

    rows = config.batch_tokens // config.model.context_length
    return Recipe(step, loss, rows, min(rows, 2 * config.micro_batch), config.model.context_length)


def nanogpt_recipe(config: PretrainConfig, tokens: Artifact, settings: NanogptSettings) -> Recipe:
    """nanoGPT's recipe for a network of the config's shape."""
    shape = _shape(config, tokens)
    model = NanoGPT(shape)
    optimizer = nanogpt.build_optimizer(model)
    for group in optimizer.param_groups:
        group["betas"] = (0.9, 0.99)

    def step(batches: list[Tensor], progress: float) -> None:
        rate = rate_at(progress, "cosine", settings.rate, 0.1 * settings.rate, settings.warmup_share)
        for group in optimizer.param_groups:
            group["lr"] = rate
        nanogpt.train_step(model, optimizer, batches[0])

    def loss(rows: Tensor) -> float:
        return float(model(rows[:, :-1], rows[:, 1:]))

    return Recipe(step, loss, settings.rows, settings.rows, shape.context_length)


def nanochat_recipe(config: PretrainConfig, tokens: Artifact, settings: NanochatSettings) -> Recipe:
    """nanochat's recipe for a network of the config's shape."""
    shape = _shape(config, tokens)
    is_short = has_fast_bf16() if settings.dtype == "auto" else settings.dtype == "bf16"
    dtype = torch.bfloat16 if is_short else torch.float32
    model = Nanochat(shape, dtype)
    forward: Callable[[Tensor, Tensor], Tensor] = model
    if settings.compile:  # before the clock starts, without a step
        forward = torch.compile(model, dynamic=False)
        row = torch.zeros(settings.rows, shape.context_length + 1, dtype=torch.int64)
        forward(row[:, :-1], row[:, 1:]).backward()  # type: ignore[no-untyped-call]
        model.zero_grad(set_to_none=True)
    optimizer = NanochatOptimizer(model, settings, settings.rows * shape.context_length, dtype)

    def step(batches: list[Tensor], progress: float) -> None:
        nanochat.train_step(model, forward, optimizer, batches[0], progress)

    def loss(rows: Tensor) -> float:
        return float(model(rows[:, :-1], rows[:, 1:]))

    return Recipe(step, loss, settings.rows, settings.rows, shape.context_length)


def rate_at(progress: float, schedule: ScheduleKind, peak: float, floor: float, warmup_share: float) -> float:
    """Learning rate at a share of the time, of which `warmup_share` is warm-up."""
    step, warmup_steps = max(1, round(progress * SCHEDULE_STEPS)), round(warmup_share * SCHEDULE_STEPS)
    return learning_rate_at(step, schedule, peak, floor, warmup_steps, total_steps=SCHEDULE_STEPS)


def _shape(config: PretrainConfig, tokens: Artifact) -> NanoShape:
    shape, vocabulary = config.model, model_config_for(config, tokens).vocabulary_size
    return NanoShape(shape.layers, shape.width, shape.heads, shape.context_length, vocabulary)
