"""A network on this worker, whatever part of it that is: the one thing that the training loop knows of layouts."""

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


def _as_it_is(_: Transformer) -> None:
    """Prepare nothing."""


@dataclass(frozen=True)
class WorkerNetwork:
    """What this worker trains, and how its gradients meet those of the others."""

    module: nn.Module
    """The network, wrapped or cut; a list of its stages in a pipeline."""
    gradients: Gradients
    mesh: WorkerMesh | None = None
    """None where this process trains alone."""

    @classmethod
    def alone(
        cls, config: TransformerConfig, device: torch.device, prepare: Callable[[Transformer], None] = _as_it_is
    ) -> "WorkerNetwork":
        """The whole network, by torch's global generator."""
        model = Transformer(config).to(device).train()
        prepare(model)
        return cls(model, LocalGradients())

    @classmethod
    def build(
        cls,
        config: TransformerConfig,
        places: WorkerLayout,
        device: torch.device,
        micro_batch: int,
        accumulation: int,
        prepare: Callable[[Transformer], None] = _as_it_is,
    ) -> "WorkerNetwork":
        """This worker's part; every worker calls it, after `init_process_group`, with the same generator state.

        Args:
            config: of the whole network.
            places: the layout.
            device: of this worker.
            micro_batch: rows per forward pass.
            accumulation: micro-batches per step.
            prepare: does to each network that is here what must be done before it is shared out.
        """
        mesh = WorkerMesh.build(places, device.type)
        layout = places.layout
        if layout.pipeline == 1:
            model = _with_shared_load(Transformer(config), mesh).to(device).train()
            prepare(model)
            module = parallelize(model, mesh)
            return cls(module, WorkerGradients(mesh), mesh)
        # torch's pipelining brings its compiler along: a fifth of a worker's start, for those who have no pipeline.
        from stages.pretrain.parallel.pipeline import PipelineGradients, StageModule

        whole = torch.get_rng_state()
        stages = []
        for number in range(mesh.rows["pipeline"].get_local_rank(), layout.stages, layout.pipeline):
            torch.set_rng_state(whole)
            stage = StageModule(config).cut(number, layout.stages)
            _with_shared_load(stage, mesh).to(device).train()
            prepare(stage)
            parallelize(stage, mesh)
            stages.append(stage)
        return cls(nn.ModuleList(stages), PipelineGradients(mesh, stages, micro_batch, accumulation), mesh)

    @property
    def networks(self) -> Iterator[Transformer]:
        """The `Transformer`s that are here: one, or one for each stage."""
        return (module for module in self.module.modules() if isinstance(module, Transformer))

    @property
    def batch_rank(self) -> int:
        """Which share of each global batch is this worker's."""
        return self.mesh.batch_rank if self.mesh else 0

    def agree(self, value: float, wish: bool = False) -> tuple[float, bool]:
        """The mean of all workers' values, and whether any of them has the wish."""
        if self.mesh is None:
            return value, wish
        totals = torch.tensor([value, float(wish)], dtype=torch.float64, device=next(self.module.parameters()).device)
        distributed.all_reduce(totals)
        total, wishes = totals.tolist()
        return total / self.mesh.places.world_size, wishes > 0


def _with_shared_load(model: Transformer, mesh: WorkerMesh) -> Transformer:
    """Routers balance the load of all workers together: the balance loss is then that of the whole batch."""
    if mesh.batch_size > 1:
        for module in model.modules():
            if isinstance(module, Experts):
                module.router.share_load = partial(_summed, mesh=mesh)
    return model


def _summed(load: Tensor, mesh: WorkerMesh) -> Tensor:
    for dimension in ("data", "shard", "context"):
        if mesh.rows[dimension].size() > 1:
            distributed.all_reduce(load, group=mesh.rows[dimension].get_group())
    return load
