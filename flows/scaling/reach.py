"""Budgets that a grid of runs can answer for, known before anything is trained.

- `planned_run`: size, length and FLOPs of a run from its config
- `Reach`: the FLOPs of a grid's runs and how far a law of them is carried; `Reach.check` refuses a budget beyond
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from data_schemas.errors import ConfigError
from flows.config.experiments import Cell
from flows.config.run_config import RunConfigBase
from flows.scaling.family import TRAINING
from flows.scaling.fit import GridRun, ScalingFit
from flows.scaling.rules import grown_shapes
from modeling.evaluation.config_counts import active_parameters, flops_per_token
from modeling.transformer_config import TransformerConfig
from stages.pretrain.config import PretrainConfig
from stages.tokenize.config import TokenizeConfig

MAX_LARGER = 1_000
"""Times the FLOPs of the largest run beyond which no run is proposed as an addition to the grid."""


def planned_run(cell: Cell, seed: int, config: RunConfigBase) -> GridRun:
    """A run, with the vocabulary of its config: that of the tokenizer is smaller only for very little text."""
    training, tokenize = config.stage_config(TRAINING), config.stage_config("tokenize")
    assert isinstance(training, PretrainConfig) and isinstance(tokenize, TokenizeConfig)
    network = TransformerConfig(**training.model.model_dump(), vocabulary_size=tokenize.vocabulary_size)
    return GridRun(
        variant=cell.variant, condition=cell.condition, seed=seed, parameters=active_parameters(network),
        tokens=training.tokens, flops=training_flops(network, training.tokens), batch_tokens=training.batch_tokens,
        model=training.model.model_dump(mode="json"),
    )  # fmt: skip


def training_flops(network: TransformerConfig, tokens: int) -> float:
    """FLOPs of a training, as the stage counts them."""
    return 3.0 * flops_per_token(network, network.context_length) * tokens


@dataclass(frozen=True)
class Reach:
    """Runs of a grid, trained or not, and the factor up to which a law of them is carried beyond their FLOPs."""

    runs: Sequence[GridRun]
    vocabulary_size: int
    max_extrapolation: float

    @classmethod
    def of(cls, fit: ScalingFit) -> "Reach":
        """The reach of a fit."""
        return cls(fit.runs, fit.vocabulary_size, fit.max_extrapolation)

    @property
    def least_flops(self) -> float:
        """Smallest budget that is answered."""
        return min(run.flops for run in self.runs) / self.max_extrapolation

    @property
    def most_flops(self) -> float:
        """Largest budget that is answered."""
        return max(run.flops for run in self.runs) * self.max_extrapolation

    def check(self, budget: str, flops: float, shown: Callable[[float], str] | None = None) -> None:
        """Check that a budget is within reach.

        Args:
            budget: as it was written, for the message.
            flops: the FLOPs that it pays for.
            shown: text of a number of FLOPs in the unit of the budget; None for a budget of FLOPs.

        Raises:
            ConfigError: naming the budgets that are answered, and the run to add for this one.
        """
        if self.least_flops <= flops <= self.most_flops:
            return
        beyond = flops > self.most_flops
        edge = max(self.runs, key=lambda run: run.flops) if beyond else min(self.runs, key=lambda run: run.flops)
        times = f"{flops / edge.flops:.3g} times more" if beyond else f"{edge.flops / flops:.3g} times less"
        run = f"the {'largest' if beyond else 'smallest'} run ({_label(edge)}: {edge.flops:.2g} FLOPs)"
        ends = f"{_inside(self.least_flops, math.ceil)} to {_inside(self.most_flops, math.floor)} FLOPs"
        if shown:
            ends += f", {shown(self.least_flops)} to {shown(self.most_flops)}"
        raise ConfigError(
            f"--budget {budget} is {flops:.2g} FLOPs, {times} than {run}; the law is not carried further than "
            f"{self.max_extrapolation:g} times ({ends}): {self._addition(flops, beyond)}, or raise "
            "scaling.max_extrapolation"
        )

    def _addition(self, flops: float, beyond: bool) -> str:
        """The variant and condition with which the grid would answer for a budget."""
        if not beyond:
            return f"add a smaller variant, or a condition of fewer tokens{self._shorter(flops)}"
        run = self._larger(flops / self.max_extrapolation)
        if run is None:
            return "add larger variants and more tokens to the experiment"
        sizes = ("layers", "width", "heads", "feed_forward_width")
        ordinary = run.model["feed_forward_width"] == 4 * run.model["width"]
        names = sizes[:3] if ordinary else sizes
        settings = ", ".join(f"pretrain.model.{name}={run.model[name]}" for name in names)
        return (
            f"add the variant {run.variant}: [{settings}] and the condition [pretrain.tokens={run.tokens}] to the "
            f"experiment, a run of {run.flops:.2g} FLOPs"
        )

    def _larger(self, flops: float) -> GridRun | None:
        """The smallest network, with as many tokens per parameter as the largest run, of at least these FLOPs."""
        largest = max(self.runs, key=lambda run: (run.parameters, run.tokens))
        longest = max(run.tokens for run in self.runs)
        if flops > MAX_LARGER * max(run.flops for run in self.runs):
            return None
        for shape, network in grown_shapes(self.runs, self.vocabulary_size):
            parameters = active_parameters(network)
            if parameters <= largest.parameters:
                continue
            wanted = max(longest, largest.tokens / largest.parameters * parameters)
            tokens = -int(-wanted // largest.batch_tokens) * largest.batch_tokens
            if (counted := training_flops(network, tokens)) >= flops:
                return largest.model_copy(
                    update={"variant": f"{shape['layers']} x {shape['width']}", "parameters": parameters,
                            "tokens": tokens, "flops": counted, "model": shape}
                )  # fmt: skip
        return None

    def _shorter(self, flops: float) -> str:
        run = min(self.runs, key=lambda run: run.flops)
        tokens = int(flops * self.max_extrapolation * run.tokens / run.flops) // run.batch_tokens * run.batch_tokens
        return f", such as [pretrain.tokens={tokens}]" if tokens else ""


def _label(run: GridRun) -> str:
    return Cell(run.condition, run.variant).label


def _inside(end: float, rounding: Callable[[float], int]) -> str:
    """An end of the reach in three digits, rounded so that it is itself a budget within it."""
    unit = 10.0 ** (math.floor(math.log10(end)) - 2)
    return f"{rounding(end / unit) * unit:.2e}"
