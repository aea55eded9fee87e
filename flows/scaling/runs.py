"""From the runs of an experiment to a scaling law.

- `check_grid`: refuses an experiment whose runs could not determine a law, before anything is trained
- `scaled_run`: a run's figures from its manifests; `fit_runs`: the law, and what it predicts of the held-out runs
"""

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np

from data_schemas.errors import ConfigError, NotFoundError
from data_schemas.manifest import Manifest
from flows.config.experiments import Cell, Experiment, Scaling
from flows.config.run_config import RunConfigBase
from flows.scaling.family import TRAINING, check_family, family_digest
from flows.scaling.fit import Predicted, ScaledRun, ScalingFit
from flows.scaling.reach import planned_run
from infra.planner.scaling_intervals import BootstrapLaw, check_design, doubts, fitted
from infra.planner.scaling_law import Measurements, effective_tokens
from infra.store.provenance import headrace_version
from stages.pretrain.config import PretrainConfig

NEURONS_FACTOR = 1.1
"""Between the largest and the smallest ratio of neurons to width; small widths round."""
MANY_EPOCHS = 4
"""Epochs from which a repeated token is clearly worth less than a fresh one (2305.16264)."""


def check_grid(experiment: Experiment, configs: Mapping[Cell, Sequence[tuple[int, RunConfigBase]]]) -> None:
    """Check that the runs of an experiment would determine a law, with and without the held-out variant.

    Raises:
        ConfigError: if they differ in more than size and tokens, or are too few or too alike.
    """
    check_family({f"{cell.label}, seed {seed}": config for cell, runs in configs.items() for seed, config in runs})
    _check_neurons([config for runs in configs.values() for _, config in runs])
    points = [planned_run(cell, seed, config) for cell, runs in configs.items() for seed, config in runs]
    held_out = _held_out(experiment, [(run.variant, run.parameters) for run in points])
    rest = [run for run in points if run.variant != held_out]
    check_design([run.parameters for run in rest], [run.tokens for run in rest], held_out)


def _check_neurons(configs: Sequence[RunConfigBase]) -> None:
    """Check that feed-forwards grow with the width: a width that is set alone leaves those of a recorded config."""
    models = [_training(config).model for config in configs]
    ratios = [model.feed_forward_width / model.width for model in models]
    if max(ratios) > NEURONS_FACTOR * min(ratios):
        narrow, wide = models[ratios.index(min(ratios))], models[ratios.index(max(ratios))]
        raise ConfigError(
            f"pretrain.model.feed_forward_width is {narrow.feed_forward_width} at width {narrow.width} and "
            f"{wide.feed_forward_width} at width {wide.width}; sizes of a scaling law need the same ratio: set it in "
            "every variant, such as 4 times the width"
        )


def _training(config: RunConfigBase) -> PretrainConfig:
    training = config.stage_config(TRAINING)
    assert isinstance(training, PretrainConfig)
    return training


def _held_out(experiment: Experiment, sizes: Sequence[tuple[str, int]]) -> str:
    assert experiment.scaling is not None
    return experiment.scaling.held_out or max(sizes, key=lambda row: row[1])[0]


def scaled_run(cell: Cell, seed: int, run_id: str, score: float, training: Manifest) -> ScaledRun:
    """A run, with the counts of its training.

    Raises:
        ConfigError: if it has no finite score.
        NotFoundError: if the training was recorded by a version that did not count them.
    """
    if not 0 < score < math.inf:
        raise ConfigError(
            f"run {run_id} ({cell.label}) has {score} bits per byte: its training failed; remove the variant, or lower "
            "its learning rate"
        )
    metrics, config = training.metrics, training.config
    try:
        return ScaledRun(
            variant=cell.variant,
            condition=cell.condition,
            seed=seed,
            run_id=run_id,
            parameters=metrics["active_parameters"],
            tokens=metrics["tokens"],
            flops=metrics["flops_per_token"] * metrics["tokens"],
            bits_per_byte=score,
            learning_rate=config["peak_learning_rate"],
            batch_tokens=config["batch_tokens"],
            model=config["model"],
        )
    except KeyError as error:
        raise NotFoundError(f"the manifest of {training.ref.label} has no {error}; run its training again") from None


def fit_runs(config: RunConfigBase, experiment: Experiment, runs: Sequence[ScaledRun], tokens: Manifest) -> ScalingFit:
    """Fit the law to all runs, and to those of all variants but one, whose runs it predicts.

    Args:
        config: config of any of the runs.
        experiment: with its section `scaling`.
        runs: the finished runs.
        tokens: manifest of the tokens that all trained on.

    Raises:
        ConfigError: if the runs do not determine a law.
    """
    settings = experiment.scaling
    assert settings is not None
    unique = int(tokens.counts["train_tokens"])
    held_out = _held_out(experiment, [(run.variant, run.parameters) for run in runs]) if runs else ""
    rest = [run for run in runs if run.variant != held_out]
    check_design([run.parameters for run in rest], [run.tokens for run in rest], held_out)
    check_design([run.parameters for run in runs], [run.tokens for run in runs])
    everything = _fitted(runs, unique, settings)
    return ScalingFit(
        name=config.name,
        family=family_digest(config),
        created=datetime.now(UTC),
        headrace_version=headrace_version(),
        runs=list(runs),
        held_out=held_out,
        predicted=_predicted([run for run in runs if run.variant == held_out], _fitted(rest, unique, settings), unique),
        law=_constants(everything.law),
        draws=[_constants(law) for law in everything.draws],
        residuals=everything.residuals.tolist(),
        doubts=doubts(everything, min(run.bits_per_byte for run in runs)),
        vocabulary_size=int(tokens.metrics["vocabulary_size"]),
        unique_tokens=unique,
        max_extrapolation=settings.max_extrapolation,
    )


def _fitted(runs: Sequence[ScaledRun], unique: int, settings: Scaling) -> BootstrapLaw:
    measurements = Measurements(
        np.array([float(run.parameters) for run in runs]),
        effective_tokens([run.tokens for run in runs], unique),
        np.array([run.bits_per_byte for run in runs]),
    )
    return fitted(measurements, settings.seed, settings.resamples)


def _predicted(runs: Sequence[ScaledRun], law: BootstrapLaw, unique: int) -> list[Predicted]:
    rows = []
    for run in runs:
        expected, low, high = law.run_interval(run.parameters, float(effective_tokens(run.tokens, unique)))
        rows.append(
            Predicted(
                condition=run.condition, seed=run.seed, run_id=run.run_id,
                expected=expected, low=low, high=high, measured=run.bits_per_byte,
            )
        )  # fmt: skip
    return rows


def _constants(law: Any) -> tuple[float, float, float, float, float]:
    return (law.irreducible, law.parameter_term, law.token_term, law.parameter_exponent, law.token_exponent)
