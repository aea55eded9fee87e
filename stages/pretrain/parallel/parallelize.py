"""Parallelize a network: context, tensor and expert parallelism, then data parallelism, in this order.

Each uses torch's own classes (DTensor, FSDP2, DDP) and keeps the parameter names, so that a checkpoint of one layout
loads into any other.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.distributed._composable.replicate_with_fsdp import replicate
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Shard, distribute_tensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.nn.parallel import DistributedDataParallel

from modeling.attention.context_parallel import TokenShare
from modeling.attention.multi_head import Attention
from modeling.experts.all_to_all import AllToAllExchange
from modeling.experts.layer import Experts
from modeling.feed_forward import FeedForward
from modeling.loss.cross_entropy import TrainingLoss
from modeling.loss.vocabulary_parallel import vocabulary_parallel_cross_entropy, vocabulary_parallel_embedding
from modeling.transformer import Transformer
from stages.pretrain.parallel.mesh import WorkerMesh


def parallelize(model: Transformer, mesh: WorkerMesh) -> nn.Module:
    """Parallelize `model` in place; returns it, or its `DistributedDataParallel` wrapper.

    Args:
        model: the network with the same weights on every worker, or a pipeline stage.
        mesh: the process groups.
    """
    factors = mesh.layout.factors
    if factors.context > 1:
        apply_context_parallel(model, mesh)
    if factors.tensor > 1:
        apply_tensor_parallel(model, mesh.parameters["tensor"])
    if factors.expert > 1:
        apply_expert_parallel(model, mesh)
    return apply_data_parallel(model, mesh)


def apply_context_parallel(model: Transformer, mesh: WorkerMesh) -> None:
    """Context parallelism: each worker computes a part of the tokens of every row."""
    share = TokenShare(mesh.grid["context"].get_group())
    model.token_share = share
    for module in model.modules():
        if isinstance(module, Attention):
            module.share = share


def apply_tensor_parallel(model: Transformer, tensor: DeviceMesh) -> None:
    """Tensor parallelism: split heads, feed-forward neurons and vocabulary (Megatron-LM, 1909.08053, section 3)."""
    for module in model.layers.modules():
        if isinstance(module, Attention):
            parallelize_module(module, tensor, {"query_key_value": ColwiseParallel(), "output": RowwiseParallel()})
        elif isinstance(module, FeedForward):
            parallelize_module(module, tensor, {"up": ColwiseParallel(), "down": RowwiseParallel()})
    if isinstance(model.embedding, nn.Embedding):
        table = distribute_tensor(model.embedding.weight.data, tensor, [Shard(0)])
        model.embedding.weight = nn.Parameter(table)
        model.embedding.forward = partial(_vocabulary_parallel_embedding, model.embedding)  # type: ignore[method-assign]
    if isinstance(model.head, nn.Linear):
        if model.config.tied_embeddings and isinstance(model.embedding, nn.Embedding):
            model.tie_head()
        else:
            table = distribute_tensor(model.head.weight.data, tensor, [Shard(0)])
            model.head.weight = nn.Parameter(table)
        model.shared_loss = _vocabulary_parallel_loss


def _vocabulary_parallel_embedding(embedding: nn.Module, tokens: Tensor) -> Tensor:
    table, first_entry = _own_entries(embedding)
    return vocabulary_parallel_embedding(tokens, table.to_local(), first_entry, table.device_mesh.get_group())


def _vocabulary_parallel_loss(head: nn.Module, hidden: Tensor, targets: Tensor, z_loss: float) -> TrainingLoss:
    table, first_entry = _own_entries(head)
    group = table.device_mesh.get_group()
    return vocabulary_parallel_cross_entropy(hidden, table.to_local(), first_entry, targets, group, z_loss)


def _own_entries(module: nn.Module) -> tuple[DTensor, int]:
    """The table of a split vocabulary, and the token id of this worker's first row."""
    table = module.get_parameter("weight")
    assert isinstance(table, DTensor)
    _, (first_entry, _) = compute_local_shape_and_global_offset(table.shape, table.device_mesh, table.placements)
    return table, first_entry


def apply_expert_parallel(model: Transformer, mesh: WorkerMesh) -> None:
    """Expert parallelism: workers with different rows hold different experts and exchange tokens (all-to-all)."""
    group = mesh.experts
    assert group is not None
    for module in model.modules():
        if isinstance(module, Experts):
            assert isinstance(module.experts, nn.ModuleList)
            count = len(module.experts) // group.size()
            first = group.rank() * count
            # A ModuleDict keeps the experts' indices, and thus their parameter names in checkpoints.
            module.experts = nn.ModuleDict({str(index): module.experts[index] for index in range(first, first + count)})
            module.exchange = partial(AllToAllExchange, group=group)


def expert_parallel_parameters(model: nn.Module, mesh: WorkerMesh) -> list[nn.Parameter]:
    """Parameters of experts that are split among workers, which not all replicas hold."""
    if mesh.experts is None:
        return []
    layers = [module.experts for module in model.modules() if isinstance(module, Experts)]
    return [parameter for experts in layers for parameter in experts.parameters()]


def apply_data_parallel(model: Transformer, mesh: WorkerMesh) -> nn.Module:
    """Data parallelism: replicas average gradients (DDP); shards gather parameters layer by layer (FSDP2)."""
    factors = mesh.layout.factors
    if mesh.batch_size == 1:
        return model
    if factors.shard == factors.tensor == factors.pipeline == factors.expert == 1:
        return DistributedDataParallel(model, process_group=mesh.parameters["replicate"].get_group())
    ignored = set(expert_parallel_parameters(model, mesh))
    wrap: Callable[..., Any]
    if factors.shard == 1:
        wrap = partial(replicate, mesh=mesh.parameters["replicate"])
    elif mesh.parameters["replicate"].size() == 1:
        wrap = partial(fully_shard, mesh=mesh.parameters["shard"])
    else:
        wrap = partial(fully_shard, mesh=mesh.parameters["replicate", "shard"])
    for layer in model.layers.children():
        wrap(layer, ignored_params=ignored)
    wrap(model, ignored_params=ignored)
    return model
