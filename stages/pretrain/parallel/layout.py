"""Layout of the workers: how they split the network and each batch. Imports no torch.

- `ParallelLayout`: the factors in the run config
- `WorkerLayout`, `worker_layout`: a layout for a number of workers
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from data_schemas.config import FrozenConfig
from data_schemas.errors import ConfigError
from modeling.transformer_config import TransformerShape


class ParallelLayout(FrozenConfig):
    """Factors of the number of workers; the remaining factor is data parallelism, a part of each batch per replica."""

    shard: int = Field(
        1, gt=0, description="workers that shard parameters, gradients and optimizer state (ZeRO-3, 1910.02054)"
    )
    tensor: int = Field(
        1, gt=0, description="workers that split each matrix and the vocabulary (Megatron-LM, 1909.08053, section 3)"
    )
    pipeline: int = Field(
        1, gt=0, description="pipeline stages: workers that each hold consecutive layers (GPipe, 1811.06965)"
    )
    context: int = Field(1, gt=0, description="workers that split the tokens of each row")
    expert: int = Field(1, gt=0, description="workers with different rows that split the experts (GShard, 2006.16668)")
    schedule: Literal["gpipe", "1f1b", "interleaved"] = Field(
        "1f1b",
        description="pipeline schedule, the order of its micro-batches; interleaved: each worker holds several virtual "
        "stages (Narayanan et al. 2021, 2104.04473, section 2.2)",
    )
    virtual_stages: int = Field(2, gt=1, description="virtual stages per worker in the interleaved schedule")

    @property
    def stages(self) -> int:
        """Stages of the pipeline, virtual stages included."""
        return self.pipeline * (self.virtual_stages if self.pipeline > 1 and self.schedule == "interleaved" else 1)

    @property
    def model_workers(self) -> int:
        """Workers that work on the same rows."""
        return self.tensor * self.pipeline * self.context


@dataclass(frozen=True)
class WorkerLayout:
    """A layout for a number of workers that its factors divide."""

    factors: ParallelLayout
    data: int
    """Data-parallel replicas of the sharded network."""

    @property
    def batch_ranks(self) -> int:
        """Groups of workers with different rows."""
        return self.data * self.factors.shard

    @property
    def world_size(self) -> int:
        """Number of workers."""
        return self.batch_ranks * self.factors.model_workers


def worker_layout(factors: ParallelLayout, workers: int, model: TransformerShape) -> WorkerLayout:
    """Layout of the network on a number of workers.

    Raises:
        ConfigError: if a factor does not divide what it splits; names the factors that do.
    """
    unit = factors.model_workers * factors.shard
    if workers % unit:
        values = {name: getattr(factors, name) for name in ("shard", "tensor", "pipeline", "context")}
        product = " x ".join(f"{name} {value}" for name, value in values.items() if value > 1)
        raise ConfigError(
            f"pretrain.workers is {workers}, not a multiple of {product} = {unit}; "
            f"use a multiple of {unit}, or smaller factors in pretrain.layout"
        )
    layout = WorkerLayout(factors, workers // unit)
    for name, factor, dimension, size in _divisions(layout, model):
        if size % factor:
            divisors = ", ".join(str(divisor) for divisor in range(1, size + 1) if size % divisor == 0)
            raise ConfigError(
                f"pretrain.layout.{name} is {factor}, which does not divide {dimension} {size}; use {divisors}"
            )
    _check_supported(factors, model)
    return layout


def _divisions(layout: WorkerLayout, model: TransformerShape) -> Iterator[tuple[str, int, str, int]]:
    """(name of a factor, its value, name of the dimension that it splits, size of the dimension)."""
    factors = layout.factors
    yield "tensor", factors.tensor, "pretrain.model.heads", model.heads
    yield "tensor", factors.tensor, "pretrain.model.feed_forward_width", model.feed_forward_width
    yield "context", factors.context, "pretrain.model.context_length", model.context_length
    name = "pipeline" if factors.stages == factors.pipeline else "pipeline x virtual_stages"
    yield name, factors.stages, "pretrain.model.layers", model.layers
    if model.experts is not None:
        yield "expert", factors.expert, "pretrain.model.experts.experts", model.experts.experts
    yield "expert", factors.expert, "the number of workers with different rows (data x shard),", layout.batch_ranks


def _check_supported(layout: ParallelLayout, model: TransformerShape) -> None:
    if layout.expert > 1 and model.experts is None:
        raise ConfigError(
            f"pretrain.layout.expert is {layout.expert}, but pretrain.model.experts is not set; use 1, or set "
            "pretrain.model.experts"
        )
    if layout.tensor > 1 and model.embedding_bands:
        raise ConfigError(
            f"pretrain.layout.tensor is {layout.tensor}, which cannot split a vocabulary with bands of several "
            "widths; with pretrain.model.embedding_bands use 1"
        )
    if layout.tensor > 1 and any(getattr(kind, "pooling", None) == "learnt" for kind in model.attention):
        raise ConfigError(
            f"pretrain.layout.tensor is {layout.tensor}, but learned pooling needs all heads together; "
            "use 1, or pooling: mean"
        )
    if layout.pipeline > 1 and model.embedding_bands and model.tied_embeddings:
        raise ConfigError(
            f"pretrain.layout.pipeline is {layout.pipeline}, whose first and last stage can tie one embedding "
            "table but not bands; use 1, or pretrain.model.tied_embeddings: false"
        )
