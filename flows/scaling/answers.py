"""Answers of a scaling law to a budget: size, tokens, batch, learning rate, expected bits per byte.

- `parse_budget`, `budget_flops`: FLOPs of `1e15`, or of hours on this machine
- `Options`: sizes with the tokens that a budget pays for; `options_for`: those of a number of FLOPs
- `answer`, `answer_of`: the best of them; `Answer.settings`: overrides of the config that train it
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from data_schemas.errors import ConfigError
from data_schemas.manifest import Volume
from flows.config.run_config import RunConfigBase, apply_overrides, build_run_config
from flows.scaling.family import TRAINING
from flows.scaling.fit import Forecast, Grid, ScalingFit
from flows.scaling.reach import Reach
from flows.scaling.rules import batch_of, rule_of, shapes
from flows.scaling.runs import MANY_EPOCHS
from infra.planner.scaling_law import Floats, ScalingLaw
from infra.rates.rates import Rates
from infra.workers.capacity import Capacity
from modeling.evaluation.config_counts import active_parameters, flops_per_token
from modeling.transformer_config import TransformerConfig
from stages.registry import stage_named

SECONDS = {"s": 1, "min": 60, "h": 3_600, "d": 86_400}
MONEY = "$"
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
    layout_settings: Sequence[str] = ()
    """Overrides that decide the layout on a cluster."""

    @property
    def settings(self) -> list[str]:
        """Overrides of the config, each KEY=VALUE."""
        sizes = ("layers", "width", "heads", "feed_forward_width")
        return [
            *(f"pretrain.model.{name}={self.shape[name]}" for name in sizes),
            f"pretrain.tokens={self.tokens}",
            f"pretrain.batch_tokens={self.batch_tokens}",
            f"pretrain.peak_learning_rate={self.learning_rate:.6g}",
            *self.layout_settings,
        ]

    def config(self, base: RunConfigBase) -> RunConfigBase:
        """The config that trains it.

        Args:
            base: config of any of the fitted runs.
        """
        values = apply_overrides(base.model_dump(mode="json"), self.settings)
        return build_run_config(values | {"name": f"{base.name}, {self.budget}"}, "the proposed run")


def parse_budget(text: str) -> tuple[float, str]:
    """(number, unit) of a budget such as `1e15`, `10h`, `30min`, `2d` or `$500`; the unit is empty for FLOPs.

    Raises:
        ConfigError: for any other text.
    """
    match = re.fullmatch(
        r"\s*(\$)?\s*(\d+(?:\.\d*)?(?:e\+?\d+)?)\s*(flops?|s|min|h|d|\$|usd)?\s*", text.replace("_", ""), re.IGNORECASE
    )
    number = float(match[2]) if match and not (match[1] and match[3]) else 0.0
    if match is None or not 0 < number < MAX_BUDGET:
        raise ConfigError(
            f"--budget is {text!r}; expected FLOPs such as 1e15, or time on this machine such as 10h, or with "
            "--cluster time or money there, such as 24h or $500"
        )
    unit = (match[1] or match[3] or "").lower()
    return number, MONEY if unit in (MONEY, "usd") else unit if unit in SECONDS else ""


def budget_flops(text: str, config: RunConfigBase, vocabulary_size: int, rates: Rates) -> tuple[float, float | None]:
    """(FLOPs of a budget, FLOPs per second if it is a time: those of the planner's training here, at these rates).

    Raises:
        ConfigError: if it is neither FLOPs nor time.
    """
    number, unit = parse_budget(text)
    if unit == MONEY:
        raise ConfigError(f"--budget {text} is money; add --cluster with a cluster that has a price, such as 8xH100")
    if not unit:
        return number, None
    rate = _flops_per_second(config, vocabulary_size, rates)
    return number * SECONDS[unit] * rate, rate


def _flops_per_second(config: RunConfigBase, vocabulary_size: int, rates: Rates) -> float:
    training = config.stage_config(TRAINING).model_copy(update={"tokens": RATED_TOKENS})
    volume = Volume(tokens=RATED_TOKENS, vocabulary_size=vocabulary_size)
    estimate = rates.applied(stage_named(TRAINING).estimate(training, volume, Capacity()))
    return estimate.flops / estimate.seconds


def answer(fit: ScalingFit, budget: str, flops: float, shown: Callable[[float], str] | None = None) -> Answer:
    """The network and tokens of the least expected loss for a number of FLOPs, as counted.

    Args:
        fit: the law and its runs.
        budget: as it was written.
        flops: the FLOPs that it pays for.
        shown: text of a number of FLOPs in the unit of the budget.

    Raises:
        ConfigError: if the budget is further beyond the fitted runs than the fit allows.
    """
    Reach.of(fit).check(budget, flops, shown)
    return answer_of(fit, budget, options_for(fit, flops))


def answer_of(fit: ScalingFit, budget: str, options: "Options") -> Answer:
    """The option of the least expected loss.

    Args:
        fit: the law and its runs.
        budget: as it was written.
        options: at least one.
    """
    best = int(np.argmin(options.losses(fit, fit.bootstrap.law)))
    draws = [options.parameters[int(np.argmin(options.losses(fit, law)))] for law in fit.bootstrap.draws]
    low, high = np.quantile(draws, [0.025, 0.975])
    parameters, wanted = int(options.parameters[best]), float(options.tokens[best])
    batch = batch_of(fit, parameters, wanted)
    tokens = max(1, round(wanted / batch)) * batch
    return Answer(
        budget=budget,
        flops=float(wanted * options.flops_per_token[best]),
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


@dataclass(frozen=True)
class Options:
    """Sizes by growing width, each with the tokens that a budget pays for."""

    shapes: Sequence[dict[str, Any]]
    parameters: Floats
    flops_per_token: Floats
    """FLOPs of training."""
    tokens: Floats

    def losses(self, fit: ScalingFit, law: ScalingLaw) -> Floats:
        """Expected loss of each by a law, of text as large as that of a fit."""
        return law.loss(self.parameters, np.array([fit.worth(tokens) for tokens in self.tokens]))


def options_for(grid: Grid, flops: float) -> Options:
    """All sizes that a law answers with, with the tokens for a number of FLOPs."""
    options = sizes_of(grid)
    return replace(options, tokens=flops / options.flops_per_token)


def sizes_of(grid: Grid) -> Options:
    """All sizes that a law answers with, with no tokens."""
    rows = list(shapes(grid))
    networks = [TransformerConfig(**shape, vocabulary_size=grid.vocabulary_size) for shape in rows]
    return Options(
        rows,
        np.array([float(active_parameters(network)) for network in networks]),
        np.array([3.0 * flops_per_token(network, network.context_length) for network in networks]),
        np.zeros(len(rows)),
    )


def _notes(fit: ScalingFit, options: Options, best: int, tokens: int) -> list[str]:
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
