"""Device mesh of the workers: a grid of process groups with one dimension for each factor of the layout."""

import functools
from dataclasses import dataclass

import torch
import torch.distributed as distributed
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from stages.pretrain.parallel.layout import WorkerLayout

Group = distributed.ProcessGroup


@dataclass(frozen=True)
class WorkerMesh:
    """Process groups of this worker."""

    layout: WorkerLayout
    parameters: DeviceMesh
    """(pipeline, replicate, shard, tensor): mesh of DTensor and FSDP. Workers that split the tokens of a row count as
    shards if there are shards, else as replicas."""
    grid: DeviceMesh
    """(pipeline, data, shard, context, tensor): the same workers by the factors of the layout."""
    experts: Group | None
    """Workers that together hold all experts of a layer."""
    expert_replicas: Group | None
    """Workers that hold the same experts."""

    @classmethod
    def build(cls, layout: WorkerLayout, device_type: str) -> "WorkerMesh":
        """Create the process groups; called by every worker after `init_process_group`."""
        factors = layout.factors
        # Tensor parallelism communicates most, so its workers have adjacent ranks.
        shape = (factors.pipeline, layout.data, factors.shard, factors.context, factors.tensor)
        grid = init_device_mesh(device_type, shape, mesh_dim_names=("pipeline", "data", "shard", "context", "tensor"))
        shards = factors.shard * factors.context if factors.shard > 1 else 1
        parameters = init_device_mesh(
            device_type,
            (factors.pipeline, layout.batch_ranks * factors.context // shards, shards, factors.tensor),
            mesh_dim_names=("pipeline", "replicate", "shard", "tensor"),
        )
        experts = replicas = None
        if factors.expert > 1:
            experts = subgroup(_expert_groups(grid.mesh, factors.expert))
            replicas = subgroup(_replica_groups(grid.mesh, factors.expert))
        return cls(layout, parameters, grid, experts, replicas)

    @property
    def batch_size(self) -> int:
        """Number of workers with gradients of the same parameters from different rows or tokens."""
        return self.layout.batch_ranks * self.layout.factors.context

    @property
    def batch_rank(self) -> int:
        """Index of this worker's share of each global batch."""
        return self.grid["data"].get_local_rank() * self.layout.factors.shard + self.grid["shard"].get_local_rank()

    @functools.cached_property
    def same_parameters(self) -> Group | None:
        """Workers with the same parameters or parts of them; None if that is only this worker, or experts are split."""
        workers = self.parameters["replicate", "shard", "tensor"]
        if self.experts is not None or workers.size() == 1:
            return None
        return workers._flatten("parameters").get_group()

    @property
    def stage_group(self) -> Group:
        """Workers of this worker's pipeline, first stage first."""
        return self.grid["pipeline"].get_group()


def subgroup(groups: list[list[int]]) -> Group:
    """Process group of this worker; `groups` hold every rank exactly once."""
    own, _ = distributed.new_subgroups_by_enumeration(groups)  # type: ignore[no-untyped-call]
    assert isinstance(own, Group)
    return own


def _expert_groups(grid: torch.Tensor, size: int) -> list[list[int]]:
    """Groups of adjacent workers that differ only in their rows."""
    by_rows = grid.flatten(1, 2).movedim(1, -1).flatten(0, -2)  # (others, data x shard)
    return [group.tolist() for ranks in by_rows for group in ranks.view(-1, size)]


def _replica_groups(grid: torch.Tensor, size: int) -> list[list[int]]:
    """Groups of workers with the same rank in their expert groups that differ in rows or tokens."""
    by_rows = grid.flatten(1, 2).permute(0, 3, 1, 2).flatten(0, 1)  # (pipeline x tensor, data x shard, context)
    return [ranks[rank::size].flatten().tolist() for ranks in by_rows for rank in range(size)]
