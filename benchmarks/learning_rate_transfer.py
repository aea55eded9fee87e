"""Best learning rate of growing networks: `python -m benchmarks.learning_rate_transfer [--quick] [--over depth]`.

Byte-level networks of several widths (or depths) are trained on Python's own documentation at each learning rate of a
grid, in the standard parametrization and in muP with the smallest network as the base (muP, 2203.03466; CompleteP,
2505.01618). The table shows the loss on held-out text after the last step, in nats per byte.

- standard_best_rate_shift, mup_best_rate_shift: log2 of the best rate of the largest network over that of the
  smallest; 0 means that the rate transfers. Best is the minimum of the parabola through the three best neighbors.
- standard_loss_at_base_rate, mup_loss_at_base_rate: loss of the largest network at the best rate of the smallest,
  minus its lowest loss in the table over both parametrizations
"""

import argparse
import json
import math
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pydoc_data.topics import topics

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from data_schemas.errors import TrainingDivergedError
from modeling.evaluation.bits_per_byte import token_losses
from modeling.training.optimizer import build_adamw
from modeling.training.schedule import cosine_with_warmup
from modeling.training.step import training_step
from modeling.transformer import Transformer
from modeling.transformer_config import TransformerConfig

CONTEXT, ROWS, HELD_OUT_ROWS = 64, 8, 128
HEAD_WIDTH = 16
INITIALIZER_STD = 0.1
"""Tuned on the base network, like the learning rate. Held-out loss at width 32 and the best rate: 2.37 with the usual
0.02, 2.12 with 0.05 and 0.1, 2.19 with 0.2. muP does not make up for it at larger widths: at width 128, 2.29 with 0.02
and 1.97 with 0.1."""
WARMUP_SHARE, FLOOR_SHARE = 0.1, 0.1
PARAMETRIZATIONS = ("standard", "mup")


@dataclass(frozen=True)
class Plan:
    """Grid of training runs."""

    scales: tuple[int, ...]
    """Widths, or numbers of layers; the first is the smallest and the base."""
    log_rates: tuple[int, ...]
    """Learning rates as powers of two."""
    steps: int
    seeds: int


@dataclass(frozen=True)
class Job:
    """One training run."""

    config: TransformerConfig
    rate: float
    steps: int
    seed: int


QUICK = {
    "width": Plan(scales=(32, 64, 128), log_rates=tuple(range(-9, -2)), steps=120, seeds=1),
    "depth": Plan(scales=(2, 4, 8), log_rates=tuple(range(-9, -2)), steps=120, seeds=1),
}
FULL = {
    "width": Plan(scales=(32, 64, 128, 256), log_rates=tuple(range(-10, -2)), steps=200, seeds=2),
    "depth": Plan(scales=(2, 4, 8, 16), log_rates=tuple(range(-10, -2)), steps=200, seeds=2),
}


def network_config(over: str, scale: int, base: int | None) -> TransformerConfig:
    """A network of this width and 2 layers, or of this depth and width 32; heads keep their width."""
    width, layers = (scale, 2) if over == "width" else (32, scale)
    return TransformerConfig(
        layers=layers,
        width=width,
        heads=width // HEAD_WIDTH,
        context_length=CONTEXT,
        vocabulary_size=256,
        initializer_std=INITIALIZER_STD,
        base_width=base if over == "width" else None,
        base_layers=base if over == "depth" else None,
    )


def documentation() -> tuple[Tensor, Tensor]:
    """Bytes of the texts of Python's `help()`, int64: nine tenths to train on, the last tenth held out."""
    text = "".join(topics[name] for name in sorted(topics)).encode()
    tokens = torch.frombuffer(bytearray(text), dtype=torch.uint8).long()
    split = len(tokens) * 9 // 10
    return tokens[:split], tokens[split:]


def windows(tokens: Tensor, rows: int, generator: torch.Generator) -> Tensor:
    """(rows, CONTEXT + 1) at random offsets."""
    starts = torch.randint(len(tokens) - CONTEXT, (rows,), generator=generator)
    return torch.stack([tokens[start : start + CONTEXT + 1] for start in starts.tolist()])


def final_loss(job: Job) -> float:
    """Held-out loss after training, infinite if training diverges; on one thread, for the same bits on any machine."""
    torch.set_num_threads(1)
    train, held_out = documentation()
    torch.manual_seed(job.seed)
    model = Transformer(job.config)
    optimizer = build_adamw(model, job.rate, (0.9, 0.95), weight_decay=0.1)
    generator = torch.Generator().manual_seed(job.seed)
    for step in range(1, job.steps + 1):
        rate = cosine_with_warmup(step, job.rate, FLOOR_SHARE * job.rate, int(WARMUP_SHARE * job.steps), job.steps)
        try:
            training_step(model, optimizer, [windows(train, ROWS, generator)], rate, clip_norm=1.0, precision="fp32")
        except TrainingDivergedError:
            return math.inf
    fixed = windows(held_out, HELD_OUT_ROWS, torch.Generator().manual_seed(0))
    return float(token_losses(model.eval(), fixed).mean())


