import os
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import torch.distributed as distributed
import torch.multiprocessing
import torch.nn.functional as F

from modeling.loss.cross_entropy import linear_cross_entropy
from modeling.loss.logit_tiles import Tiling
from modeling.loss.vocabulary_parallel import vocabulary_parallel_cross_entropy, vocabulary_parallel_embedding

ENTRIES, WIDTH, FIRST_SHARD = 23, 6, 15
"""Shards of 15 and 8 entries: neither alike nor a whole number of tiles."""
TILING = Tiling(rows=7, entries=4, max_logits=1, min_rows=2)
Z_LOSS = 0.01


def make_problem():
    torch.manual_seed(0)
    hidden, weight = torch.randn(2, 9, WIDTH).double(), torch.randn(ENTRIES, WIDTH).double()
    return hidden.requires_grad_(), weight.requires_grad_(), torch.randint(ENTRIES, (2, 9))


def shard(tensor: torch.Tensor, rank: int) -> torch.Tensor:
    return tensor.detach().split([FIRST_SHARD, ENTRIES - FIRST_SHARD])[rank]


def parallel_figures(rank: int) -> dict[str, torch.Tensor]:
    """Losses and gradients; the hidden states pass through another operation, as they do in a network."""
    hidden, weight, targets = make_problem()
    own = shard(weight, rank).clone().requires_grad_()
    arguments = (own, rank * FIRST_SHARD, targets, None, Z_LOSS, TILING)
    loss = vocabulary_parallel_cross_entropy(hidden.tanh(), *arguments)
    (3 * loss.total).backward()
    with torch.no_grad():
        without_gradient = vocabulary_parallel_cross_entropy(hidden.tanh(), *arguments)
        stray = vocabulary_parallel_cross_entropy(hidden.tanh(), *arguments[:2], targets + ENTRIES, None)
    return {
        "total": loss.total.detach(),
        "cross_entropy": loss.cross_entropy,
        "without_gradient": without_gradient.total,
        "stray": stray.total,
        "hidden": hidden.grad,
        "weight": own.grad,
    }


def assert_equal_to_one_process(actual: dict[str, torch.Tensor], weight_rows: slice) -> None:
    hidden, weight, targets = make_problem()
    loss = linear_cross_entropy([(hidden.tanh(), weight)], targets, Z_LOSS)
    (3 * loss.total).backward()
    expected = {
        "total": loss.total.detach(),
        "cross_entropy": loss.cross_entropy,
        "without_gradient": loss.total.detach(),
        "stray": torch.tensor(torch.inf).double(),
        "hidden": hidden.grad,
        "weight": weight.grad[weight_rows],
    }
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-14)


def _one_rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"  # the machine's own name need not have an address
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    torch.save(parallel_figures(rank), f"{folder}/rank-{rank}.pt")
    distributed.destroy_process_group()


@pytest.mark.slow
def test_two_shards_equal_one_process(tmp_path: Path):
    torch.multiprocessing.spawn(_one_rank, (str(tmp_path),), nprocs=2)
    for rank, rows in enumerate([slice(0, FIRST_SHARD), slice(FIRST_SHARD, ENTRIES)]):
        assert_equal_to_one_process(torch.load(tmp_path / f"rank-{rank}.pt"), rows)


def test_one_shard_of_all_equals_one_process(tmp_path: Path):
    """Quick: a group of this process alone."""
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    try:
        hidden, weight, targets = make_problem()
        loss = vocabulary_parallel_cross_entropy(hidden, weight, 0, targets, None, Z_LOSS, TILING)
        expected = linear_cross_entropy([(hidden, weight)], targets, Z_LOSS)
        torch.testing.assert_close(tuple(loss), tuple(expected), rtol=1e-12, atol=0)
        actual = torch.autograd.grad(loss.total, (hidden, weight))
        torch.testing.assert_close(actual, torch.autograd.grad(expected.total, (hidden, weight)))
    finally:
        distributed.destroy_process_group()


def test_vectors_of_a_split_table_sum_to_those_of_the_whole(tmp_path: Path):
    """Each part has the gradient of its own entries only; a part may have none."""
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    try:
        _, weight, tokens = make_problem()
        factors = torch.randn(*tokens.shape, WIDTH).double()
        expected = F.embedding(tokens, weight)
        [whole] = torch.autograd.grad((expected * factors).sum(), weight)
        borders = [0, FIRST_SHARD, FIRST_SHARD, ENTRIES]
        shards = [weight.detach()[a:b].clone().requires_grad_() for a, b in pairwise(borders)]
        parts = [vocabulary_parallel_embedding(tokens, *part, None) for part in zip(shards, borders, strict=False)]
        torch.testing.assert_close(sum(parts), expected)
        for part in parts:
            (part * factors).sum().backward()
        torch.testing.assert_close(torch.cat([shard.grad for shard in shards]), whole)
    finally:
        distributed.destroy_process_group()
