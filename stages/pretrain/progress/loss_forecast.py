"""An early estimate of the loss that training will end at, from the log so far and the schedule to come.

- `forecast_final_loss`: the estimate and its interval
- `annealing_areas`: what the law below takes the learning rates in as

The law is that of Tissue et al. 2024 (2408.11029, equation 1): after step s the loss is

    L0 + A * S1^-alpha - C * S2

where S1 is the sum of the learning rates and S2 the annealing area, by which a falling rate lowers the loss further.
The first half of a schedule says little about C, so it has a prior: in five runs of 500 to 850 steps (0.3 million
parameters, books, cosine and constant-then-decay) annealing lowered the loss by 2 to 5 %. After 25, 50 and 75 % of the
steps the forecast there was off by 0.13, 0.03 and 0.02 nats of 4.8, without C by 0.18, 0.10 and 0.04; in two runs on
other texts, of which only ALPHAS below knew, by 0.11, 0.02 and 0.01, without C by 0.22, 0.09 and 0.04.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

FEWEST_ROWS = 12
FEWEST_STEPS_SHARE = 0.2
"""Of all steps: before that, small networks' losses still fall from plateau to plateau, by no law."""
ALPHAS = (0.2, 0.3, 0.4, 0.5, 0.7, 1.0)
"""Alike likely before the run; smaller ones fit the beginning of a run as well and then fall too far."""
WINDOWS = (0.5, 0.6, 0.7)
"""Where fits begin, as shares of the steps so far; where they disagree, the interval is wider."""
ANNEALING_SHARE = 0.03
"""Of the loss that annealing to a rate of 0 takes away: the prior's mean and its deviation."""
NOISE_FACTOR = 1.5
"""On the rows' noise in the fits, because what the law leaves over is correlated from row to row."""
HUBER = 1.5
"""Deviations beyond which a row counts less."""
NORMAL_80_PERCENT = 1.2816
MOST_POINTS = 2048


@dataclass(frozen=True)
class Forecast:
    """The last row's loss, nats per token."""

    loss: float
    low: float
    high: float
    """`low` to `high` is an 80 % interval."""


@dataclass(frozen=True)
class _Fit:
    """One exponent's fit over one window."""

    final: float
    variance: float
    log_evidence: float


def forecast_final_loss(
    rows: Sequence[Mapping[str, Any]], total_steps: int, learning_rate_at: Callable[[int], float]
) -> Forecast | None:
    """Estimate the loss of the last step.

    The law is linear but for alpha: for each alpha and window a robust fit (Huber weights) with a Gaussian prior gives
    a final loss and its variance; alphas are averaged by their evidence, windows alike. It takes milliseconds and
    draws nothing at random.

    Args:
        rows: of the log, in order, with `step` and `loss`. Where data is seen so often that it is learned by heart,
            the loss falls faster than the law knows, and the forecast is too high.
        total_steps: of the whole run.
        learning_rate_at: the schedule: step, from 1, to learning rate.

    Returns:
        None where it is too early (fewer than 12 rows after warm-up or a fifth of the steps) or the run is over.
    """
    points = _points(rows, total_steps)
    rates = np.array([learning_rate_at(int(step)) for step in points], dtype=np.float64)
    steps, losses = _after_warmup(rows, float(points[rates.argmax()]))
    if len(steps) < FEWEST_ROWS or not FEWEST_STEPS_SHARE * total_steps <= steps[-1] < total_steps:
        return None
    forward, annealing = annealing_areas(points, rates)
    places = np.searchsorted(points, steps)
    progress, annealed = (forward / forward[-1])[places], (annealing / max(annealing[-1], 1e-300))[places]
    noise = _row_noise(losses)
    level = float(np.median(losses[-5:]))
    falls = ANNEALING_SHARE * level * (1 - rates[-1] / rates.max())
    prior = np.array([level, 0.0, falls]), np.array([0.5 * level, 2 * level, falls + 1e-9])
    averages = []
    for window in WINDOWS:
        kept = _window(steps, window)
        design = progress[kept], annealed[kept]
        fits = [_fit(*design, losses[kept], alpha, NOISE_FACTOR * noise, *prior) for alpha in ALPHAS]
        averages.append(_average(fits))
    finals, variances = np.array(averages).T
    deviation = float(np.sqrt(variances.mean() + finals.var() + noise**2))
    final = float(finals.mean())
    return Forecast(final, final - NORMAL_80_PERCENT * deviation, final + NORMAL_80_PERCENT * deviation)


