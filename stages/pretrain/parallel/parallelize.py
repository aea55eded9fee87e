"""A network shared out over workers, in the order that works: tokens, matrices, experts, then replicas and shards.

Each step uses what torch has (DTensor, FSDP2, DDP) and leaves the names of parameters alone: a checkpoint of one layout
loads into any other.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.distributed._composable.replicate_with_fsdp import replicate
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.nn.parallel import DistributedDataParallel

from modeling.attention.context_parallel import TokenShare
from modeling.attention.multi_head import Attention
from modeling.experts.all_to_all import AllToAllExchange
from modeling.experts.layer import Experts
from modeling.feed_forward import FeedForward
from modeling.loss.cross_entropy import TrainingLoss
from modeling.loss.vocabulary_parallel import vocabulary_parallel_cross_entropy
from modeling.transformer import Transformer
from stages.pretrain.parallel.mesh import WorkerMesh


def parallelize(model: Transformer, mesh: WorkerMesh) -> nn.Module:
    """Share `model` out, in place; returns it, or its wrapper where replicas are all there is.

    Args:
        model: the same on every worker; or a stage of a pipeline.
        mesh: the grid of workers.
    """
    layout = mesh.places.layout
    if layout.context > 1:
        share_tokens(model, mesh)
    if layout.tensor > 1:
        share_matrices(model, mesh.parameters["tensor"])
    if layout.expert > 1:
        share_experts(model, mesh)
    return share_batches(model, mesh)


def share_tokens(model: Transformer, mesh: WorkerMesh) -> None:
    """Each worker has a stretch of every row."""
    share = TokenShare(mesh.rows["context"].get_group())
    model.token_share = share
    for module in model.modules():
        if isinstance(module, Attention):
            module.share = share


def share_matrices(model: Transformer, tensor: DeviceMesh) -> None:
    """Heads, neurons and the vocabulary are shared out (Megatron-LM, 1909.08053, 3)."""
    for module in model.layers.modules():
        if isinstance(module, Attention):
            parallelize_module(module, tensor, {"query_key_value": ColwiseParallel(), "output": RowwiseParallel()})
        elif isinstance(module, FeedForward):
            parallelize_module(module, tensor, {"up": ColwiseParallel(), "down": RowwiseParallel()})
    if isinstance(model.embedding, nn.Embedding):
        parallelize_module(model.embedding, tensor, RowwiseParallel(input_layouts=Replicate()))
    if isinstance(model.head, nn.Linear):
        if model.config.tied_embeddings and isinstance(model.embedding, nn.Embedding):
            model.tie_head()
        else:
            table = distribute_tensor(model.head.weight.data, tensor, [Shard(0)])
            model.head.weight = nn.Parameter(table)
        model.shared_loss = _shared_loss


def _shared_loss(head: nn.Module, hidden: Tensor, targets: Tensor, z_loss: float) -> TrainingLoss:
    table = head.get_parameter("weight")
    assert isinstance(table, DTensor)
    mesh, placements = table.device_mesh, table.placements
    _, (first_entry, _) = compute_local_shape_and_global_offset(table.shape, mesh, placements)
    return vocabulary_parallel_cross_entropy(hidden, table.to_local(), first_entry, targets, mesh.get_group(), z_loss)


def share_experts(model: Transformer, mesh: WorkerMesh) -> None:
    """Workers with rows of their own hold different experts; rows travel."""
    group = mesh.experts
    assert group is not None
    for module in model.modules():
        if isinstance(module, Experts):
            assert isinstance(module.experts, nn.ModuleList)
            here = len(module.experts) // group.size()
            first = group.rank() * here
            # A dictionary keeps the experts' own numbers, and with them the names in checkpoints.
            module.experts = nn.ModuleDict({str(one): module.experts[one] for one in range(first, first + here)})
            module.exchange = partial(AllToAllExchange, group=group)


def shared_out_experts(model: nn.Module, mesh: WorkerMesh) -> list[nn.Parameter]:
    """Parameters that not all replicas have."""
    if mesh.experts is None:
        return []
    layers = [module.experts for module in model.modules() if isinstance(module, Experts)]
    return [parameter for experts in layers for parameter in experts.parameters()]


def share_batches(model: Transformer, mesh: WorkerMesh) -> nn.Module:
    """Replicas average their gradients; shards hold a part of everything and gather a layer when it is its turn."""
    layout = mesh.places.layout
    if mesh.batch_size == 1:
        return model
    if layout.shard == layout.tensor == layout.pipeline == layout.expert == 1:
        return DistributedDataParallel(model, process_group=mesh.parameters["replicate"].get_group())
    apart = set(shared_out_experts(model, mesh))
    wrap: Callable[..., Any]
    if layout.shard == 1:
        wrap = partial(replicate, mesh=mesh.parameters["replicate"])
    elif mesh.parameters["replicate"].size() == 1:
        wrap = partial(fully_shard, mesh=mesh.parameters["shard"])
    else:
        wrap = partial(fully_shard, mesh=mesh.parameters["replicate", "shard"])
    for layer in model.layers.children():
        wrap(layer, ignored_params=apart)
    wrap(model, ignored_params=apart)
    return model
