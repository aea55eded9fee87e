"""The workers as a grid of process groups, one dimension for each factor of the layout."""

from dataclasses import dataclass

import torch
import torch.distributed as distributed
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from stages.pretrain.parallel.layout import WorkerLayout

Group = distributed.ProcessGroup


@dataclass(frozen=True)
class WorkerMesh:
    """This worker's place among all."""

    places: WorkerLayout
    parameters: DeviceMesh
    """(pipeline, replicate, shard, tensor): what DTensor and FSDP work on. Workers that share rows' tokens are
    replicas, or shards where there are any."""
    rows: DeviceMesh
    """(pipeline, data, shard, context, tensor): the same workers by what they work on."""
    experts: Group | None
    """Workers that hold all experts of a layer together."""
    expert_replicas: Group | None
    """Workers that hold the same experts."""

    @classmethod
    def build(cls, places: WorkerLayout, device_type: str) -> "WorkerMesh":
        """Make the process groups; every worker calls it, after `init_process_group`."""
        layout = places.layout
        # Tensor parallelism talks most, so its workers are neighbors.
        shape = (layout.pipeline, places.data, layout.shard, layout.context, layout.tensor)
        rows = init_device_mesh(device_type, shape, mesh_dim_names=("pipeline", "data", "shard", "context", "tensor"))
        shards = layout.shard * layout.context if layout.shard > 1 else 1
        parameters = init_device_mesh(
            device_type,
            (layout.pipeline, places.batch_ranks * layout.context // shards, shards, layout.tensor),
            mesh_dim_names=("pipeline", "replicate", "shard", "tensor"),
        )
        experts = replicas = None
        if layout.expert > 1:
            experts = subgroup(_expert_groups(rows.mesh, layout.expert))
            replicas = subgroup(_replica_groups(rows.mesh, layout.expert))
        return cls(places, parameters, rows, experts, replicas)

    @property
    def batch_size(self) -> int:
        """Workers with gradients of the same parameters: with other rows, or other tokens."""
        return self.places.batch_ranks * self.places.layout.context

    @property
    def batch_rank(self) -> int:
        """Which of the groups with rows of their own this worker is in."""
        return self.rows["data"].get_local_rank() * self.places.layout.shard + self.rows["shard"].get_local_rank()

    @property
    def stage_group(self) -> Group:
        """The workers of a pipeline, first stage first."""
        return self.rows["pipeline"].get_group()


def subgroup(groups: list[list[int]]) -> Group:
    """That of this worker, among groups that hold every worker once."""
    mine, _ = distributed.new_subgroups_by_enumeration(groups)  # type: ignore[no-untyped-call]
    assert isinstance(mine, Group)
    return mine


def _expert_groups(grid: torch.Tensor, size: int) -> list[list[int]]:
    """Neighbors among the workers that differ in their rows alone."""
    by_rows = grid.flatten(1, 2).movedim(1, -1).flatten(0, -2)  # (others, data x shard)
    return [group.tolist() for ranks in by_rows for group in ranks.view(-1, size)]


def _replica_groups(grid: torch.Tensor, size: int) -> list[list[int]]:
    """Workers at the same place of their expert groups that differ in rows or tokens."""
    by_rows = grid.flatten(1, 2).permute(0, 3, 1, 2).flatten(0, 1)  # (pipeline x tensor, data x shard, context)
    return [ranks[place::size].flatten().tolist() for ranks in by_rows for place in range(size)]
