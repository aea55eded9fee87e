"""Attention over length: `python -m benchmarks.attention_scaling [--quick] [--bf16] [--plot FILE.svg]`.

Forward and backward of one layer's attention (6 heads of 64, one row), from projected and rotated queries, keys and
values to the attention output, pooling included: torch's causal `scaled_dot_product_attention` against the kinds
below, alternating.

- exponent: growth exponent of the time of pooled attention with two levels, from 1,024 to 32,768 tokens
- exponent_one_level: the same with one level of stride 64
- speedup_2k, speedup_32k: full attention's time over pooled attention's
- memory_ratio_32k: peak memory of pooled over full attention, beyond the inputs, each in its own process
"""

import argparse
import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from modeling.attention.kinds import AttentionKind, FullAttention, PooledAttention, PoolLevel, WindowAttention
from modeling.attention.pooling import BlockPooling
from modeling.attention.tiled_attention import tiled_attention
from modeling.attention.tiles import level_strides

HEADS, HEAD_WIDTH = 6, 64
LENGTHS = (1_024, 2_048, 4_096, 8_192, 16_384, 32_768)
FULL, TWO_LEVELS, ONE_LEVEL = "full", "window 256, strides 16 (64 entries) and 256", "window 256, stride 64"
KINDS: dict[str, AttentionKind] = {
    FULL: FullAttention(),
    "window 256": WindowAttention(window=256),
    ONE_LEVEL: PooledAttention(window=256, levels=(PoolLevel(stride=64),)),
    TWO_LEVELS: PooledAttention(window=256, levels=(PoolLevel(stride=16, entries=64), PoolLevel(stride=256))),
}


def main() -> None:
    """Measure time and memory over length; print the table and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one round, memory at 32,768 tokens only")
    parser.add_argument("--bf16", action="store_true", help="bfloat16 instead of float32")
    parser.add_argument("--plot", metavar="FILE", help="draw time and memory over length")
    parser.add_argument("--peak-memory", nargs=2, metavar=("KIND", "TOKENS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    dtype = torch.bfloat16 if arguments.bf16 else torch.float32
    if arguments.peak_memory:
        kind, tokens = arguments.peak_memory
        print(peak_megabytes(KINDS[kind], int(tokens), dtype))
        return
    seconds = {length: _seconds(length, dtype, 1 if arguments.quick else _rounds(length)) for length in LENGTHS}
    memory_lengths = LENGTHS[-1:] if arguments.quick else LENGTHS
    memory = {
        length: {kind: _memory_in_subprocess(kind, length, arguments.bf16) for kind in KINDS}
        for length in memory_lengths
    }
    _print_table(seconds, memory)
    if arguments.plot:
        _plot(seconds, memory, arguments.plot)
    first, last = seconds[LENGTHS[0]], seconds[LENGTHS[-1]]
    growth = math.log(LENGTHS[-1] / LENGTHS[0])
    ratios = {
        "exponent": math.log(last[TWO_LEVELS] / first[TWO_LEVELS]) / growth,
        "exponent_one_level": math.log(last[ONE_LEVEL] / first[ONE_LEVEL]) / growth,
        "exponent_full": math.log(last[FULL] / first[FULL]) / growth,
        "speedup_1k": first[FULL] / first[TWO_LEVELS],
        "speedup_2k": seconds[2_048][FULL] / seconds[2_048][TWO_LEVELS],
        "speedup_32k": last[FULL] / last[TWO_LEVELS],
        "memory_ratio_32k": memory[LENGTHS[-1]][TWO_LEVELS] / memory[LENGTHS[-1]][FULL],
    }
    print(json.dumps({name: round(value, 3) for name, value in ratios.items()}))


def _rounds(length: int) -> int:
    return 7 if length <= 4_096 else 3


def _seconds(length: int, dtype: torch.dtype, rounds: int) -> dict[str, float]:
    """Median seconds of each kind, measured alternately."""
    steps = {name: _step(kind, length, dtype) for name, kind in KINDS.items()}
    if length <= 8_192:
        for step in steps.values():
            step()
    times: dict[str, list[float]] = {name: [] for name in KINDS}
    for _ in range(rounds):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(seconds) for name, seconds in times.items()}


def _step(kind: AttentionKind, length: int, dtype: torch.dtype) -> Callable[[], object]:
    """Forward and backward on fixed random inputs."""
    torch.manual_seed(0)
    projected = torch.randn(1, length, HEADS, 3, HEAD_WIDTH, dtype=dtype, requires_grad=True)
    gradient = torch.randn(1, length, HEADS, HEAD_WIDTH, dtype=dtype)
    return lambda: torch.autograd.grad(_attention(projected, kind), projected, gradient)


def _attention(projected: Tensor, kind: AttentionKind) -> Tensor:
    if isinstance(kind, FullAttention):
        queries, keys, values = projected.transpose(1, 2).unbind(3)
        full = torch.nn.functional.scaled_dot_product_attention(queries, keys, values, is_causal=True)
        return full.transpose(1, 2)
    poolings = [
        BlockPooling("mean", HEADS, HEAD_WIDTH, coarser // finer) for finer, coarser in pairwise(level_strides(kind))
    ]
    return tiled_attention(projected, poolings, kind, None, 1 / math.sqrt(HEAD_WIDTH))


def peak_megabytes(kind: AttentionKind, length: int, dtype: torch.dtype) -> float:
    """Peak resident memory of one step beyond that of its inputs; to be run in a fresh process."""
    _step(kind, 1_024, dtype)()  # code, thread pools and the kernel's scratch memory
    step = _step(kind, length, dtype)
    before = _status_kilobytes("VmRSS")
    step()
    return max(_status_kilobytes("VmHWM") - before, 0) / 1_024


def _status_kilobytes(field: str) -> int:
    with open("/proc/self/status") as status:  # noqa: PTH123
        return next(int(line.split()[1]) for line in status if line.startswith(f"{field}:"))


def _memory_in_subprocess(kind: str, length: int, bf16: bool) -> float:
    command = [sys.executable, "-m", "benchmarks.attention_scaling", "--peak-memory", kind, str(length)]
    completed = subprocess.run(command + ["--bf16"] * bf16, check=True, capture_output=True, text=True)
    return float(completed.stdout)


def _print_table(seconds: dict[int, dict[str, float]], memory: dict[int, dict[str, float]]) -> None:
    table = Table("tokens", *(f"{kind}: ms" for kind in KINDS), *(f"{kind}: MB" for kind in KINDS))
    for length, times in seconds.items():
        megabytes = [f"{memory[length][kind]:,.0f}" if length in memory else "" for kind in KINDS]
        table.add_row(f"{length:,}", *(f"{times[kind] * 1e3:,.0f}" for kind in KINDS), *megabytes)
    Console(width=200).print(table)


def _plot(seconds: dict[int, dict[str, float]], memory: dict[int, dict[str, float]], path: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    panels: Sequence[tuple[str, dict[int, dict[str, float]]]] = (("seconds", seconds), ("MB beyond the inputs", memory))
    for axis, (label, figures) in zip(axes, panels, strict=True):
        for kind in KINDS:
            axis.plot(list(figures), [figures[length][kind] for length in figures], marker="o", label=kind)
        axis.set(xscale="log", yscale="log", xlabel="tokens", ylabel=label, xticks=list(figures))
        axis.set_xticklabels([f"{length // 1_024}k" for length in figures])
        axis.minorticks_off()
    axes[0].legend(frameon=False)
    figure.suptitle("Forward and backward of one layer's attention, 6 heads of 64")
    figure.savefig(path)


if __name__ == "__main__":
    main()
