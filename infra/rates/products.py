"""Rates of a machine's processor that no program of ours decides: matrix products and memory, measured in two seconds.

- `measure_products`: FLOPs per second by precision
- `measure_memory`: bytes per second
"""

import math
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from infra.control_groups import cpu_quota

PRECISIONS = ("fp32", "bf16")
FIRST_SIZE, LAST_SIZE = 128, 2_048
LONG_ENOUGH_SECONDS = 0.02
"""A product that takes this long is measured well enough; slower machines stop at smaller matrices."""
BUDGET_SECONDS = 0.2
"""Repeats of one size."""
COPIED_BYTES = 128 * 2**20


def measure_products() -> dict[str, float]:
    """FLOPs per second of square matrix products on all cores of this process, by precision."""
    import torch

    types = {"fp32": torch.float32, "bf16": torch.bfloat16}
    # Processor time does not pass while a quota is used up.
    share = min(1.0, (cpu_quota() or math.inf) / torch.get_num_threads())
    return {precision: share * _product_rate(types[precision]) for precision in PRECISIONS}


def measure_memory() -> float:
    """Bytes per second, read and written together, of a copy that no cache holds."""
    import torch

    source = torch.ones(COPIED_BYTES // 4)
    target = torch.empty_like(source)
    return 2.0 * COPIED_BYTES / _fastest(lambda: target.copy_(source))


def _product_rate(dtype: object) -> float:
    """The best rate of growing matrices, up to the first whose product takes long enough."""
    import torch

    size, best, seconds = FIRST_SIZE, 0.0, 0.0
    while size <= LAST_SIZE and seconds < LONG_ENOUGH_SECONDS:
        matrix = torch.ones(size, size, dtype=dtype)  # type: ignore[call-overload]
        seconds = _fastest(partial(_multiplied, matrix))
        best, size = max(best, 2.0 * size**3 / seconds), 2 * size
    return best


def _multiplied(matrix: Any) -> float:
    return float((matrix @ matrix)[0, 0])


def _fastest(work: Callable[[], object]) -> float:
    """Fewest seconds of processor time of this thread among repeats within the budget; the first one warms up.

    Processor time, since a thread that computes is always on a processor: waiting for other programs does not count.
    """
    begun, best = time.perf_counter(), float("inf")
    work()
    while best == float("inf") or time.perf_counter() - begun < BUDGET_SECONDS:
        start = time.thread_time()
        work()
        best = min(best, time.thread_time() - start)
    return max(best, 1e-9)
