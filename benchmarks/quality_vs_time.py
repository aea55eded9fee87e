"""Held-out bits per byte after equal wall time: `python -m benchmarks.quality_vs_time [--quick] [--seconds S]`.

The corpus is the demo's: `headrace run configs/demo.yaml --until tokenize` in a store of its own, created at the
first use. Three networks of the demo's size, 4 layers x 128, context 256, on the same tokens, all cores, alternating:

- nanoGPT: its network and step (`benchmarks/common/nanogpt.py`), its recipe for small networks (a cosine to a tenth of
  the rate, beta2 0.99), in fp32, which it uses on a CPU
- nanochat: its network, optimizer and schedules (`benchmarks/common/nanochat.py`), in bf16 if the processor multiplies
  it fast
- Headrace: the demo config's own settings

The peers have the best settings that were found for them at this size (docs/results/training.md): `--nanogpt` and
`--nanochat` change them. Each process trains for the same wall-clock seconds, its schedule following the clock, and is
then measured on the same held-out windows. Warm-up is a share for all, as a fixed number of steps would be the whole of
a short run. Rounds differ in their seed, of the weights and of the order of the data.

bpb_ratio_vs_nanogpt, bpb_ratio_vs_nanochat: ours over theirs, median of the rounds; below 1 is better.
bpb_ratio_vs_best: over the better peer of each round.

`--tokens N` trains all on N tokens in place of a time, for a machine with other work on it; the clock then decides
nothing, and a step's cost is not compared. `--only NAME ...` runs some of the three.

`--try NAME=VALUE ...` changes our recipe; the variants tried are in docs/results/training.md.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.common.nanochat import NanochatSettings
from benchmarks.common.recipes import (
    PEERS,
    NanogptSettings,
    Recipe,
    RecipeName,
    headrace_recipe,
    nanochat_recipe,
    nanogpt_recipe,
    with_overrides,
)
from flows.commands.lineage import find_artifact
from flows.config.run_config import load_run_config
from infra.store.artifacts import Artifact
from infra.workers.ray_session import MALLOC_TUNABLES
from stages.common.token_stream import TokenStream, WindowSampler
from stages.pretrain.config import PretrainConfig

CONFIG = "configs/demo.yaml"
HEADRACE = str(Path(sys.executable).with_name("headrace"))
EVALUATED_ROWS = 512

Results = Mapping[str, float]
"""bits_per_byte, tokens and seconds of a recipe in one round."""


def main() -> None:
    """Alternate the recipes; print the table and the ratios."""
    arguments = _arguments()
    if arguments.recipe:
        print(json.dumps(_train_and_evaluate(arguments)))
        return
    _prepare(arguments.store, arguments.quick)
    rounds = [{name: _run_recipe(name, seed, arguments) for name in arguments.only} for seed in range(arguments.rounds)]
    table = Table("recipe", "bits per byte", "tokens trained on", "tokens/s")
    for name in arguments.only:
        bits_per_byte, tokens, seconds = (
            statistics.median(results[name][metric] for results in rounds)
            for metric in ("bits_per_byte", "tokens", "seconds")
        )
        table.add_row(name, f"{bits_per_byte:.4f}", f"{tokens:,.0f}", f"{tokens / seconds:,.0f}")
    Console().print(table)
    budget = {"tokens": arguments.tokens} if arguments.tokens else {"seconds": arguments.seconds}
    print(json.dumps({**budget, "rounds": arguments.rounds, **summarize(rounds)}))


def summarize(rounds: Sequence[Mapping[str, Results]]) -> dict[str, Any]:
    """Bits per byte of every round, and the medians of our ratios to the peers that ran."""
    values = {name: [results[name]["bits_per_byte"] for results in rounds] for name in rounds[0]}
    summary: dict[str, Any] = {"bits_per_byte": {name: [round(v, 4) for v in values[name]] for name in values}}
    peers = [name for name in PEERS if name in values]
    if "headrace" not in values or not peers:
        return summary
    best = [min(of_round) for of_round in zip(*(values[name] for name in peers), strict=True)]
    for name, theirs in [*((name, values[name]) for name in peers), ("best", best)]:
        ratios = [ours / peer for ours, peer in zip(values["headrace"], theirs, strict=True)]
        summary[f"bpb_ratio_vs_{name}"] = round(statistics.median(ratios), 4)
    return summary


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the corpus, 40 seconds each, one round")
    parser.add_argument("--seconds", type=float, help="of training per recipe (default: 180)")
    parser.add_argument("--tokens", type=int, help="tokens to train each recipe on, in place of a time")
    parser.add_argument("--rounds", type=int, help="runs of each recipe (default: 3)")
    parser.add_argument("--store", help="artifact store of the tokens (default: ./.headrace-quality)")
    names = list(get_args(RecipeName))
    parser.add_argument("--only", nargs="+", choices=names, default=names, help="recipes to run (default: all)")
    parser.add_argument("--try", dest="overrides", nargs="*", default=[], metavar="NAME=VALUE")
    parser.add_argument("--nanogpt", nargs="*", default=[], metavar="NAME=VALUE", help=_fields(NanogptSettings()))
    parser.add_argument("--nanochat", nargs="*", default=[], metavar="NAME=VALUE", help=_fields(NanochatSettings()))
    parser.add_argument("--recipe", choices=names, help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.seconds = arguments.seconds or (40 if arguments.quick else 180)
    arguments.rounds = arguments.rounds or (1 if arguments.quick else 3)
    arguments.store = arguments.store or f"./.headrace-quality{'-quick' if arguments.quick else ''}"
    return arguments


def _fields(settings: NanogptSettings | NanochatSettings) -> str:
    return "any of " + ", ".join(f"{name}={value}" for name, value in vars(settings).items())


def _prepare(store: str, quick: bool) -> None:
    smaller = ["--set", "ingest.max_source_bytes=6000000"] if quick else []
    subprocess.run(
        [HEADRACE, "run", CONFIG, "--until", "tokenize", "--store", store, *smaller],
        check=True,
        stdout=subprocess.DEVNULL,
    )


def _run_recipe(name: str, seed: int, arguments: argparse.Namespace) -> Results:
    command = [sys.executable, "-m", "benchmarks.quality_vs_time", "--recipe", name, "--seed", str(seed)]
    command += ["--store", arguments.store, "--seconds", str(arguments.seconds)]
    command += ["--tokens", str(arguments.tokens)] if arguments.tokens else []
    command += ["--nanogpt", *arguments.nanogpt, "--nanochat", *arguments.nanochat, "--try", *arguments.overrides]
    environment = dict(os.environ)
    if name == "headrace":
        environment["GLIBC_TUNABLES"] = MALLOC_TUNABLES  # as for training workers
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout
    results: dict[str, float] = json.loads(output.splitlines()[-1])
    return results


def _train_and_evaluate(arguments: argparse.Namespace) -> Results:
    tokens = find_artifact(arguments.store, "latest:tokenize")
    overrides = [f"pretrain.{override}" for override in arguments.overrides]
    config = load_run_config(CONFIG, overrides).stage_config("pretrain")
    assert isinstance(config, PretrainConfig)
    torch.manual_seed(arguments.seed)
    match arguments.recipe:
        case "nanogpt":
            recipe = nanogpt_recipe(config, tokens, with_overrides(NanogptSettings(), arguments.nanogpt))
        case "nanochat":
            recipe = nanochat_recipe(config, tokens, with_overrides(NanochatSettings(), arguments.nanochat))
        case _:
            recipe = headrace_recipe(config, tokens)
    start = time.perf_counter()
    trained = _train(recipe, tokens, arguments)
    seconds = time.perf_counter() - start
    return {"bits_per_byte": _bits_per_byte(recipe, tokens), "tokens": trained, "seconds": seconds}


def _train(recipe: Recipe, tokens: Artifact, arguments: argparse.Namespace) -> int:
    """Train for the seconds, or on the tokens, and return the number of tokens; every recipe reads the same rows."""
    sampler = WindowSampler(TokenStream(tokens, "train"), recipe.context_length, arguments.seed)
    sampler.rows(0, 1)
    start, rows = time.perf_counter(), 0

    def progress() -> float:
        if arguments.tokens is not None:
            return rows * recipe.context_length / int(arguments.tokens)
        return (time.perf_counter() - start) / float(arguments.seconds)

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
