"""How workers share the network and each batch. Imports no torch.

- `ParallelLayout`: the factors that a run config chooses
- `WorkerLayout`: what follows from them for a number of workers
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from data_schemas.config import FrozenConfig
from data_schemas.errors import ConfigError
from modeling.transformer_config import TransformerShape


class ParallelLayout(FrozenConfig):
    """Factors of the number of workers; what they leave over are replicas, each with a part of every batch."""

    shard: int = Field(
        1, gt=0, description="workers that share out parameters, gradients and optimizer state (ZeRO-3, 1910.02054)"
    )
    tensor: int = Field(
        1, gt=0, description="workers that share each matrix and the vocabulary (Megatron-LM, 1909.08053, 3)"
    )
    pipeline: int = Field(1, gt=0, description="workers that each hold a run of layers (GPipe, 1811.06965)")
    context: int = Field(1, gt=0, description="workers that share the tokens of each row")
    expert: int = Field(
        1, gt=0, description="workers, among those with different rows, that share out the experts (GShard, 2006.16668)"
    )
    schedule: Literal["gpipe", "1f1b", "interleaved"] = Field(
        "1f1b",
        description="order of a pipeline's micro-batches; interleaved: each worker holds several runs of layers "
        "(Narayanan et al. 2021, 2104.04473, 2.2)",
    )
    virtual_stages: int = Field(2, gt=1, description="runs of layers per worker of the interleaved schedule")

    @property
    def stages(self) -> int:
        """Runs of layers of the pipeline."""
        return self.pipeline * (self.virtual_stages if self.pipeline > 1 and self.schedule == "interleaved" else 1)

    @property
    def model_workers(self) -> int:
        """Workers that work on the same rows."""
        return self.tensor * self.pipeline * self.context


@dataclass(frozen=True)
class WorkerLayout:
    """A layout over a number of workers that it divides."""

    layout: ParallelLayout
    data: int
    """Replicas of the sharded network."""

    @property
    def batch_ranks(self) -> int:
        """Groups of workers with rows of their own."""
        return self.data * self.layout.shard

    @property
    def world_size(self) -> int:
        """All workers."""
        return self.batch_ranks * self.layout.model_workers


def worker_layout(layout: ParallelLayout, workers: int, model: TransformerShape) -> WorkerLayout:
    """Lay the network out over the workers.

    Raises:
        ConfigError: where a factor does not divide what it shares out, with the factors that do.
    """
    together = layout.model_workers * layout.shard
    if workers % together:
        named = " x ".join(f"{name} {value}" for name, value in _factors(layout) if value > 1)
        raise ConfigError(
            f"pretrain.workers is {workers}, which {named} = {together} does not divide; "
            f"use a multiple of {together}, or smaller factors in pretrain.layout"
        )
    places = WorkerLayout(layout, workers // together)
    for factor, value, what, size in _divisions(layout, places, model):
        if size % value:
            fitting = ", ".join(str(divisor) for divisor in range(1, size + 1) if size % divisor == 0)
            raise ConfigError(
                f"pretrain.layout.{factor} is {value}, which does not divide {what} {size}; use {fitting}"
            )
    _check_kinds(layout, model)
    return places


def _factors(layout: ParallelLayout) -> list[tuple[str, int]]:
    return [(name, getattr(layout, name)) for name in ("shard", "tensor", "pipeline", "context")]


def _divisions(
    layout: ParallelLayout, places: WorkerLayout, model: TransformerShape
) -> Iterator[tuple[str, int, str, int]]:
    """(factor, its value, what it shares out, how many there are)."""
    yield "tensor", layout.tensor, "pretrain.model.heads", model.heads
    yield "tensor", layout.tensor, "pretrain.model.feed_forward_width", model.feed_forward_width
    yield "context", layout.context, "pretrain.model.context_length", model.context_length
    name = "pipeline" if layout.stages == layout.pipeline else "pipeline x virtual_stages"
    yield name, layout.stages, "pretrain.model.layers", model.layers
    if model.experts is not None:
        yield "expert", layout.expert, "pretrain.model.experts.experts", model.experts.experts
    yield "expert", layout.expert, "the workers with rows of their own (data x shard),", places.batch_ranks


def _check_kinds(layout: ParallelLayout, model: TransformerShape) -> None:
    if layout.expert > 1 and model.experts is None:
        raise ConfigError(
            f"pretrain.layout.expert is {layout.expert}, but pretrain.model.experts is not set; use 1, or give the "
            "network experts"
        )
    if layout.tensor > 1 and model.embedding_bands:
        raise ConfigError(
            f"pretrain.layout.tensor is {layout.tensor}, which shares out a vocabulary of one width; with "
            "pretrain.model.embedding_bands use 1"
        )
    if layout.tensor > 1 and any(getattr(kind, "pooling", None) == "learnt" for kind in model.attention):
        raise ConfigError(
            f"pretrain.layout.tensor is {layout.tensor}, but learnt pooling looks at all heads together; "
            "use 1, or pooling: mean"
        )
    if layout.pipeline > 1 and model.embedding_bands and model.tied_embeddings:
        raise ConfigError(
            f"pretrain.layout.pipeline is {layout.pipeline}, whose ends share one table, not bands of them; "
            "use 1, or pretrain.model.tied_embeddings: false"
        )
