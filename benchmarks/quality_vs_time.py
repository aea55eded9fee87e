"""Held-out bits per byte after equal wall time: `python -m benchmarks.quality_vs_time [--quick] [--seconds S]`.

The corpus is the demo's: `headrace run configs/demo.yaml --until tokenize` in a store of the benchmark's own, made at
its first use. Two networks of the demo's size, 4 layers x 128, context 256, on the same tokens, all cores, in turn:

- nanoGPT: its network and step (`benchmarks/common/nanogpt.py`), its recipe for small networks (rate 1e-3 to a tenth by
  a cosine, 100 steps of warm-up, beta2 0.99); `--nanogpt-rate` and `--nanogpt-rows` give it the best that was found
- Headrace: the demo config's own settings

Each process trains for the same wall-clock seconds, its schedule following the clock, and is then measured on the same
held-out windows. bpb_ratio_vs_nanogpt: ours over nanoGPT's, median of the pairs; below 1 is better.

`--try NAME=VALUE ...` changes our recipe instead of comparing: what was tried is in docs/results.md.
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
from modeling.training.schedule import learning_rate_at
from modeling.training.step import training_step
from modeling.transformer import Transformer
from stages.common.token_stream import TokenStream, WindowSampler
from stages.pretrain.config import PretrainConfig
from stages.pretrain.stage import model_config_for

CONFIG = "configs/demo.yaml"
HEADRACE = str(Path(sys.executable).with_name("headrace"))
EVALUATED_ROWS = 512
PROGRESS = 1_000_000
"""Schedules are asked for this many steps: the share of the time that has passed."""


@dataclass(frozen=True)
class Contestant:
    """What the clocked loop needs of a recipe."""

    step: Callable[[list[Tensor], float], None]
    """Takes micro-batches and the share of the time that has passed."""
    loss: Callable[[Tensor], float]
    rows: int
    micro_batch: int
    context_length: int


def main() -> None:
    """Alternate the recipes; print the table and the ratio."""
    arguments = _arguments()
    if arguments.contestant:
        print(json.dumps(_contest(arguments)))
        return
    _prepare(arguments.store, arguments.quick)
    names = ["headrace"] if arguments.tried else ["nanogpt", "headrace"]
    rounds = [{name: _run(name, arguments) for name in names} for _ in range(arguments.rounds)]
    table = Table("recipe", "bits per byte", "tokens trained on", "tokens/s")
    for name in names:
        found = [results[name] for results in rounds]
        figures = [statistics.median(one[figure] for one in found) for figure in ("bits_per_byte", "tokens")]
        table.add_row(name, f"{figures[0]:.4f}", f"{figures[1]:,.0f}", f"{figures[1] / arguments.seconds:,.0f}")
    Console().print(table)
    summary: dict[str, Any] = {"seconds": arguments.seconds, "rounds": arguments.rounds}
    if len(names) == 2:
        ratios = [one["headrace"]["bits_per_byte"] / one["nanogpt"]["bits_per_byte"] for one in rounds]
        summary["bpb_ratio_vs_nanogpt"] = round(statistics.median(ratios), 4)
    else:
        summary["bits_per_byte"] = [round(one["headrace"]["bits_per_byte"], 4) for one in rounds]
    print(json.dumps(summary))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the corpus, 40 seconds each, one round")
    parser.add_argument("--seconds", type=float, help="of training, each (180)")
    parser.add_argument("--rounds", type=int, help="pairs (3)")
    parser.add_argument("--store", help="of the tokens (./.headrace-quality)")
    parser.add_argument("--nanogpt-rate", type=float, default=1e-3)
    parser.add_argument("--nanogpt-rows", type=int, default=64)
    parser.add_argument("--try", dest="tried", nargs="*", default=[], metavar="NAME=VALUE")
    parser.add_argument("--contestant", choices=["nanogpt", "headrace"], help=argparse.SUPPRESS)
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


def _run(name: str, arguments: argparse.Namespace) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.quality_vs_time", "--contestant", name, "--store", arguments.store]
    command += ["--seconds", str(arguments.seconds), "--nanogpt-rate", str(arguments.nanogpt_rate)]
    command += ["--nanogpt-rows", str(arguments.nanogpt_rows), "--try", *arguments.tried]
    environment = dict(os.environ)
    if name == "headrace":
        environment["GLIBC_TUNABLES"] = MALLOC_TUNABLES  # as training workers have it
    found = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
    results: dict[str, float] = json.loads(found.splitlines()[-1])
    return results


def _contest(arguments: argparse.Namespace) -> dict[str, float]:
    tokens = find_artifact(arguments.store, "latest:tokenize")
    overrides = [f"pretrain.{one}" for one in arguments.tried]
    config = load_run_config(CONFIG, overrides).stage_config("pretrain")
    assert isinstance(config, PretrainConfig)
    torch.manual_seed(0)
    build = _nanogpt if arguments.contestant == "nanogpt" else _headrace
    contestant = build(config, tokens, arguments)
    trained = _train(contestant, tokens, arguments.seconds)
    return {"bits_per_byte": _bits_per_byte(contestant, tokens), "tokens": trained}


def _headrace(config: PretrainConfig, tokens: Artifact, arguments: argparse.Namespace) -> Contestant:
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
        rate = learning_rate_at(
            max(1, round(progress * PROGRESS)),
            config.schedule,
            peak=peak,
            floor=peak * config.floor_share,
            warmup_steps=round(config.warmup_share * PROGRESS),
            total_steps=PROGRESS,
        )
        training_step(model, optimizer, batches, rate, config.clip_norm, "fp32", config.z_loss)

    def loss(rows: Tensor) -> float:
        return float(next_token_loss(model.eval(), rows, 0.0).cross_entropy)

    rows = config.batch_tokens // config.model.context_length
    return Contestant(step, loss, rows, min(rows, 2 * config.micro_batch), config.model.context_length)


def _nanogpt(config: PretrainConfig, tokens: Artifact, arguments: argparse.Namespace) -> Contestant:
    shape, vocabulary = config.model, model_config_for(config, tokens).vocabulary_size
    model = NanoGPT(NanoShape(shape.layers, shape.width, shape.heads, shape.context_length, vocabulary))
    optimizer = build_nanogpt_optimizer(model)
    for group in optimizer.param_groups:
        group["betas"] = (0.9, 0.99)
    taken = 0

    def step(batches: list[Tensor], progress: float) -> None:
        nonlocal taken
        taken += 1
        cosine = 0.5 * (1 + math.cos(math.pi * progress))
        for group in optimizer.param_groups:
            group["lr"] = arguments.nanogpt_rate * min(taken / 100, 0.1 + 0.9 * cosine)
        train_step(model, optimizer, batches[0])

    def loss(rows: Tensor) -> float:
        return float(model(rows[:, :-1], rows[:, 1:]))

    return Contestant(step, loss, arguments.nanogpt_rows, arguments.nanogpt_rows, shape.context_length)


def _train(contestant: Contestant, tokens: Artifact, seconds: float) -> int:
    """Tokens trained on; the data are the same rows in the same order for all."""
    sampler = WindowSampler(TokenStream(tokens, "train"), contestant.context_length, 0)
    sampler.rows(0, 1)
    begun, rows = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - begun) < seconds:
        contestant.step(list(_batches(sampler, rows, contestant)), elapsed / seconds)
        rows += contestant.rows
    return rows * contestant.context_length


def _batches(sampler: WindowSampler, first: int, contestant: Contestant) -> Iterator[Tensor]:
    for start in range(first, first + contestant.rows, contestant.micro_batch):
        yield torch.from_numpy(sampler.rows(start, contestant.micro_batch))


@torch.no_grad()
def _bits_per_byte(contestant: Contestant, tokens: Artifact) -> float:
    """On evenly spread windows of the held-out tokens; bytes a token by the whole split's counts."""
    stream = TokenStream(tokens, "held_out")
    width = contestant.context_length + 1
    starts = np.linspace(0, len(stream) - width, min(EVALUATED_ROWS, len(stream) // width)).astype(int)
    losses = [
        contestant.loss(torch.from_numpy(np.stack([stream.slice(start, start + width) for start in piece])))
        for piece in np.array_split(starts, max(1, len(starts) // 16))
    ]
    counts = tokens.manifest.counts
    return statistics.fmean(losses) / math.log(2) * counts["held_out_tokens"] / counts["held_out_bytes"]


if __name__ == "__main__":
    main()
