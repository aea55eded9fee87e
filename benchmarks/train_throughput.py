"""The training step against nanoGPT's: `python -m benchmarks.train_throughput [--quick] [--precision bf16|fp32]`.

Two shapes, the demo's and GPT-2's 124M (12 layers x 768, context 1,024, vocabulary 50,304), random tokens, all cores,
alternating: ours (ReLU, biases, rotary positions, tiled cross-entropy, fused AdamW, the allocator setting of training
workers) and nanoGPT's step re-implemented (`benchmarks/common/nanogpt.py`) in a process of its own, in fp32, which
nanoGPT uses on a CPU. Both have the same matrix products.

- vs_nanogpt, vs_nanogpt_demo: our tokens per second over nanoGPT's, medians of pairs
- of_weighted_ceiling, of_weighted_ceiling_demo: seconds of the step's matrix products alone, each shape
  measured by itself in the same precision, over the seconds of the step
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.common.nanogpt import NanoShape, command
from infra.hardware import has_fast_bf16
from infra.workers.ray_session import MALLOC_TUNABLES
from modeling.evaluation.config_counts import flops_per_token
from modeling.training.kinds import Precision
from modeling.training.optimizer import build_adamw
from modeling.training.step import training_step
from modeling.transformer import Transformer
from modeling.transformer_config import TransformerConfig


@dataclass(frozen=True)
class Case:
    """Network shape and batch of a training step."""

    config: TransformerConfig
    rows: int
    rounds: int

    @property
    def tokens(self) -> int:
        """Tokens per step."""
        return self.rows * self.config.context_length


DEMO = TransformerConfig(layers=4, width=128, heads=4, context_length=256, vocabulary_size=4_096)
GPT2_124M = TransformerConfig(layers=12, width=768, heads=12, context_length=1_024, vocabulary_size=50_304)


def main() -> None:
    """Alternate the steps; print the table and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer rounds, 512 tokens of the 124M shape")
    parser.add_argument("--precision", choices=["bf16", "fp32"], default="bf16" if has_fast_bf16() else "fp32")
    arguments = parser.parse_args()
    _restart_with_allocator_setting()
    short = GPT2_124M.model_copy(update={"context_length": 512})
    cases = {
        "demo": Case(DEMO, rows=16, rounds=5 if arguments.quick else 15),
        "124M": Case(short, 1, 2) if arguments.quick else Case(GPT2_124M, 1, 5),
    }
    table = Table("shape", "step", "ms", "tokens/s", "GFLOP/s")
    ratios: dict[str, float] = {}
    for name, case in cases.items():
        seconds = _alternate(case, arguments.precision)
        flops = 3 * flops_per_token(case.config, case.config.context_length) * case.tokens
        for step, step_seconds in seconds.items():
            columns = (
                f"{step_seconds * 1e3:,.0f}",
                f"{case.tokens / step_seconds:,.0f}",
                f"{flops / step_seconds / 1e9:,.0f}",
            )
            table.add_row(name, step, *columns)
        suffix = "" if name == "124M" else f"_{name}"
        ratios[f"vs_nanogpt{suffix}"] = round(seconds["nanoGPT fp32"] / seconds["Headrace"], 3)
        ratios[f"of_weighted_ceiling{suffix}"] = round(seconds["matrix products only"] / seconds["Headrace"], 3)
    Console().print(table)
    print(json.dumps({"precision": arguments.precision, **ratios}))


def _restart_with_allocator_setting() -> None:
    """Restart with the environment of training workers: the C library reads the setting at process start."""
    if "GLIBC_TUNABLES" not in os.environ:
        environment = {**os.environ, "GLIBC_TUNABLES": MALLOC_TUNABLES}
        os.execve(sys.executable, [sys.executable, "-m", "benchmarks.train_throughput", *sys.argv[1:]], environment)


def _alternate(case: Case, precision: Precision) -> dict[str, float]:
    environment = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    with subprocess.Popen(
        command(case.rows, _nano_shape(case.config)),
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as peer:
        steps = {
            "Headrace": _timed(_our_step(case, precision)),
            "nanoGPT fp32": lambda: _peer_seconds(peer),
            "matrix products only": _timed(_products(case, precision)),
        }
        rounds = [{name: step() for name, step in steps.items()} for _ in range(case.rounds + 1)][1:]
        assert peer.stdin is not None
        peer.stdin.close()
    return {name: statistics.median(seconds[name] for seconds in rounds) for name in steps}


def _timed(step: Callable[[], object]) -> Callable[[], float]:
    def seconds() -> float:
        start = time.perf_counter()
        step()
        return time.perf_counter() - start

    return seconds


def _peer_seconds(peer: "subprocess.Popen[str]") -> float:
    assert peer.stdin is not None and peer.stdout is not None
    peer.stdin.write("step\n")
    peer.stdin.flush()
    return float(peer.stdout.readline())


def _our_step(case: Case, precision: Precision) -> Callable[[], object]:
    torch.manual_seed(0)
    model = Transformer(case.config).train()
    optimizer = build_adamw(model, 6e-4, (0.9, 0.95), 0.1)
    batch = torch.randint(case.config.vocabulary_size, (case.rows, case.config.context_length + 1))
    return lambda: training_step(model, optimizer, [batch], 6e-4, 1.0, precision)


def _nano_shape(config: TransformerConfig) -> NanoShape:
    return NanoShape(config.layers, config.width, config.heads, config.context_length, config.vocabulary_size)


def _products(case: Case, precision: Precision) -> Callable[[], object]:
    """All matrix products of a step, forward and both of the backward pass, without anything else."""
    config, tokens = case.config, case.tokens
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    per_layer = [
        (config.width, 3 * config.width),
        (config.width, config.width),
        (config.width, config.feed_forward_width),
        (config.feed_forward_width, config.width),
    ]
    inputs = {width: torch.randn(tokens, width, dtype=dtype) for width in (config.width, config.feed_forward_width)}
    inputs |= {3 * config.width: torch.randn(tokens, 3 * config.width, dtype=dtype)}
    weights = {shape: torch.randn(shape[1], shape[0], dtype=dtype) for shape in per_layer}
    rows = min(tokens, 512)
    head, head_inputs = torch.randn(config.vocabulary_size, config.width, dtype=dtype), inputs[config.width][:rows]
    logits = torch.randn(rows, config.vocabulary_size, dtype=dtype)
    heads = torch.randn(case.rows * config.heads, config.context_length, config.head_width, dtype=dtype)
    scores = torch.randn(case.rows * config.heads, config.context_length, config.context_length, dtype=dtype)

    def run() -> None:
        for _ in range(config.layers):
            for narrow, wide in per_layer:
                weight = weights[narrow, wide]
                inputs[narrow] @ weight.T
                inputs[wide] @ weight
                inputs[wide].T @ inputs[narrow]
            # Half of the scores: the causal kernel skips the other half.
            half = config.context_length // 2
            for _ in range(3):
                heads @ heads[:, :half].mT
                scores[..., :half] @ heads[:, :half]
        for _ in range(tokens // rows):
            head_inputs @ head.T
            logits @ head
            logits.T @ head_inputs

    return run


if __name__ == "__main__":
    main()
