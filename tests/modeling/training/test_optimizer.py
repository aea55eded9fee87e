import copy
import math
import os
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as distributed
import torch.multiprocessing
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

from modeling.initialization import epsilon_scale, learning_rate_scale, weight_decay_scale
from modeling.training import muon
from modeling.training.muon import Muon, muon_update, orthogonalize
from modeling.training.optimizer import EPSILON, Optimizer, build_adamw, build_optimizer, trained_by_muon
from modeling.training.step import training_step
from tests.modeling.networks import random_tokens, small_network

BASE = {"base_width": 8, "base_layers": 1}
"""A quarter of the small network's width and half its layers."""


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("base", [{}, BASE])
def test_decay_shrinks_matrices_and_nothing_else(tied, base):
    """By the same share at any shape: where the rate falls, the decay grows."""
    model = small_network(tied_embeddings=tied, **base)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizer = build_adamw(model, learning_rate=0.5, betas=(0.9, 0.95), weight_decay=0.1)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, parameter in model.named_parameters():
        is_matrix = (name.startswith("layers.") and parameter.ndim == 2) or name == "head.weight"
        torch.testing.assert_close(parameter.detach(), before[name] * (1 - 0.5 * 0.1 if is_matrix else 1))


def test_the_first_step_is_as_long_as_the_scaled_rate():
    model = small_network(**BASE)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizer = build_adamw(model, learning_rate=0.5, betas=(0.9, 0.95), weight_decay=0.0)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    for name, parameter in model.named_parameters():
        is_hidden = name.startswith("layers.") and parameter.ndim == 2
        torch.testing.assert_close(parameter.detach(), before[name] - (0.5 / 4 if is_hidden else 0.5))


class Wrapper(nn.Module):
    """As DistributedDataParallel, it puts `module.` before all names."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("wrap", [lambda model: model, Wrapper])
def test_every_parameter_is_in_one_group_with_its_own_settings(wrap, tied):
    model = small_network(tied_embeddings=tied, **BASE)
    optimizer = build_adamw(wrap(model), learning_rate=0.5, betas=(0.8, 0.9), weight_decay=0.1)
    assert optimizer.defaults["fused"]
    groups = {id(parameter): group for group in optimizer.param_groups for parameter in group["params"]}
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(groups) == len([*model.parameters()])
    for name, parameter in model.named_parameters():
        group, config = groups[id(parameter)], model.config
        rate = learning_rate_scale(name, parameter, config)
        assert group["learning_rate_scale"] == rate
        assert group["lr"] == 0.5 * rate
        assert group["weight_decay"] == 0.1 * weight_decay_scale(name, parameter, config)
        assert group["eps"] == EPSILON * epsilon_scale(name, config)
        assert group["betas"] == (0.8, 0.9)


@pytest.mark.parametrize("decay", [0.1, 0.0])
def test_the_standard_parametrization_has_two_groups(decay):
    """In the order that saved optimizer states have: the decayed ones, then the others, each by their names' order."""
    model = small_network()
    optimizer = build_adamw(model, learning_rate=0.5, betas=(0.9, 0.95), weight_decay=decay)
    matrices = {name: one for name, one in model.named_parameters() if one.ndim == 2 and name != "embedding.weight"}
    others = [one for name, one in model.named_parameters() if name not in matrices]
    first, second = optimizer.param_groups
    assert [*map(id, first["params"])] == [*map(id, matrices.values())]
    assert [*map(id, second["params"])] == [*map(id, others)]
    assert (first["weight_decay"], second["weight_decay"]) == (decay, 0)
    assert first["learning_rate_scale"] == second["learning_rate_scale"] == 1


def test_any_module_is_trained_by_the_standard_rules():
    module = nn.Linear(3, 2)
    first, second = build_adamw(module, learning_rate=0.5, betas=(0.9, 0.95), weight_decay=0.1).param_groups
    assert first["params"] == [module.weight]
    assert second["params"] == [module.bias]


def build(
    model: nn.Module, kind: str, learning_rate: float = 0.02, weight_decay: float = 0.1, **sharing: Any
) -> Optimizer:
    return build_optimizer(model, kind, learning_rate, (0.9, 0.95), weight_decay, momentum=0.9, **sharing)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", ["adamw", "muon", "sgd"])