def annealing_areas(steps: npt.NDArray[np.int64], rates: Floats) -> tuple[Floats, Floats]:
    """S1 and S2 after each of the steps (2408.11029, section 3).

    The momentum that S2 sums decays over 1 / (1 - lambda) steps: 1,000 in the article (lambda 0.999), here a tenth of
    a run that is shorter than 10,000. A rate that rises adds nothing to it.

    Args:
        steps: rising, from 1 to the last step of the run; not all of them need be there.
        rates: learning rate of each.
    """
    lengths = np.diff(steps, prepend=0).astype(np.float64)
    decays = (1 - max(10 / float(steps[-1]), 1e-3)) ** lengths if steps[-1] > 10 else np.zeros_like(lengths)
    falls = np.maximum(-np.diff(rates, prepend=rates[0]), 0.0)
    momenta = np.empty_like(rates)
    momentum = 0.0
    for place, (decay, fall) in enumerate(zip(decays, falls, strict=True)):
        momentum = decay * momentum + fall
        momenta[place] = momentum
    return np.cumsum(rates * lengths), np.cumsum(momenta * lengths)


def _points(rows: Sequence[Mapping[str, Any]], total_steps: int) -> npt.NDArray[np.int64]:
    """Steps to know the schedule at: the rows', and enough of the others."""
    even = np.linspace(1, total_steps, min(total_steps, MOST_POINTS)).round().astype(np.int64)
    own = np.array([row["step"] for row in rows if row["step"] <= total_steps], dtype=np.int64)
    return np.union1d(even, own)


def _after_warmup(rows: Sequence[Mapping[str, Any]], warmup_steps: float) -> tuple[Floats, Floats]:
    """Steps and losses of the rows that count, thinned evenly where there are very many."""
    kept = [row for row in rows if row["step"] > warmup_steps and np.isfinite(row["loss"])]
    stride = max(1, -(-len(kept) // MOST_POINTS))
    kept = kept[::-stride][::-1]
    columns = [np.array([row[name] for row in kept], dtype=np.float64) for name in ("step", "loss")]
    return columns[0], columns[1]


def _window(steps: Floats, share: float) -> npt.NDArray[np.bool_]:
    """The steps beyond a share of the last; at least six of them."""
    kept: npt.NDArray[np.bool_] = steps >= min(share * steps[-1], steps[-6])
    return kept


def _row_noise(losses: Floats) -> float:
    """Standard deviation of a row around the curve, from the differences of neighbors."""
    differences = np.diff(losses)
    deviation = 1.4826 * np.median(np.abs(differences - np.median(differences))) / np.sqrt(2)
    return float(max(deviation, 1e-4 * abs(losses[-1])))


def _fit(
    progress: Floats, annealed: Floats, losses: Floats, alpha: float, noise: float, mean: Floats, deviation: Floats
) -> _Fit:
    """The law at one alpha, its areas as shares of the whole run's: final loss, A and C by reweighted least squares."""
    design = np.column_stack([np.ones_like(progress), progress**-alpha - 1, -annealed])
    at_end = np.array([1.0, 0.0, -1.0])
    precision = np.diag(deviation**-2)
    weights = np.ones_like(losses)
    for _ in range(6):
        weighted = (design * weights[:, None]).T / noise**2
        covariance = np.linalg.inv(weighted @ design + precision)
        found = covariance @ (weighted @ losses + precision @ mean)
        residuals = np.abs(losses - design @ found) / noise
        weights = np.minimum(1.0, HUBER / np.maximum(residuals, 1e-9))
    misfit = np.where(residuals < HUBER, residuals**2 / 2, HUBER * residuals - HUBER**2 / 2).sum()
    surprise = (((found - mean) / deviation) ** 2).sum() / 2
    log_evidence = float(np.linalg.slogdet(covariance)[1] / 2 - misfit - surprise)
    return _Fit(float(found @ at_end), float(at_end @ covariance @ at_end), log_evidence)


def _average(fits: Sequence[_Fit]) -> tuple[float, float]:
    """Mean and variance of the mixture, each fit weighted by its evidence."""
    evidence = np.array([fit.log_evidence for fit in fits])
    weights = np.exp(evidence - evidence.max())
    weights /= weights.sum()
    finals, variances = np.array([fit.final for fit in fits]), np.array([fit.variance for fit in fits])
    mean = weights @ finals
    return float(mean), float(weights @ (variances + (finals - mean) ** 2))
