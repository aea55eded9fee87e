"""Uncertainty of a scaling law: laws of resampled runs, and what a grid of runs leaves open.

- `check_design`: refuses runs that do not determine the law
- `bootstrap_laws`: laws of resampled runs; `BootstrapLaw`: the law with them, and intervals of what follows from it
- `doubts`: sentences about constants that the runs leave open
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from data_schemas.errors import ConfigError
from infra.planner.scaling_law import Floats, Measurements, ScalingLaw, fit_law, refit_law

CONSTANTS = 5
MIN_SIZES = MIN_LENGTHS = 3
MIN_RUNS = 8
MAX_CORRELATION = 0.97
"""Correlation of log N with log D. Beyond it, as at fixed tokens per parameter, both are powers of one variable."""
CONFIDENCE = 0.95
NO_IRREDUCIBLE = 0.02
"""Share of the lowest loss below which E counts as 0."""
SHALLOW, STEEP = 0.02, 3.0
"""Exponents beyond which a term is a constant, or acts on the smallest runs only."""


def check_design(parameters: npt.ArrayLike, tokens: npt.ArrayLike, held_out: str = "") -> None:
    """Check that runs of these sizes and lengths can determine the law.

    Args:
        parameters: of each run.
        tokens: of each run.
        held_out: what is not among them, for the message.

    Raises:
        ConfigError: naming what is too few.
    """
    sizes, lengths = np.asarray(parameters, dtype=np.float64), np.asarray(tokens, dtype=np.float64)
    rest = f"without {held_out}, " if held_out else ""
    for counted, name, least in (
        (len(np.unique(sizes)), "sizes", MIN_SIZES),
        (len(np.unique(lengths)), "numbers of tokens", MIN_LENGTHS),
        (len(sizes), "runs", MIN_RUNS),
    ):
        if counted < least:
            raise ConfigError(
                f"{rest}the scaling law has {counted} {name} to be fitted to; it needs {least} or more, for its "
                f"{CONSTANTS} constants: add variants of other sizes, or conditions with other pretrain.tokens"
            )
    correlation = float(np.corrcoef(np.log(sizes), np.log(lengths))[0, 1])
    if abs(correlation) > MAX_CORRELATION:
        raise ConfigError(
            f"{rest}sizes and tokens of the runs have a correlation of {correlation:.3f} (of logarithms), so that what "
            f"parameters and tokens do cannot be distinguished; train some sizes on several numbers of tokens"
        )


def bootstrap_laws(runs: Measurements, law: ScalingLaw, seed: int, resamples: int) -> list[ScalingLaw]:
    """Laws of resampled runs (Efron and Tibshirani 1993, 9.5: pairs); samples that determine no law are drawn again.

    Args:
        runs: the runs that `law` was fitted to.
        law: start of the fits.
        seed: seed of the samples.
        resamples: number of them.
    """
    return [refit_law(runs.taken(chosen), law) for chosen in _samples(runs, seed, resamples)]


def _samples(runs: Measurements, seed: int, resamples: int) -> Iterator[npt.NDArray[np.int64]]:
    generator = np.random.default_rng(seed)
    count, drawn = len(runs.losses), 0
    while drawn < resamples:
        chosen = generator.integers(count, size=count)
        if _is_determined(runs, chosen):
            drawn += 1
            yield chosen


def _is_determined(runs: Measurements, chosen: npt.NDArray[np.int64]) -> bool:
    distinct = np.unique(chosen)
    enough = len(distinct) > CONSTANTS
    return enough and all(len(np.unique(values[distinct])) >= 3 for values in (runs.parameters, runs.tokens))


@dataclass(frozen=True)
class BootstrapLaw:
    """A law with those of resampled runs."""

    law: ScalingLaw
    draws: tuple[ScalingLaw, ...]
    residuals: Floats
    """Residuals of log loss (runs,), enlarged by the degrees of freedom that the fit took."""

    def interval(self, statistic: Callable[[ScalingLaw], float]) -> tuple[float, float, float]:
        """(value, low, high) of any function of a law."""
        return (statistic(self.law), *_ends(np.array([statistic(law) for law in self.draws])))

    def run_interval(self, parameters: float, tokens: float) -> tuple[float, float, float]:
        """(value, low, high) of the loss of one run, whose own scatter is part of the interval."""
        values = np.array([float(law.loss(parameters, tokens)) for law in self.draws])
        # Every draw with every residual: no random numbers, so that equal questions have equal answers.
        scattered = np.outer(values, np.exp(np.concatenate([self.residuals, -self.residuals])))
        return (float(self.law.loss(parameters, tokens)), *_ends(scattered.ravel()))


def fitted(runs: Measurements, seed: int, resamples: int) -> BootstrapLaw:
    """The law of runs, with resampled ones."""
    law = fit_law(runs)
    residuals = np.log(runs.losses) - np.log(law.loss(runs.parameters, runs.tokens))
    enlarged = residuals * np.sqrt(len(residuals) / (len(residuals) - CONSTANTS))
    return BootstrapLaw(law, tuple(bootstrap_laws(runs, law, seed, resamples)), enlarged)


def doubts(fit: BootstrapLaw, lowest_loss: float) -> list[str]:
    """Sentences on what the runs leave open; empty if nothing."""
    _, low, high = fit.interval(lambda law: law.parameter_exponent - law.token_exponent)
    sentences = []
    if low <= 0 <= high:
        sentences.append(
            f"alpha and beta cannot be distinguished (alpha - beta is {low:+.2f} to {high:+.2f}): whether a larger "
            "budget should go to parameters or to tokens first is open"
        )
    for name, statistic in (
        ("alpha", lambda law: law.parameter_exponent),
        ("beta", lambda law: law.token_exponent),
    ):
        _, low, high = fit.interval(statistic)
        if low < SHALLOW or high > STEEP:
            sentences.append(f"{name} is not determined by these runs ({low:.2f} to {high:.2f})")
    _, low, high = fit.interval(lambda law: law.irreducible)
    if low < NO_IRREDUCIBLE * lowest_loss:
        sentences.append(
            f"E cannot be distinguished from 0 (up to {high:.2f}): how far the loss can fall is open, and the law "
            "should not be carried far"
        )
    return sentences


def _ends(draws: Floats) -> tuple[float, float]:
    low, high = np.quantile(draws, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)
