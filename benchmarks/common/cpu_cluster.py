"""Processes on one machine as a cluster of the planner.

- `process_rates`: rates of this process, while all others of the group measure theirs
- `cluster_of_processes`: the cluster
"""

import time
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.distributed as distributed
import torch.nn.functional as F

from infra.planner.clusters import Cluster
from infra.planner.step_time import ATTENTION_PASSES, LINK_SHARE
from modeling.training.kinds import Precision

ROUNDS = 7
NUMBERS = 2**20
UNKNOWN = 1.0


class ProcessRates(NamedTuple):
    """Per second."""

    fp32_flops: float
    bf16_flops: float
    attention_flops: float
    memory_bytes: float
    link_bytes: float
    """Sent to the other processes; infinite if there is none."""


def process_rates(width: int, tokens: int, heads: int) -> ProcessRates:
    """Rates at the sizes of a feed-forward of 4 x width; with other processes, called by each of them.

    Args:
        width: of the network.
        tokens: of a micro-batch.
        heads: of attention.
    """
    numbers = torch.ones(NUMBERS)
    sums = torch.empty_like(numbers)
    link = float("inf")
    if distributed.is_initialized():
        sent = 2 * (distributed.get_world_size() - 1) / distributed.get_world_size() * 4 * NUMBERS
        link = sent / _seconds(lambda: distributed.all_reduce(numbers.clone()))
    return ProcessRates(
        _product_rate(tokens, width, torch.float32),
        _product_rate(tokens, width, torch.bfloat16),
        _attention_rate(tokens, width, heads),
        12 * NUMBERS / _seconds(lambda: torch.add(numbers, numbers, out=sums)),
        link,
    )


def _product_rate(tokens: int, width: int, dtype: torch.dtype) -> float:
    hidden, matrix = torch.ones(tokens, width, dtype=dtype), torch.ones(width, 4 * width, dtype=dtype)
    return 2.0 * tokens * width * 4 * width / _seconds(lambda: hidden @ matrix)


def _attention_rate(tokens: int, width: int, heads: int) -> float:
    """FLOPs per second of a causal forward and backward pass, whose masked half is not computed."""
    shape = (1, heads, tokens, width // heads)
    queries, keys, values = (torch.ones(shape, requires_grad=True) for _ in range(3))

    def work() -> None:
        F.scaled_dot_product_attention(queries, keys, values, is_causal=True).sum().backward()  # type: ignore[no-untyped-call]

    return ATTENTION_PASSES * 2.0 * tokens * tokens * width / _seconds(work)


def _seconds(work: Callable[[], object]) -> float:
    """Median of some calls."""
    times = []
    for _ in range(ROUNDS):
        if distributed.is_initialized():
            distributed.barrier()
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return sorted(times)[ROUNDS // 2]


def cluster_of_processes(
    rates: ProcessRates, processes: int, precision: Precision, collective_seconds: float
) -> Cluster:
    """A node of which each process is a device, with the rate of products that the precision has.

    Prices, power and failures are placeholders.
    """
    products = rates.bf16_flops if precision == "bf16" else rates.fp32_flops
    return Cluster(
        device="CPU process", devices=processes, node_devices=processes, memory_bytes=2**40, peak_flops=products,
        sustained_flops=products, attention_flops=rates.attention_flops, memory_bandwidth=rates.memory_bytes,
        link_bandwidth=min(rates.link_bytes / LINK_SHARE, 1e15), network_bandwidth=1e15,
        collective_seconds=collective_seconds, watts=UNKNOWN,
        price_per_hour=UNKNOWN, mtbf_hours=UNKNOWN,
    )  # fmt: skip
