"""This worker's part of the network in any layout, as the training loop uses it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
import torch.distributed as distributed
from torch import Tensor, nn

from modeling.experts.layer import Experts
from modeling.training.gradients import Gradients, LocalGradients
from modeling.transformer import Transformer
from modeling.transformer_config import TransformerConfig
from stages.pretrain.parallel.layout import WorkerLayout
from stages.pretrain.parallel.mesh import WorkerMesh
from stages.pretrain.parallel.parallelize import parallelize
from stages.pretrain.parallel.worker_gradients import WorkerGradients


def _unchanged(_: Transformer) -> None:
    """Default of `prepare`."""


@dataclass(frozen=True)
class WorkerNetwork:
    """Parameters that this worker trains, with the reduction of their gradients over workers."""

    module: nn.Module
    """The network, parallelized; a ModuleList of this worker's stages in a pipeline."""
    gradients: Gradients
    mesh: WorkerMesh | None = None
    """None if this process trains alone."""

    @classmethod
    def alone(
        cls, config: TransformerConfig, device: torch.device, prepare: Callable[[Transformer], None] = _unchanged
    ) -> "WorkerNetwork":
        """The whole network on one process, initialized from torch's global generator."""
        model = Transformer(config).to(device).train()
        prepare(model)
        return cls(model, LocalGradients())

    @classmethod
    def build(
        cls,
        config: TransformerConfig,
        layout: WorkerLayout,
        device: torch.device,
        micro_batch: int,
        accumulation: int,
        prepare: Callable[[Transformer], None] = _unchanged,
    ) -> "WorkerNetwork":
        """This worker's part; called by every worker after `init_process_group`, with the same generator state.

        Args:
            config: config of the whole network.
            layout: layout of the workers.
            device: device of this worker.
            micro_batch: rows per forward pass.
            accumulation: micro-batches per step.
            prepare: called with each network or stage of this worker before it is parallelized.
        """
        mesh = WorkerMesh.build(layout, device.type)
        factors = layout.factors
        if factors.pipeline == 1:
            model = _sum_router_load(Transformer(config), mesh).to(device).train()
            prepare(model)
            module = parallelize(model, mesh)
            return cls(module, WorkerGradients(mesh), mesh)
        # torch's pipelining imports its compiler, a fifth of a worker's start-up time; only pipelines need it.
        from stages.pretrain.parallel.pipeline import PipelineGradients, StageModule

        initial = torch.get_rng_state()
        stages = []
        for index in range(mesh.grid["pipeline"].get_local_rank(), factors.stages, factors.pipeline):
            torch.set_rng_state(initial)
            stage = StageModule(config).cut(index, factors.stages)
            _sum_router_load(stage, mesh).to(device).train()
            prepare(stage)
            parallelize(stage, mesh)
            stages.append(stage)
        return cls(nn.ModuleList(stages), PipelineGradients(mesh, stages, micro_batch, accumulation), mesh)

    @property
    def networks(self) -> Iterator[Transformer]:
        """The `Transformer`s of this worker: a single one, or one for each pipeline stage."""
        return (module for module in self.module.modules() if isinstance(module, Transformer))

    @property
    def batch_rank(self) -> int:
        """Index of this worker's share of each global batch."""
        return self.mesh.batch_rank if self.mesh else 0

    def all_reduce(self, value: float, flag: bool = False) -> tuple[float, bool]:
        """Mean of all workers' values, and whether any of them has the flag set."""
        if self.mesh is None:
            return value, flag
        totals = torch.tensor([value, float(flag)], dtype=torch.float64, device=next(self.module.parameters()).device)
        distributed.all_reduce(totals)
        total, flags = totals.tolist()
        return total / self.mesh.layout.world_size, flags > 0


def _sum_router_load(model: Transformer, mesh: WorkerMesh) -> Transformer:
    """Sum the routers' load over all workers, so that the balance loss is that of the whole batch."""
    if mesh.batch_size > 1:
        for module in model.modules():
            if isinstance(module, Experts):
                module.router.share_load = partial(_sum_over_rows, mesh=mesh)
    return model


def _sum_over_rows(load: Tensor, mesh: WorkerMesh) -> Tensor:
    for dimension in ("data", "shard", "context"):
        if mesh.grid[dimension].size() > 1:
            distributed.all_reduce(load, group=mesh.grid[dimension].get_group())
    return load
