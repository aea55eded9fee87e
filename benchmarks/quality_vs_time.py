"""Held-out bits per byte after equal wall time: `python -m benchmarks.quality_vs_time [--quick] [--seconds S]`.

The corpus is the demo's: `headrace run configs/demo.yaml --until tokenize` in a store of its own, created at the
first use. Two networks of the demo's size, 4 layers x 128, context 256, on the same tokens, all cores, alternating:

- nanoGPT: its network and step (`benchmarks/common/nanogpt.py`), its recipe for small networks (a cosine to a tenth of
  the rate, beta2 0.99) with the best rate, batch and warm-up that were found for it (docs/results/training.md): 3e-3,
  8 rows, half of the time; `--nanogpt-rate`, `--nanogpt-rows` and `--nanogpt-warmup` change them
- Headrace: the demo config's own settings

Each process trains for the same wall-clock seconds, its schedule following the clock, and is then measured on the same
held-out windows. Warm-up is a share for both, as a fixed number of steps would be the whole of a short run.
bpb_ratio_vs_nanogpt: ours over nanoGPT's, median of the pairs; below 1 is better.

`--tokens N` trains both on N tokens in place of a time, for a machine with other work on it; the clock then decides
nothing, and a step's cost is not compared.

`--try NAME=VALUE ...` changes our recipe and skips the comparison; the variants tried are in docs/results.md.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.common.nanogpt import NanoGPT, NanoShape, train_step
from benchmarks.common.nanogpt import build_optimizer as build_nanogpt_optimizer
from flows.commands.lineage import find_artifact
from flows.run_config import load_run_config
from infra.store.artifacts import Artifact
from infra.workers.ray_session import MALLOC_TUNABLES
from modeling.loss.cross_entropy import next_token_loss
from modeling.training.optimizer import build_optimizer
from modeling.training.schedule import ScheduleKind, learning_rate_at
from modeling.training.step import training_step
from modeling.transformer import Transformer
from stages.common.token_stream import TokenStream, WindowSampler
from stages.pretrain.config import PretrainConfig
from stages.pretrain.stage import model_config_for

CONFIG = "configs/demo.yaml"
HEADRACE = str(Path(sys.executable).with_name("headrace"))
EVALUATED_ROWS = 512
SCHEDULE_STEPS = 1_000_000
"""Length of the learning-rate schedules, which follow the share of time elapsed."""


@dataclass(frozen=True)
class Recipe:
    """A network and its training step, as the timed loop uses them."""

    step: Callable[[list[Tensor], float], None]
    """Takes micro-batches and the share of time elapsed."""
    loss: Callable[[Tensor], float]
    rows: int
    micro_batch: int
    context_length: int


def main() -> None:
    """Alternate the recipes; print the table and the ratio."""
    arguments = _arguments()
    if arguments.recipe:
        print(json.dumps(_train_and_evaluate(arguments)))
        return
    _prepare(arguments.store, arguments.quick)
    names = ["headrace"] if arguments.overrides else ["nanogpt", "headrace"]
    rounds = [{name: _run_recipe(name, arguments) for name in names} for _ in range(arguments.rounds)]
    table = Table("recipe", "bits per byte", "tokens trained on", "tokens/s")
    for name in names:
        bits_per_byte, tokens, seconds = (
            statistics.median(results[name][metric] for results in rounds)
            for metric in ("bits_per_byte", "tokens", "seconds")
        )
        table.add_row(name, f"{bits_per_byte:.4f}", f"{tokens:,.0f}", f"{tokens / seconds:,.0f}")
    Console().print(table)
    budget = {"tokens": arguments.tokens} if arguments.tokens else {"seconds": arguments.seconds}
    summary: dict[str, Any] = {**budget, "rounds": arguments.rounds}
    if len(names) == 2:
        ratios = [results["headrace"]["bits_per_byte"] / results["nanogpt"]["bits_per_byte"] for results in rounds]
        summary["bpb_ratio_vs_nanogpt"] = round(statistics.median(ratios), 4)
    else:
        summary["bits_per_byte"] = [round(results["headrace"]["bits_per_byte"], 4) for results in rounds]
    print(json.dumps(summary))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the corpus, 40 seconds each, one round")
    parser.add_argument("--seconds", type=float, help="of training per recipe (default: 180)")
    parser.add_argument("--tokens", type=int, help="tokens to train each recipe on, in place of a time")
    parser.add_argument("--rounds", type=int, help="pairs of runs (default: 3)")
    parser.add_argument("--store", help="artifact store of the tokens (default: ./.headrace-quality)")
    parser.add_argument("--nanogpt-rate", type=float, default=3e-3)
    parser.add_argument("--nanogpt-rows", type=int, default=8)
    parser.add_argument("--nanogpt-warmup", type=float, default=0.5, help="share of warm-up (default: 0.5)")
    parser.add_argument("--try", dest="overrides", nargs="*", default=[], metavar="NAME=VALUE")
    parser.add_argument("--recipe", choices=["nanogpt", "headrace"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.seconds = arguments.seconds or (40 if arguments.quick else 180)
    arguments.rounds = arguments.rounds or (1 if arguments.quick else 3)
    arguments.store = arguments.store or f"./.headrace-quality{'-quick' if arguments.quick else ''}"
    return arguments


def _prepare(store: str, quick: bool) -> None:
    smaller = ["--set", "ingest.max_source_bytes=6000000"] if quick else []
    subprocess.run(
        [HEADRACE, "run", CONFIG, "--until", "tokenize", "--store", store, *smaller],
        check=True,
        stdout=subprocess.DEVNULL,
    )


def _run_recipe(name: str, arguments: argparse.Namespace) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.quality_vs_time", "--recipe", name, "--store", arguments.store]
    command += ["--tokens", str(arguments.tokens)] if arguments.tokens else []
    command += ["--seconds", str(arguments.seconds), "--nanogpt-rate", str(arguments.nanogpt_rate)]
    command += ["--nanogpt-rows", str(arguments.nanogpt_rows), "--nanogpt-warmup", str(arguments.nanogpt_warmup)]
    command += ["--try", *arguments.overrides]
    environment = dict(os.environ)
    if name == "headrace":
        environment["GLIBC_TUNABLES"] = MALLOC_TUNABLES  # as for training workers
    output = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
    results: dict[str, float] = json.loads(output.splitlines()[-1])
    return results


def _train_and_evaluate(arguments: argparse.Namespace) -> dict[str, float]:
    tokens = find_artifact(arguments.store, "latest:tokenize")
    overrides = [f"pretrain.{override}" for override in arguments.overrides]
    config = load_run_config(CONFIG, overrides).stage_config("pretrain")
    assert isinstance(config, PretrainConfig)
    torch.manual_seed(0)
    build = _nanogpt if arguments.recipe == "nanogpt" else _headrace
    recipe = build(config, tokens, arguments)
    start = time.perf_counter()
    trained = _train(recipe, tokens, arguments.seconds, arguments.tokens)
    seconds = time.perf_counter() - start
    return {"bits_per_byte": _bits_per_byte(recipe, tokens), "tokens": trained, "seconds": seconds}


def _headrace(config: PretrainConfig, tokens: Artifact, arguments: argparse.Namespace) -> Recipe:
    model = Transformer(model_config_for(config, tokens)).train()
    optimizer = build_optimizer(
        model,
        config.optimizer,
        config.peak_learning_rate,
        (config.beta1, config.beta2),
        config.weight_decay,
        config.momentum,
    )

    def step(batches: list[Tensor], progress: float) -> None:
        peak = config.peak_learning_rate
        rate = _rate(progress, config.schedule, peak, peak * config.floor_share, config.warmup_share)
        training_step(model, optimizer, batches, rate, config.clip_norm, "fp32", config.z_loss)

    def loss(rows: Tensor) -> float:
        return float(next_token_loss(model.eval(), rows, 0.0).cross_entropy)

    rows = config.batch_tokens // config.model.context_length
    return Recipe(step, loss, rows, min(rows, 2 * config.micro_batch), config.model.context_length)


def _rate(progress: float, schedule: ScheduleKind, peak: float, floor: float, warmup_share: float) -> float:
    """Learning rate at a share of the time, of which `warmup_share` is warm-up."""
    step, warmup_steps = max(1, round(progress * SCHEDULE_STEPS)), round(warmup_share * SCHEDULE_STEPS)
    return learning_rate_at(step, schedule, peak, floor, warmup_steps, total_steps=SCHEDULE_STEPS)


def _nanogpt(config: PretrainConfig, tokens: Artifact, arguments: argparse.Namespace) -> Recipe:
    shape, vocabulary = config.model, model_config_for(config, tokens).vocabulary_size
    model = NanoGPT(NanoShape(shape.layers, shape.width, shape.heads, shape.context_length, vocabulary))
    optimizer = build_nanogpt_optimizer(model)
    for group in optimizer.param_groups:
        group["betas"] = (0.9, 0.99)

    def step(batches: list[Tensor], progress: float) -> None:
        peak = arguments.nanogpt_rate
        rate = _rate(progress, "cosine", peak, 0.1 * peak, arguments.nanogpt_warmup)
        for group in optimizer.param_groups:
            group["lr"] = rate
        train_step(model, optimizer, batches[0])

    def loss(rows: Tensor) -> float:
        return float(model(rows[:, :-1], rows[:, 1:]))

    return Recipe(step, loss, arguments.nanogpt_rows, arguments.nanogpt_rows, shape.context_length)


def _train(recipe: Recipe, tokens: Artifact, seconds: float, most_tokens: int | None) -> int:
    """Train for `seconds`, or on `most_tokens`, and return the number of tokens; every recipe reads the same rows."""
    sampler = WindowSampler(TokenStream(tokens, "train"), recipe.context_length, 0)
    sampler.rows(0, 1)
    start, rows = time.perf_counter(), 0

    def progress() -> float:
        if most_tokens is not None:
            return rows * recipe.context_length / most_tokens
        return (time.perf_counter() - start) / seconds

    while (share := progress()) < 1:
        recipe.step(list(_batches(sampler, rows, recipe)), share)
        rows += recipe.rows
    return rows * recipe.context_length


def _batches(sampler: WindowSampler, first: int, recipe: Recipe) -> Iterator[Tensor]:
    for start in range(first, first + recipe.rows, recipe.micro_batch):
        yield torch.from_numpy(sampler.rows(start, recipe.micro_batch))


@torch.no_grad()
def _bits_per_byte(recipe: Recipe, tokens: Artifact) -> float:
    """Bits per byte of evenly spaced held-out windows; bytes per token are those of the whole split."""
    stream = TokenStream(tokens, "held_out")
    width = recipe.context_length + 1
    starts = np.linspace(0, len(stream) - width, min(EVALUATED_ROWS, len(stream) // width)).astype(int)
    losses = [
        recipe.loss(torch.from_numpy(np.stack([stream.slice(start, start + width) for start in chunk])))
        for chunk in np.array_split(starts, max(1, len(starts) // 16))
    ]
    counts = tokens.manifest.counts
    return statistics.fmean(losses) / math.log(2) * counts["held_out_tokens"] / counts["held_out_bytes"]


if __name__ == "__main__":
    main()