def test_embedding_and_head_may_have_another_rate(kind, tied):
    model = small_network(tied_embeddings=tied, embedding_bands=({"entries": 8, "width": 8}, {"width": 4}))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    scales = {
        names[id(parameter)]: group["learning_rate_scale"]
        for group in build(model, kind, embedding_rate=3.0).param_groups
        for parameter in group["params"]
    }
    assert scales == {name: 3.0 if name.startswith(("embedding.", "head.")) else 1.0 for name in names.values()}


def train(model: nn.Module, optimizer: Optimizer, first: int, last: int) -> None:
    for step in range(first, last + 1):
        training_step(model, optimizer, [random_tokens(2, 17, seed=step)], 0.02 / step, clip_norm=1.0, precision="fp32")


def same(model: nn.Module, other: nn.Module) -> bool:
    return all(map(torch.equal, model.state_dict().values(), other.state_dict().values()))


@pytest.mark.parametrize("way", ["tensors", "state_dict"])
@pytest.mark.parametrize("kind", ["adamw", "muon", "sgd"])
def test_training_goes_on_bit_for_bit_from_a_saved_state(kind, way):
    """Tensors are written by parameter into an optimizer that has not taken a step, as checkpoints do."""
    model = small_network(experts={"experts": 2, "active": 1}, **BASE).train()
    optimizer = build(model, kind)
    train(model, optimizer, 1, 3)
    resumed = copy.deepcopy(model)
    again = build(resumed, kind)
    if way == "state_dict":
        again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    else:
        for parameter, other in zip(model.parameters(), resumed.parameters(), strict=True):
            for name, tensor in optimizer.state[parameter].items():
                again.state[other][name] = tensor.clone()
    fresh = copy.deepcopy(model)
    train(model, optimizer, 4, 6)
    train(resumed, again, 4, 6)
    assert same(model, resumed)
    train(fresh, build(fresh, kind), 4, 6)
    assert not same(model, fresh)


UP_DOWN = ("up", "down")


def test_muon_takes_the_matrices_between_hidden_states():
    experts = {"experts": 2, "active": 1, "shared_width": 8, "every": 2}
    pooled = {"kind": "pooled", "window": 8, "levels": [{"stride": 4}], "pooling": "learnt"}
    model = small_network(experts=experts, attention=pooled, tied_embeddings=False)
    matrices = {name for name, parameter in model.named_parameters() if trained_by_muon(name, parameter)}
    of_attention = ["attention.query_key_value", "attention.output"]
    of_experts = [f"feed_forward.{place}.{side}" for place in ("experts.0", "experts.1", "shared") for side in UP_DOWN]
    assert matrices == {
        *(f"layers.0.{name}.weight" for name in (*of_attention, "feed_forward.up", "feed_forward.down")),
        *(f"layers.1.{name}.weight" for name in (*of_attention, *of_experts)),
    }
    optimizer = build(model, "muon")
    train(model.train(), optimizer, 1, 1)
    names = {parameter: name for name, parameter in model.named_parameters()}
    with_momentum = {names[parameter] for parameter, state in optimizer.state.items() if "momentum_buffer" in state}
    assert with_momentum == matrices
    assert {names[parameter] for parameter, state in optimizer.state.items() if "exp_avg" in state} == (
        set(names.values()) - matrices
    )


def test_settings_of_the_groups_of_muon():
    """At 4 times the base's width, a matrix has half the rate and twice the decay, an embedding the base's."""
    model = small_network(tied_embeddings=False, **BASE)
    optimizer = build(model, "muon")
    groups = {id(parameter): group for group in optimizer.param_groups for parameter in group["params"]}
    assert len(groups) == len([*model.parameters()])
    for name, parameter in model.named_parameters():
        group = groups[id(parameter)]
        if trained_by_muon(name, parameter):
            assert (group["learning_rate_scale"], group["lr"], group["weight_decay"]) == (0.5, 0.01, 0.2)
            assert group["head_width"] == (16 if "query_key_value" in name else 0)
        else:
            assert (group["learning_rate_scale"], group["lr"]) == (1, 0.02)
            assert group["weight_decay"] == (0.1 if name == "head.weight" else 0)
            assert group["eps"] == EPSILON * epsilon_scale(name, model.config)