def measured_losses(over: str, plan: Plan) -> dict[tuple[str, int], list[float]]:
    """(parametrization, scale) -> mean loss over the seeds at each rate; both share the smallest network's runs."""
    configs = {
        (parametrization, scale): network_config(over, scale, plan.scales[0] if parametrization == "mup" else None)
        for parametrization in PARAMETRIZATIONS
        for scale in plan.scales
        if (parametrization, scale) != ("mup", plan.scales[0])
    }
    # The longest runs first, so that the processes finish at about the same time.
    jobs = [
        Job(config, 2.0**log_rate, plan.steps, seed)
        for config in sorted(configs.values(), key=lambda config: (config.width, config.layers), reverse=True)
        for log_rate in plan.log_rates
        for seed in range(plan.seeds)
    ]
    with ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("spawn")) as pool:
        losses = dict(zip(jobs, pool.map(final_loss, jobs), strict=True))
    means = {
        key: [
            sum(losses[Job(config, 2.0**log_rate, plan.steps, seed)] for seed in range(plan.seeds)) / plan.seeds
            for log_rate in plan.log_rates
        ]
        for key, config in configs.items()
    }
    return means | {("mup", plan.scales[0]): means["standard", plan.scales[0]]}


def parabola_minimum(log_rates: tuple[int, ...], losses: list[float]) -> tuple[float, float]:
    """(log2 of the rate, loss) at the minimum of the parabola through the best rate and its two neighbors.

    At an edge of the grid, or next to a run that diverged, the best rate of the grid itself.
    """
    best = losses.index(min(losses))
    if best in (0, len(losses) - 1) or math.isinf(losses[best - 1]) or math.isinf(losses[best + 1]):
        return float(log_rates[best]), losses[best]
    left, middle, right = losses[best - 1 : best + 2]
    curvature, slope = left - 2 * middle + right, (right - left) / 2
    return log_rates[best] - slope / curvature, middle - slope**2 / (2 * curvature)


def loss_at(log_rate: float, log_rates: tuple[int, ...], losses: list[float]) -> float:
    """Loss at any rate, by linear interpolation between the rates of the grid."""
    position = min(max(log_rate - log_rates[0], 0.0), len(losses) - 1.0)
    lower = min(int(position), len(losses) - 2)
    return losses[lower] + (position - lower) * (losses[lower + 1] - losses[lower])


def print_table(over: str, plan: Plan, losses: dict[tuple[str, int], list[float]]) -> None:
    """Print one row per network."""
    table = Table(title=f"Held-out loss, nats per byte, after {plan.steps} steps ({plan.seeds} seeds)")
    for heading in ("parametrization", over, *(f"2^{log_rate}" for log_rate in plan.log_rates), "best rate"):
        table.add_column(heading, justify="right")
    for parametrization in PARAMETRIZATIONS:
        for scale in plan.scales:
            row = losses[parametrization, scale]
            best, _ = parabola_minimum(plan.log_rates, row)
            table.add_row(parametrization, str(scale), *(f"{loss:.3f}" for loss in row), f"2^{best:.2f}")
        table.add_section()
    Console(width=140).print(table)


def summary(plan: Plan, losses: dict[tuple[str, int], list[float]]) -> dict[str, float]:
    """Metrics listed in the module's docstring."""
    metrics = {}
    lowest = min(min(losses[parametrization, plan.scales[-1]]) for parametrization in PARAMETRIZATIONS)
    for parametrization in PARAMETRIZATIONS:
        smallest, largest = (losses[parametrization, scale] for scale in (plan.scales[0], plan.scales[-1]))
        base_rate, _ = parabola_minimum(plan.log_rates, smallest)
        best_rate, _ = parabola_minimum(plan.log_rates, largest)
        metrics[f"{parametrization}_best_rate_shift"] = round(best_rate - base_rate, 2)
        metrics[f"{parametrization}_loss_at_base_rate"] = round(loss_at(base_rate, plan.log_rates, largest) - lowest, 4)
    return metrics


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="best learning rate of growing networks, with and without muP")
    parser.add_argument("--quick", action="store_true", help="smaller networks, fewer steps, one seed")
    parser.add_argument("--over", choices=("width", "depth"), default="width", help="dimension that grows")
    arguments = parser.parse_args()
    plan = (QUICK if arguments.quick else FULL)[arguments.over]
    losses = measured_losses(arguments.over, plan)
    print_table(arguments.over, plan, losses)
    print(json.dumps(summary(plan, losses)))


if __name__ == "__main__":
    main()
