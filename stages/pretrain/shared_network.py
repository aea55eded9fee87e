"""A network on this worker, whatever part of it that is: the one thing that the training loop knows of layouts."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch
import torch.distributed as distributed
from torch import Tensor, nn

from modeling.experts import Experts
from modeling.gradients import Gradients, LocalGradients
from modeling.transformer import Transformer
from modeling.transformer_config import TransformerConfig
from stages.pretrain.layout import Places
from stages.pretrain.mesh import WorkerMesh
from stages.pretrain.parallelize import parallelize
from stages.pretrain.pipeline import PipelineGradients, StageModule
from stages.pretrain.shared_gradients import SharedGradients


@dataclass(frozen=True)
class SharedNetwork:
    """What this worker trains, and how its gradients meet those of the others."""

    module: nn.Module
    """The network, wrapped or cut; a list of its stages in a pipeline."""
    gradients: Gradients
    mesh: WorkerMesh | None = None
    """None where this process trains alone."""

    @classmethod
    def alone(cls, config: TransformerConfig, device: torch.device) -> "SharedNetwork":
        """The whole network, by torch's global generator."""
        return cls(Transformer(config).to(device).train(), LocalGradients())

    @classmethod
    def build(
        cls, config: TransformerConfig, places: Places, device: torch.device, micro_batch: int, accumulation: int
    ) -> "SharedNetwork":
        """This worker's part; every worker calls it, after `init_process_group`, with the same generator state.

        Args:
            config: of the whole network.
            places: the layout.
            device: of this worker.
            micro_batch: rows per forward pass.
            accumulation: micro-batches per step.
        """
        mesh = WorkerMesh.build(places, device.type)
        layout = places.layout
        if layout.pipeline == 1:
            module = parallelize(_with_shared_load(Transformer(config), mesh).to(device).train(), mesh)
            return cls(module, SharedGradients(mesh), mesh)
        whole = torch.get_rng_state()
        stages = []
        for number in range(mesh.rows["pipeline"].get_local_rank(), layout.stages, layout.pipeline):
            torch.set_rng_state(whole)
            stage = StageModule(config).cut(number, layout.stages)
            parallelize(_with_shared_load(stage, mesh).to(device).train(), mesh)
            stages.append(stage)
        return cls(nn.ModuleList(stages), PipelineGradients(mesh, stages, micro_batch, accumulation), mesh)

    @property
    def networks(self) -> Iterator[Transformer]:
        """The `Transformer`s that are here: one, or one for each stage."""
        return (module for module in self.module.modules() if isinstance(module, Transformer))

    def mean(self, value: float) -> float:
        """Average over the workers with other rows or tokens."""
        if self.mesh is None:
            return value
        total = torch.tensor(value, dtype=torch.float64, device=next(self.module.parameters()).device)
        distributed.all_reduce(total)
        return float(total) / self.mesh.places.world_size


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
