"""Forecast of the final training loss, from the log so far and the learning rate schedule.

- `forecast_final_loss`: the forecast and its interval
- `annealing_areas`: S1 and S2 of the scaling law below

The scaling law is that of Tissue et al. 2024 (2408.11029, equation 1): after step s the loss is

    L0 + A * S1^-alpha - C * S2

where S1 is the sum of the learning rates and S2 the annealing area, by which a decaying rate lowers the loss further.
The first half of a schedule contains little information about C, so C has a prior: in five runs of 500 to 850 steps
(0.3 million parameters, books, cosine and constant-then-decay) annealing lowered the loss by 2 to 5 %. After 25, 50 and
75 % of the steps the error there was 0.13, 0.03 and 0.02 nats of 4.8, without C 0.18, 0.10 and 0.04; in two runs on
other texts, which influenced only the choice of ALPHAS, 0.11, 0.02 and 0.01, without C 0.22, 0.09 and 0.04.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

MIN_ROWS = 12
MIN_STEPS_SHARE = 0.2
"""Share of all steps before which small networks' losses still fall from plateau to plateau and follow no law."""
ALPHAS = (0.2, 0.3, 0.4, 0.5, 0.7, 1.0)
"""Exponents, with a uniform prior; smaller ones fit the start of a run as well but predict too low a final loss."""
WINDOWS = (0.5, 0.6, 0.7)
"""Starts of the fitted windows, as shares of the steps so far; their disagreement widens the interval."""
ANNEALING_SHARE = 0.03
"""Share of the loss removed by annealing to a rate of 0: mean and standard deviation of the prior."""
NOISE_FACTOR = 1.5
"""Factor on the rows' noise in the fits, because residuals are correlated from row to row."""
HUBER = 1.5
"""Residual in standard deviations from which a row is down-weighted (Huber loss)."""
NORMAL_80_PERCENT = 1.2816
MAX_POINTS = 2048


@dataclass(frozen=True)
class Forecast:
    """Forecast loss of the last row, nats per token."""

    loss: float
    low: float
    high: float
    """`low` to `high` is an 80 % interval."""


@dataclass(frozen=True)
class _Fit:
    """Fit of an exponent in a window."""

    final: float
    variance: float
    log_evidence: float


