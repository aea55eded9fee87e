"""The training step against nanoGPT's: `python -m benchmarks.train_throughput [--quick] [--precision bf16|fp32]`.

Two shapes, the demo's and GPT-2's 124M (12 layers x 768, context 1,024, vocabulary 50,304), random tokens, all cores,
alternating: ours (ReLU, biases, rotary positions, tiled cross-entropy, fused AdamW, the allocator setting of training
workers) and nanoGPT's step re-implemented (`benchmarks/common/nanogpt.py`) in a process of its own, in fp32, which
nanoGPT uses on a CPU. Both have the same matrix products.

- vs_nanogpt, vs_nanogpt_demo: our tokens per second over nanoGPT's, median of the rounds' ratios
- of_weighted_ceiling, of_weighted_ceiling_demo: seconds of the step's matrix products alone, each shape
  measured by itself in the same precision, over the seconds of the step, median of the rounds' ratios. The products
  are measured right before and right after the step of their round (their mean counts); a step that was faster still,
  as other work on the machine came and went, is itself the ceiling of its round: its ratio is 1
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
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


OURS, PEER, CEILING = "Headrace", "nanoGPT fp32", "matrix products only"
Round = dict[str, float]
"""Step -> its seconds in one round."""
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
        "124M": Case(short, 1, 3) if arguments.quick else Case(GPT2_124M, 1, 5),
    }
    table = Table("shape", "step", "ms", "tokens/s", "GFLOP/s")
    ratios: dict[str, float] = {}
    for name, case in cases.items():
        rounds = _alternate(case, arguments.precision)
        seconds = {step: statistics.median(times[step] for times in rounds) for step in rounds[0]}
        flops = 3 * flops_per_token(case.config, case.config.context_length) * case.tokens
        for step, step_seconds in seconds.items():
            columns = (
                f"{step_seconds * 1e3:,.0f}",
                f"{case.tokens / step_seconds:,.0f}",
                f"{flops / step_seconds / 1e9:,.0f}",
            )
            table.add_row(name, step, *columns)
        suffix = "" if name == "124M" else f"_{name}"
        ratios[f"vs_nanogpt{suffix}"] = round(median_ratio(rounds, PEER, OURS), 3)
        ratios[f"of_weighted_ceiling{suffix}"] = round(ceiling_share(rounds), 3)
    Console().print(table)
    print(json.dumps({"precision": arguments.precision, **ratios}))


def _restart_with_allocator_setting() -> None:
    """Restart with the environment of training workers: the C library reads the setting at process start."""
    if "GLIBC_TUNABLES" not in os.environ:
        environment = {**os.environ, "GLIBC_TUNABLES": MALLOC_TUNABLES}
        os.execve(sys.executable, [sys.executable, "-m", "benchmarks.train_throughput", *sys.argv[1:]], environment)


def _alternate(case: Case, precision: Precision) -> list[Round]:
    environment = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    with subprocess.Popen(
        command(case.rows, _nano_shape(case.config)),
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as peer:
        ours, products = _timed(_our_step(case, precision)), _timed(_products(case, precision))

        def measured_round() -> Round:
            before = products()
            step = ours()
            return {OURS: step, CEILING: (before + products()) / 2, PEER: _peer_seconds(peer)}

        rounds = [measured_round() for _ in range(case.rounds + 1)][1:]
        assert peer.stdin is not None
        peer.stdin.close()
    return rounds


def median_ratio(rounds: Sequence[Round], numerator: str, denominator: str) -> float:
    """Median over the rounds of one step's seconds over another's."""
    return statistics.median(seconds[numerator] / seconds[denominator] for seconds in rounds)


def ceiling_share(rounds: Sequence[Round]) -> float:
    """Share of the ceiling that our step reaches, up to 1: a step faster than the products is the ceiling itself."""
    return statistics.median(min(1.0, seconds[CEILING] / seconds[OURS]) for seconds in rounds)


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
