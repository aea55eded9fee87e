"""Answers of a scaling law to a budget: size, tokens, batch, learning rate, expected bits per byte.

- `parse_budget`, `budget_flops`: FLOPs of `1e15`, or of hours on this machine
- `answer`: the best run for them; `Answer.settings`: overrides of the config that train it
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from data_schemas.errors import ConfigError
from data_schemas.manifest import Volume
from flows.run_config import RunConfigBase, apply_overrides, build_run_config
from flows.scaling.family import TRAINING
from flows.scaling.fit import Forecast, ScalingFit
from flows.scaling.rules import rule_of, shapes
from flows.scaling.runs import MANY_EPOCHS
from infra.planner.scaling_law import Floats, ScalingLaw
from infra.rates.rates import Rates
from infra.workers.capacity import Capacity
from modeling.evaluation.config_counts import active_parameters, flops_per_token
from modeling.transformer_config import TransformerConfig
from stages.registry import stage_named

SECONDS = {"s": 1, "min": 60, "h": 3_600, "d": 86_400}
MAX_BUDGET = 1e40
RATED_TOKENS = 10**9
"""Length of the run at whose rate hours count, so that starting does not matter."""


@dataclass(frozen=True)
class Answer:
    """The run that a law proposes for a budget."""

    budget: str
    flops: float
    shape: dict[str, Any]
    parameters: int
    least_parameters: float
    """Ends of the interval of the best size."""
    most_parameters: float
    tokens: int
    epochs: float
    batch_tokens: int
    learning_rate: float
    expected: Forecast
    notes: Sequence[str]

    @property
    def settings(self) -> list[str]:
        """Overrides of the config, each KEY=VALUE."""
        sizes = ("layers", "width", "heads", "feed_forward_width")
        return [
            *(f"pretrain.model.{name}={self.shape[name]}" for name in sizes),
            f"pretrain.tokens={self.tokens}",
            f"pretrain.batch_tokens={self.batch_tokens}",
            f"pretrain.peak_learning_rate={self.learning_rate:.6g}",
        ]

    def config(self, base: RunConfigBase) -> RunConfigBase:
        """The config that trains it.

        Args:
            base: config of any of the fitted runs.
        """
        values = apply_overrides(base.model_dump(mode="json"), self.settings)
        return build_run_config(values | {"name": f"{base.name}, {self.budget}"}, "the proposed run")


def parse_budget(text: str) -> tuple[float, str]:
    """(number, unit) of a budget such as `1e15`, `10h`, `30min` or `2d`; the unit is empty for FLOPs.

    Raises:
        ConfigError: for any other text.
    """
    match = re.fullmatch(
        r"\s*(\d+(?:\.\d*)?(?:e\+?\d+)?)\s*(flops?|s|min|h|d)?\s*", text.replace("_", ""), re.IGNORECASE
    )
    number = float(match[1]) if match else 0.0
    if match is None or not 0 < number < MAX_BUDGET:
        raise ConfigError(f"--budget is {text!r}; expected FLOPs such as 1e15, or time on this machine such as 10h")
    unit = (match[2] or "").lower()
    return number, unit if unit in SECONDS else ""


def budget_flops(text: str, config: RunConfigBase, fit: ScalingFit, rates: Rates) -> float:
    """FLOPs of a budget; time is that of the planner's training on this machine, at these rates.

    Raises:
        ConfigError: if it is neither FLOPs nor time.
    """
    number, unit = parse_budget(text)
    return number * SECONDS[unit] * _flops_per_second(config, fit, rates) if unit else number


def _flops_per_second(config: RunConfigBase, fit: ScalingFit, rates: Rates) -> float:
    training = config.stage_config(TRAINING).model_copy(update={"tokens": RATED_TOKENS})
    volume = Volume(tokens=fit.unique_tokens, vocabulary_size=fit.vocabulary_size)
    estimate = rates.applied(stage_named(TRAINING).estimate(training, volume, Capacity()))
    return estimate.flops / estimate.seconds


def answer(fit: ScalingFit, budget: str, flops: float) -> Answer:
    """The network and tokens of the least expected loss for a number of FLOPs, as counted.

    Raises:
        ConfigError: if the budget is further beyond the fitted runs than the fit allows.
    """
    _check_reach(fit, budget, flops)
    options = _Options(fit, flops)
    best = int(np.argmin(options.losses(fit.bootstrap.law)))
    draws = [options.parameters[int(np.argmin(options.losses(law)))] for law in fit.bootstrap.draws]
    low, high = np.quantile(draws, [0.025, 0.975])
    parameters, wanted = int(options.parameters[best]), float(options.tokens[best])
    unit = math.gcd(*(run.batch_tokens for run in fit.runs))
    batch = max(1, round(rule_of(fit, "batch_tokens")(parameters, wanted) / unit)) * unit
    tokens = max(1, round(wanted / batch)) * batch
    return Answer(
        budget=budget,
        flops=flops,
        shape=options.shapes[best],
        parameters=parameters,
        least_parameters=float(low),
        most_parameters=float(high),
        tokens=tokens,
        epochs=tokens / fit.unique_tokens,
        batch_tokens=batch,
        learning_rate=rule_of(fit, "peak_learning_rate")(parameters, tokens),
        expected=fit.expected(parameters, tokens),
        notes=_notes(fit, options, best, tokens),
    )


class _Options:
    """All shapes, each with the tokens that the budget pays for."""

    def __init__(self, fit: ScalingFit, flops: float) -> None:
        self.shapes = list(shapes(fit))
        networks = [TransformerConfig(**shape, vocabulary_size=fit.vocabulary_size) for shape in self.shapes]
        self.parameters = np.array([float(active_parameters(network)) for network in networks])
        self.tokens = flops / np.array([3 * flops_per_token(network, network.context_length) for network in networks])
        self._worth = np.array([fit.worth(tokens) for tokens in self.tokens])

    def losses(self, law: ScalingLaw) -> Floats:
        """Expected loss of each."""
        return law.loss(self.parameters, self._worth)


def _check_reach(fit: ScalingFit, budget: str, flops: float) -> None:
    if fit.least_flops <= flops <= fit.most_flops:
        return
    largest, smallest = fit.most_flops / fit.max_extrapolation, fit.least_flops * fit.max_extrapolation
    beyond = flops > fit.most_flops
    times, edge = (flops / largest, f"largest run ({largest:.2g} FLOPs)") if beyond else (
        smallest / flops, f"smallest run ({smallest:.2g} FLOPs)")  # fmt: skip
    raise ConfigError(
        f"--budget {budget} is {flops:.2g} FLOPs, {times:.3g} times {'more' if beyond else 'less'} than the {edge}; "
        f"the law is not carried further than {fit.max_extrapolation:g} times ({fit.least_flops:.2g} to "
        f"{fit.most_flops:.2g} FLOPs): add {'larger' if beyond else 'smaller'} sizes and more tokens to the "
        "experiment, or raise scaling.max_extrapolation"
    )


def _notes(fit: ScalingFit, options: _Options, best: int, tokens: int) -> list[str]:
    notes = list(fit.doubts)
    if best in (0, len(options.shapes) - 1):
        end = "smallest" if best == 0 else "largest"
        notes.append(f"this is the {end} size that was considered: the best one may lie beyond it")
    longest = max(run.tokens for run in fit.runs)
    if tokens > longest * fit.max_extrapolation:
        notes.append(f"{tokens / longest:.0f} times the tokens of the longest run")
    epochs = tokens / fit.unique_tokens
    if epochs > 1:
        least = "clearly less than" if epochs > MANY_EPOCHS else "nearly as much as"
        notes.append(
            f"{epochs:.1f} epochs of the {fit.unique_tokens:,} tokens of training text: repeated ones count {least} "
            f"fresh ones, as {fit.worth(tokens):,.0f} in all (Muennighoff et al. 2023); more text would be better"
        )
    return notes