def forecast_final_loss(
    rows: Sequence[Mapping[str, Any]], total_steps: int, learning_rate_at: Callable[[int], float]
) -> Forecast | None:
    """Forecast the loss of the last step.

    The law is linear except for alpha: for each alpha and window a robust fit (Huber weights) with a Gaussian prior
    gives a final loss and its variance; alphas are averaged by their evidence, windows with equal weights. Takes
    milliseconds and is deterministic.

    Args:
        rows: rows of the log, in order, with `step` and `loss`. If data is repeated so often that it is memorized, the
            loss falls faster than the law, and the forecast is too high.
        total_steps: steps of the whole run.
        learning_rate_at: schedule, from step (from 1) to learning rate.

    Returns:
        None if it is too early (fewer than 12 rows after warm-up or a fifth of the steps) or the run is finished.
    """
    points = _points(rows, total_steps)
    rates = np.array([learning_rate_at(int(step)) for step in points], dtype=np.float64)
    steps, losses = _after_warmup(rows, float(points[rates.argmax()]))
    if len(steps) < MIN_ROWS or not MIN_STEPS_SHARE * total_steps <= steps[-1] < total_steps:
        return None
    forward, annealing = annealing_areas(points, rates)
    indices = np.searchsorted(points, steps)
    progress, annealed = (forward / forward[-1])[indices], (annealing / max(annealing[-1], 1e-300))[indices]
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
    the run if it is shorter than 10,000 steps. A rising rate adds nothing to it.

    Args:
        steps: ascending, from 1 to the last step of the run; may be a subset of the steps.
        rates: learning rate of each step.
    """
    lengths = np.diff(steps, prepend=0).astype(np.float64)
    decays = (1 - max(10 / float(steps[-1]), 1e-3)) ** lengths if steps[-1] > 10 else np.zeros_like(lengths)
    falls = np.maximum(-np.diff(rates, prepend=rates[0]), 0.0)
    momenta = np.empty_like(rates)
    momentum = 0.0
    for index, (decay, fall) in enumerate(zip(decays, falls, strict=True)):
        momentum = decay * momentum + fall
        momenta[index] = momentum
    return np.cumsum(rates * lengths), np.cumsum(momenta * lengths)


def _points(rows: Sequence[Mapping[str, Any]], total_steps: int) -> npt.NDArray[np.int64]:
    """Steps at which the schedule is evaluated: those of the rows, and up to `MAX_POINTS` evenly spaced."""
    even = np.linspace(1, total_steps, min(total_steps, MAX_POINTS)).round().astype(np.int64)
    own = np.array([row["step"] for row in rows if row["step"] <= total_steps], dtype=np.int64)
    return np.union1d(even, own)


def _after_warmup(rows: Sequence[Mapping[str, Any]], warmup_steps: float) -> tuple[Floats, Floats]:
    """Steps and losses of the finite rows after warm-up, subsampled evenly to at most `MAX_POINTS`."""
    kept = [row for row in rows if row["step"] > warmup_steps and np.isfinite(row["loss"])]
    stride = max(1, -(-len(kept) // MAX_POINTS))
    kept = kept[::-stride][::-1]
    columns = [np.array([row[name] for row in kept], dtype=np.float64) for name in ("step", "loss")]
    return columns[0], columns[1]


def _window(steps: Floats, share: float) -> npt.NDArray[np.bool_]:
    """Mask of the steps after a share of the last step; at least six steps."""
    kept: npt.NDArray[np.bool_] = steps >= min(share * steps[-1], steps[-6])
    return kept


def _row_noise(losses: Floats) -> float:
    """Standard deviation of a row around the curve, from the differences of adjacent rows."""
    differences = np.diff(losses)
    deviation = 1.4826 * np.median(np.abs(differences - np.median(differences))) / np.sqrt(2)
    return float(max(deviation, 1e-4 * abs(losses[-1])))


def _fit(
    progress: Floats, annealed: Floats, losses: Floats, alpha: float, noise: float, mean: Floats, deviation: Floats
) -> _Fit:
    """Fit of the law at an alpha, areas as shares of the whole run: final loss, A and C by reweighted least squares."""
    design = np.column_stack([np.ones_like(progress), progress**-alpha - 1, -annealed])
    at_end = np.array([1.0, 0.0, -1.0])
    precision = np.diag(deviation**-2)
    weights = np.ones_like(losses)
    for _ in range(6):
        weighted = (design * weights[:, None]).T / noise**2
        covariance = np.linalg.inv(weighted @ design + precision)
        solution = covariance @ (weighted @ losses + precision @ mean)
        residuals = np.abs(losses - design @ solution) / noise
        weights = np.minimum(1.0, HUBER / np.maximum(residuals, 1e-9))
    misfit = np.where(residuals < HUBER, residuals**2 / 2, HUBER * residuals - HUBER**2 / 2).sum()
    prior_penalty = (((solution - mean) / deviation) ** 2).sum() / 2
    log_evidence = float(np.linalg.slogdet(covariance)[1] / 2 - misfit - prior_penalty)
    return _Fit(float(solution @ at_end), float(at_end @ covariance @ at_end), log_evidence)


def _average(fits: Sequence[_Fit]) -> tuple[float, float]:
    """Mean and variance of the mixture of the fits, weighted by their evidence."""
    evidence = np.array([fit.log_evidence for fit in fits])
    weights = np.exp(evidence - evidence.max())
    weights /= weights.sum()
    finals, variances = np.array([fit.final for fit in fits]), np.array([fit.variance for fit in fits])
    mean = weights @ finals
    return float(mean), float(weights @ (variances + (finals - mean) ** 2))
