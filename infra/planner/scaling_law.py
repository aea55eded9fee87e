"""Loss of a network by its parameters and training tokens: L(N, D) = E + A / N^alpha + B / D^beta.

Hoffmann et al. 2022 (2203.15556), approach 3: the Huber loss of log L with delta 1e-3, in log-sum-exp form, minimized
by BFGS from a grid of starts. What Besiroglu et al. 2024 (2404.10102) found wrong in its first use is avoided: Huber
losses are summed in units of delta, so that the optimizer does not stop early; nothing is rounded; intervals come from
a bootstrap (`infra.planner.scaling_intervals`).

- `Measurements`: runs to fit; `ScalingLaw`: the constants; `fit_law`, `refit_law`: their estimate
- `effective_tokens`: what repeated tokens are worth
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

HUBER_DELTA = 1e-3
"""Residual of log L from which the loss is linear (2203.15556, appendix D.2)."""
COARSE_DELTA = 1e-2
"""Huber delta of a first descent, whose end is the start of the last one: a wider bowl has fewer kinks."""
START_EXPONENTS = (0.1, 0.25, 0.5, 0.8, 1.2)
"""Grid of alpha and beta; E, A and B of each start are the best ones by non-negative least squares."""
DESCENTS = 4
"""Starts that are followed, the best ones of the grid."""
SLOPES = {COARSE_DELTA: 1e-4, HUBER_DELTA: 1e-8}
"""Slope at which a descent ends."""
MAX_STEPS = 500
WORTH_OF_REPETITION = 15.39
"""Repetitions after which another one is worth 1/e of the first (Muennighoff et al. 2023, 2305.16264, R*_D)."""


@dataclass(frozen=True)
class Measurements:
    """Runs, as arrays of one length, all above 0."""

    parameters: Floats
    tokens: Floats
    losses: Floats

    def taken(self, chosen: npt.NDArray[np.int64] | npt.NDArray[np.bool_]) -> "Measurements":
        """Some of the runs, by index or mask."""
        return Measurements(self.parameters[chosen], self.tokens[chosen], self.losses[chosen])


@dataclass(frozen=True)
class ScalingLaw:
    """Constants of L(N, D); E, A and B in the loss's unit, all at least 0."""

    irreducible: float
    """E: loss of an infinite network after infinite tokens."""
    parameter_term: float
    """A."""
    token_term: float
    """B."""
    parameter_exponent: float
    """alpha."""
    token_exponent: float
    """beta."""

    def loss(self, parameters: npt.ArrayLike, tokens: npt.ArrayLike) -> Floats:
        """Loss of a network of `parameters` after `tokens`, arrays of one shape or numbers."""
        sizes, lengths = np.asarray(parameters, dtype=np.float64), np.asarray(tokens, dtype=np.float64)
        capacity = _power(self.parameter_term, -self.parameter_exponent, sizes)
        return self.irreducible + capacity + _power(self.token_term, -self.token_exponent, lengths)

    @property
    def optimal_exponent(self) -> float:
        """Exponent a of the best size N ~ C^a: beta / (alpha + beta)."""
        return self.token_exponent / (self.parameter_exponent + self.token_exponent)


def _power(factor: float, exponent: float, values: Floats) -> Floats:
    """factor * values^exponent, in logs, since A and B of a steep law exceed 1e300."""
    result: Floats = np.exp(math.log(factor) + exponent * np.log(values)) if factor > 0 else np.zeros_like(values)
    return result


def effective_tokens(tokens: npt.ArrayLike, unique: float) -> Floats:
    """Fresh tokens that are worth `tokens` of a corpus of `unique` ones: U + U R* (1 - exp(-R / R*)).

    R is the number of repetitions after the first epoch (Muennighoff et al. 2023, 2305.16264, equation 5). Up to four
    epochs repeated tokens are nearly as good as fresh ones; the most they are worth is 16.4 epochs. That paper's other
    correction, of networks too large for their corpus, is left out.
    """
    lengths = np.asarray(tokens, dtype=np.float64)
    repetitions = np.maximum(lengths / unique - 1, 0)
    repeated = unique * WORTH_OF_REPETITION * -np.expm1(-repetitions / WORTH_OF_REPETITION)
    result: Floats = np.minimum(lengths, unique) + repeated
    return result


