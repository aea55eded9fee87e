"""Failures of a job on many devices: checkpoints, restarts and lost work, simulated event by event.

- `Failures`: mean time between failures, seconds of a checkpoint and of a restart
- `young_interval`, `daly_interval`, `expected_goodput`: the formulas (Young 1974, 10.1145/361147.361115; Daly 2006,
  10.1016/j.future.2004.11.016)
- `simulate_goodput`, `best_interval`, `simulate_run`: the simulation that checks them and gives intervals over seeds

Failures are independent and have no memory, so that those of N devices arrive N times as often as those of one; they
also strike checkpoints and restarts, which begin again.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from random import Random
from statistics import fmean

SEEDS = 20
"""Simulated runs: 18 of 20 lie between the second lowest and the second highest."""
SEARCHED_FAILURES = 1_000
"""Failures per seed that the best interval is searched on, the same for all intervals."""
MAX_FAILURES = 5_000
"""Expected failures up to which a run is simulated whole."""
LONGEST_SPAN = 4.0
"""Intervals are searched from a fourth to four times Daly's."""
STEPS = 40
FIT_SPAN = 1.6
"""Intervals near the best that a parabola is fitted to."""
LARGEST_EXPONENT = 50.0


@dataclass(frozen=True)
class Failures:
    """Failures and their costs, in seconds."""

    mtbf: float
    """Mean time between failures of the whole job."""
    checkpoint: float
    """Time that a checkpoint stops training."""
    restart: float
    """Time from a failure to training."""


@dataclass(frozen=True)
class SimulatedRun:
    """Result over the seeds."""

    interval: float
    """Best seconds of training between checkpoints."""
    goodput: float
    """Mean share of the time that trains."""
    low: float
    """Second lowest of the seeds."""
    high: float
    """Second highest."""
    seconds: float
    """Simulated time of each seed: the whole run, or its first `MAX_FAILURES` failures."""


def young_interval(failures: Failures) -> float:
    """Best seconds between checkpoints, to first order."""
    return math.sqrt(2 * failures.checkpoint * failures.mtbf)


def daly_interval(failures: Failures) -> float:
    """Best seconds between checkpoints, Daly's higher-order estimate; `mtbf` if a checkpoint takes twice that."""
    ratio = failures.checkpoint / (2 * failures.mtbf)
    if ratio >= 1:
        return failures.mtbf
    return young_interval(failures) * (1 + math.sqrt(ratio) / 3 + ratio / 9) - failures.checkpoint


def expected_goodput(failures: Failures, interval: float) -> float:
    """Share of an endless run that trains, exactly (Daly's complete model); exponents end at 50, to stay finite."""
    cycle = (interval + failures.checkpoint) / failures.mtbf
    restart = math.exp(-min(failures.restart / failures.mtbf, LARGEST_EXPONENT))
    return interval / failures.mtbf * restart / math.expm1(min(cycle, LARGEST_EXPONENT))


def failure_gaps(failures: Failures, seconds: float, seed: int) -> list[float]:
    """Seconds between failures; the last gap ends with the run, without a failure."""
    random, gaps, left = Random(seed), [], seconds
    while (gap := random.expovariate(1 / failures.mtbf)) < left:
        gaps.append(gap)
        left -= gap
    return [*gaps, left]


def simulate_goodput(failures: Failures, interval: float, gaps: Sequence[float]) -> float:
    """Share of the time that trains, of one run.

    Training is kept up to the last checkpoint before each failure, and up to the end of the last gap.

    Args:
        failures: costs of a checkpoint and a restart.
        interval: seconds of training between checkpoints.
        gaps: seconds between failures, as from `failure_gaps`; the run starts without a restart.
    """
    cycle = interval + failures.checkpoint
    restart, checkpoints = 0.0, 0
    for gap in gaps[:-1]:
        if gap > restart:
            checkpoints += int((gap - restart) / cycle)
        restart = failures.restart
    whole, rest = divmod(max(gaps[-1] - restart, 0.0), cycle)
    return ((checkpoints + whole) * interval + min(rest, interval)) / sum(gaps)


def best_interval(failures: Failures, seeds: int = SEEDS) -> float:
    """Seconds between checkpoints with the largest mean goodput, of all seeds' failures.

    The largest of `STEPS` intervals, refined by the vertex of a parabola over the logarithm of the interval. Daly's if
    no interval keeps any work.
    """
    runs = [failure_gaps(failures, SEARCHED_FAILURES * failures.mtbf, seed) for seed in range(seeds)]
    center, half = daly_interval(failures), math.log(LONGEST_SPAN)
    logs = [half * (2 * step / STEPS - 1) for step in range(STEPS + 1)]
    shares = [fmean(simulate_goodput(failures, center * math.exp(log), gaps) for gaps in runs) for log in logs]
    best = logs[shares.index(max(shares))]
    if max(shares) == 0:
        return center
    near = [
        (log - best, share) for log, share in zip(logs, shares, strict=True) if abs(log - best) < math.log(FIT_SPAN)
    ]
    return center * math.exp(best + _vertex(near))


def _vertex(points: Sequence[tuple[float, float]]) -> float:
    """Abscissa of the top of the least-squares parabola; 0 if it has none among the points."""
    mean, top = fmean(x for x, _ in points), fmean(y for _, y in points)
    spread = fmean((x - mean) ** 2 for x, _ in points)
    slope = sum((x - mean) * (y - top) for x, y in points) / (spread * len(points))
    squares = [(x - mean) ** 2 - spread for x, _ in points]
    curve = sum(square * (y - top) for square, (_, y) in zip(squares, points, strict=True))
    curve /= sum(square * square for square in squares)
    found = mean - slope / (2 * curve) if curve < 0 else 0.0
    return min(max(found, points[0][0]), points[-1][0])


@cache
def simulate_run(failures: Failures, training_seconds: float, seeds: int = SEEDS) -> SimulatedRun:
    """Goodput of a run at its best interval, and its interval over seeds; deterministic.

    Args:
        failures: rate and costs.
        training_seconds: wall time of the run, in seconds.
        seeds: number of runs, at least 4.
    """
    interval = best_interval(failures, seeds)
    seconds = min(training_seconds, MAX_FAILURES * failures.mtbf)
    runs = (failure_gaps(failures, seconds, seed) for seed in range(seeds))
    shares = sorted(simulate_goodput(failures, interval, gaps) for gaps in runs)
    return SimulatedRun(interval, fmean(shares), shares[1], shares[-2], seconds)