@pytest.mark.parametrize("kind", ["adamw", "muon", "sgd"])
def test_a_rate_set_in_the_groups_acts(kind):
    model = small_network().train()
    before = copy.deepcopy(model)
    optimizer = build(model, kind)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    assert same(model, before)
    optimizer.zero_grad(set_to_none=True)
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("shape", [(48, 32), (32, 96), (40, 40)])
def test_an_update_of_muon_is_nearly_orthogonal_and_as_long_as_those_of_adamw(shape):
    direction = spread_matrix(*shape)
    update = muon_update(direction * 1e-6)
    singular_values = torch.linalg.svdvals(update / (0.2 * math.sqrt(max(shape))))
    assert 0.6 < singular_values.min() <= singular_values.max() < 1.3
    assert update.square().mean().sqrt() == pytest.approx(0.2, rel=0.2)
    left, _, right = torch.linalg.svd(direction, full_matrices=False)
    assert torch.cosine_similarity(update.flatten(), (left @ right).flatten(), dim=0) > 0.98
    assert not muon_update(torch.zeros(shape)).any()


@pytest.mark.parametrize("shape", [(24, 96), (96, 24), (40, 40), (24, 30)])
def test_matrices_are_orthogonalized_together_as_alone_whatever_the_way_of_iterating(shape):
    """Wide ones go by their Gram matrices, whose small singular values must not drown in rounding."""
    matrices = torch.stack([spread_matrix(*shape), torch.zeros(shape), torch.eye(*shape), 1e9 * spread_matrix(*shape)])
    matrices[3, 0] *= 1e-4
    together = orthogonalize(matrices)
    for matrix, result in zip(matrices, together, strict=True):
        torch.testing.assert_close(result, orthogonalize(matrix), rtol=0, atol=2e-6)
        exact = orthogonalize(matrix.double(), torch.float64)
        torch.testing.assert_close(result.double(), exact, rtol=0, atol=5e-4)
    rounded = orthogonalize(matrices, torch.bfloat16)
    assert torch.cosine_similarity(rounded.flatten(), together.flatten(), dim=0) > 0.999


def test_large_matrices_are_gathered_one_for_each_sharer_as_far_as_memory_goes(monkeypatch):
    parameters = [nn.Parameter(torch.zeros(3, 4)) for _ in range(5)]
    for parameter in parameters:
        parameter.grad = torch.zeros(3, 4)

    def batches(sharers: int, together: int, shared: int) -> list[int]:
        monkeypatch.setattr(muon, "BATCH_NUMBERS", together)
        monkeypatch.setattr(muon, "SHARED_NUMBERS", shared)
        return [len(batch) for batch in muon.batches_of_equal_shape(parameters, sharers)]

    assert batches(1, 36, 12) == [3, 2], "small ones"
    assert batches(4, 11, 1000) == [4, 1] and batches(1, 11, 1000) == [1] * 5
    assert batches(4, 11, 35) == [2, 2, 1] and batches(4, 11, 1) == [1] * 5


def spread_matrix(rows: int, columns: int) -> torch.Tensor:
    """Singular values from 1 to 100, which is what is to be evened out."""
    torch.manual_seed(0)
    left, _, right = torch.linalg.svd(torch.randn(rows, columns), full_matrices=False)
    return left @ torch.logspace(0, 2, min(rows, columns)).diag() @ right


def test_queries_keys_and_values_are_three_matrices():
    """Of 2 heads of width 3, whose rows go head by head."""
    torch.manual_seed(0)
    direction = torch.randn(18, 6)
    update = muon_update(direction, head_width=3)
    for first in (0, 3, 6):
        rows = [*range(first, first + 3), *range(first + 9, first + 12)]
        torch.testing.assert_close(update[rows], muon_update(direction[rows]))