class _Problem:
    """Runs as centered logs, in which the five numbers to find are far less correlated than in N and D."""

    def __init__(self, runs: Measurements) -> None:
        self.runs = runs
        self.center = (float(np.log(runs.parameters).mean()), float(np.log(runs.tokens).mean()))
        self.sizes = np.log(runs.parameters) - self.center[0]
        self.lengths = np.log(runs.tokens) - self.center[1]
        self.logs = np.log(runs.losses)

    def value(self, point: Floats, delta: float) -> tuple[float, Floats]:
        """Sum of Huber losses in units of delta, and its gradient; the point is (e, a, b, alpha, beta)."""
        log_e, log_a, log_b, alpha, beta = point
        terms = np.stack([np.full_like(self.sizes, log_e), log_a - alpha * self.sizes, log_b - beta * self.lengths])
        largest = terms.max(0)
        shares = np.exp(terms - largest)
        total = shares.sum(0)
        shares /= total
        residuals = (largest + np.log(total) - self.logs) / delta
        sizes = np.abs(residuals)
        huber = np.where(sizes <= 1, residuals**2 / 2, sizes - 0.5).sum()
        weights = shares * np.clip(residuals, -1, 1)
        slopes = [*weights.sum(1), -(weights[1] @ self.sizes), -(weights[2] @ self.lengths)]
        return float(huber) * delta, np.array(slopes)

    def starts(self) -> list[Floats]:
        """Starts of the grid, the best ones first."""
        points = [self._start(alpha, beta) for alpha in START_EXPONENTS for beta in START_EXPONENTS]
        return sorted(points, key=lambda point: self.value(point, HUBER_DELTA)[0])

    def _start(self, alpha: float, beta: float) -> Floats:
        from scipy.optimize import nnls

        columns = [np.ones_like(self.sizes), np.exp(-alpha * self.sizes), np.exp(-beta * self.lengths)]
        relative = np.stack(columns, 1) / self.runs.losses[:, None]
        factors, _ = nnls(relative, np.ones_like(self.sizes))
        # A term of 0 has no slope to grow by.
        return np.array([*np.log(np.maximum(factors, 1e-3 * self.runs.losses.min())), alpha, beta])

    def descended(self, start: Floats, delta: float) -> tuple[float, Floats]:
        """(least Huber loss, point) from a start."""
        from scipy.optimize import minimize

        options = {"maxiter": MAX_STEPS, "gtol": SLOPES[delta]}
        with np.errstate(all="ignore"):  # steps of the line search may overflow; their results are not finite
            result = minimize(self.value, start, args=(delta,), jac=True, method="BFGS", options=options)
        point = result.x if np.isfinite(result.x).all() else start
        return self.value(point, delta)[0], point

    def best(self, starts: Sequence[Floats]) -> ScalingLaw:
        """The law of the lowest end of the descents, each first with a coarse delta."""
        coarse = sorted((self.descended(start, COARSE_DELTA) for start in starts), key=itemgetter(0))
        ends = [self.descended(point, HUBER_DELTA) for _, point in coarse[: -(-len(coarse) // 2)]]
        return self._law(min(ends, key=itemgetter(0))[1])

    def _law(self, point: Floats) -> ScalingLaw:
        """Constants of a point."""
        log_e, log_a, log_b, alpha, beta = map(float, point)
        return ScalingLaw(
            math.exp(log_e),
            _exp(log_a + alpha * self.center[0]),
            _exp(log_b + beta * self.center[1]),
            alpha,
            beta,
        )

    def point(self, law: ScalingLaw) -> Floats:
        """The point of a law."""
        return np.array(
            [
                _log(law.irreducible),
                _log(law.parameter_term) - law.parameter_exponent * self.center[0],
                _log(law.token_term) - law.token_exponent * self.center[1],
                law.parameter_exponent,
                law.token_exponent,
            ]
        )


def fit_law(runs: Measurements) -> ScalingLaw:
    """The law with the least sum of Huber losses."""
    problem = _Problem(runs)
    return problem.best(problem.starts()[:DESCENTS])


def refit_law(runs: Measurements, near: ScalingLaw) -> ScalingLaw:
    """As `fit_law`, from the law of similar runs only."""
    problem = _Problem(runs)
    return problem.best([problem.point(near)])


def _exp(value: float) -> float:
    return math.exp(min(value, 700.0))


def _log(value: float) -> float:
    return math.log(max(value, 1e-300))
