"""Grids of runs without training: experiments, configs and figures that follow a known law."""

import functools
from types import SimpleNamespace

import numpy as np

from flows.commands.scaling import ScalingResult
from flows.config.experiments import Cell, Experiment, cells, configs
from flows.config.run_config import apply_overrides, build_run_config
from flows.scaling.fit import ScaledRun, ScalingFit
from flows.scaling.runs import fit_runs
from infra.planner.scaling_law import ScalingLaw, effective_tokens
from modeling.evaluation.config_counts import active_parameters, flops_per_token
from modeling.transformer_config import TransformerConfig
from tests.flows.mini import mini_values

LAW = ScalingLaw(1.0, 0.6 * 3e4**0.3, 0.8 * 3e5**0.45, 0.3, 0.45)
UNIQUE = 10_000_000
SIZES = {"1 x 16": (1, 16), "1 x 32": (1, 32), "2 x 48": (2, 48), "2 x 64": (2, 64), "3 x 96": (3, 96)}
TOKENS = (102_400, 204_800, 409_600, 819_200)
VALUES = {
    "settings": [
        "pretrain.model={layers: 1, width: 16, heads: 1, context_length: 32, base_width: 16}",
        "compress.passes=[]", "benchmark.tasks=[]",
    ],
    "seeds": [0],
    "conditions": {f"{tokens} tokens": [f"pretrain.tokens={tokens}"] for tokens in TOKENS},
    "variants": {
        name: [f"pretrain.model.{field}={value}" for field, value in
               (("layers", layers), ("width", width), ("heads", width // 16))]
        for name, (layers, width) in SIZES.items()
    },
    "scaling": {"resamples": 40},
}  # fmt: skip


def experiment(**changes) -> Experiment:
    return Experiment.model_validate(VALUES | changes)


def base_config(*overrides):
    return build_run_config(apply_overrides(mini_values("/none/*.jsonl.gz"), overrides), "mini")


def grid_configs(grid: Experiment):
    base = base_config()
    return {cell: list(configs(base, grid, cell)) for cell in cells(grid)}


def run_of(cell: Cell, seed: int, config, law: ScalingLaw = LAW, noise=0.0, unique=UNIQUE) -> ScaledRun:
    """A run as if it had followed the law."""
    training = config.stage_config("pretrain")
    vocabulary = config.stage_config("tokenize").vocabulary_size
    network = TransformerConfig(**training.model.model_dump(), vocabulary_size=vocabulary)
    parameters = active_parameters(network)
    return ScaledRun(
        variant=cell.variant, condition=cell.condition, seed=seed, run_id=f"run-{cell.label}", parameters=parameters,
        tokens=training.tokens, flops=3 * flops_per_token(network, network.context_length) * training.tokens,
        bits_per_byte=float(law.loss(parameters, effective_tokens(training.tokens, unique))) * np.exp(noise),
        learning_rate=training.peak_learning_rate, batch_tokens=training.batch_tokens,
        model=training.model.model_dump(mode="json"),
    )  # fmt: skip


@functools.cache
def usual_fit() -> ScalingFit:
    """The fit with a scatter of 0.3 per cent; it is frozen, and takes a second."""
    return made_fit()[0]


@functools.cache
def exact_fit() -> ScalingFit:
    """The fit without scatter."""
    return made_fit(noise=0)[0]


def made_fit(noise=0.003, unique=UNIQUE, law=LAW, **changes) -> tuple[ScalingFit, Experiment]:
    """A fit to a grid of simulated runs."""
    grid = experiment(**changes)
    scatter = np.random.default_rng(0)
    runs = [
        run_of(cell, seed, config, law, noise * scatter.standard_normal(), unique)
        for cell, rows in grid_configs(grid).items() for seed, config in rows
    ]  # fmt: skip
    config = grid_configs(grid)[cells(grid)[-1]][0][1]
    return fit_runs(config, grid, runs, token_counts(unique)), grid


def token_counts(unique=UNIQUE):
    """What a fit reads of the manifest of the tokens."""
    return SimpleNamespace(counts={"train_tokens": unique}, metrics={"vocabulary_size": 400})


def result_of(fit: ScalingFit, grid: Experiment) -> ScalingResult:
    config = grid_configs(grid)[cells(grid)[-1]][0][1]
    return ScalingResult(fit, config, [], "scaling.html")