def test_muon_equals_hand_arithmetic():
    """Momentum as a running mean, looked ahead by one step (Nesterov), and decay that the momentum does not see."""
    model = nn.Linear(4, 3, bias=False)
    weight, first, second = model.weight.detach().clone(), spread_matrix(3, 4), spread_matrix(4, 3).T
    optimizer = build(model, "muon", learning_rate=0.5)
    assert not isinstance(optimizer, torch.optim.AdamW)
    for gradient in (first, second):
        model.weight.grad = gradient.clone()
        optimizer.step()
    mean = 0.1 * first
    weight = weight * (1 - 0.5 * 0.1) - 0.5 * muon_update(0.1 * first + 0.9 * mean)
    mean = 0.9 * mean + 0.1 * second
    weight = weight * (1 - 0.5 * 0.1) - 0.5 * muon_update(0.1 * second + 0.9 * mean)
    torch.testing.assert_close(model.weight.detach(), weight)


def test_sgd_equals_hand_arithmetic():
    model = nn.Linear(1, 1)
    nn.init.constant_(model.weight, 2.0)
    nn.init.constant_(model.bias, 2.0)
    optimizer = build(model, "sgd", learning_rate=0.5)
    for gradient in (1.0, 3.0):
        model.weight.grad, model.bias.grad = torch.full((1, 1), gradient), torch.full((1,), gradient)
        optimizer.step()
    # The bias has no decay: 2 - 0.5 * 1 = 1.5, then 1.5 - 0.5 * (0.9 * 1 + 3).
    assert model.bias.item() == pytest.approx(-0.45)
    # The weight: 2 - 0.5 * (1 + 0.1 * 2) = 1.4, then 1.4 - 0.5 * (0.9 * 1.2 + 3 + 0.1 * 1.4).
    assert model.weight.item() == pytest.approx(-0.71)


def test_there_is_no_other_optimizer():
    with pytest.raises(ValueError, match="optimizer is 'lion'; accepted are adamw, muon, sgd"):
        build(nn.Linear(2, 2), "lion")
    with pytest.raises(ValueError, match=r"has the shape \(3,\); accepted are only matrices"):
        Muon([torch.zeros(3)], lr=0.1, momentum=0.9, weight_decay=0.0)


@pytest.mark.slow
def test_muon_over_shards_is_muon_on_one_process(tmp_path):
    """Shards of FSDP, some uneven; and matrices that tensor parallelism has cut, beside plain ones; work shared out."""
    torch.multiprocessing.spawn(sharded_worker, (str(tmp_path),), nprocs=2)
    alone = stack()
    steps_of_stack(alone, build(alone, "muon"))
    for layout in ("shard", "tensor"):
        weights = torch.load(tmp_path / f"{layout}.pt")
        assert weights.keys() == alone.state_dict().keys()
        for name, weight in alone.state_dict().items():
            torch.testing.assert_close(weights[name], weight, rtol=0, atol=1e-6)


def stack() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(12, 20), nn.Linear(20, 13), *(nn.Linear(13, 13) for _ in range(3)), nn.Linear(13, 7))


def steps_of_stack(model: nn.Module, optimizer: Optimizer) -> None:
    for step in range(3):
        optimizer.zero_grad(set_to_none=True)
        rows = torch.randn(16, 12, generator=torch.Generator().manual_seed(step))
        model(rows).square().mean().backward()
        optimizer.step()


def sharded_worker(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    mesh = init_device_mesh("cpu", (2,))
    sharded = fully_shard(stack(), mesh=mesh)
    cut = parallelize_module(stack(), mesh, {"0": ColwiseParallel(), "1": RowwiseParallel()})
    for layout, model in {"shard": sharded, "tensor": cut}.items():
        optimizer = build(model, "muon", sharers=distributed.group.WORLD)
        for group in optimizer.param_groups:
            assert len({isinstance(parameter, DTensor) for parameter in group["params"]}) == 1
        steps_of_stack(model, optimizer)
        weights = {
            name: one.full_tensor() if isinstance(one, DTensor) else one for name, one in model.state_dict().items()
        }
        if rank == 0:
            torch.save(weights, Path(folder) / f"{layout}.pt")
    distributed.destroy_process_group()
