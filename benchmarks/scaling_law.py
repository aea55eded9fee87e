"""Fits of scaling laws held against known constants: `python -m benchmarks.scaling_law [--quick] [--runs FILE]`.

- Grids of runs are drawn from known constants, with scatter, and fitted: how often the 95 % intervals hold alpha, beta,
  the loss of a run of twice the largest size, and that of one of six times
- --runs: a CSV file with the columns `Model Size`, `Training FLOP` and `loss`, such as the points that Besiroglu et al.
  2024 (2404.10102) took from Chinchilla's figure (github.com/epoch-research/analyzing-chinchilla): constants without
  the five runs of the highest loss, as there (E 1.8172, A 482.01, B 2085.43, alpha 0.3478, beta 0.3658), and the
  largest fifth of the sizes predicted from the others
"""

import argparse
import csv
import json
import math
from pathlib import Path

import numpy as np

from infra.planner.scaling_intervals import fitted
from infra.planner.scaling_law import Measurements, ScalingLaw

SIZES, LENGTHS = (57e3, 132e3, 262e3, 651e3), (2e5, 4e5, 8e5, 1.6e6)
TRUTH = ScalingLaw(1.0, 0.8 * 2e5**0.35, 1.0 * 6e5**0.4, 0.35, 0.4)
FORETOLD = {"twice": (1.3e6, 1.6e6), "six times": (4e6, 5e6)}
SCATTERS = (0.002, 0.005, 0.01)
OUTLIERS = 5
LARGEST_SHARE = 0.2
LABELS = {
    "E": lambda law: law.irreducible,
    "A": lambda law: law.parameter_term,
    "B": lambda law: law.token_term,
    "alpha": lambda law: law.parameter_exponent,
    "beta": lambda law: law.token_exponent,
}


def coverage(scatter: float, grids: int, resamples: int) -> dict[str, float]:
    """Shares of grids whose intervals hold the truth."""
    parameters, tokens = map(np.ravel, np.meshgrid(SIZES, LENGTHS))
    inside: dict[str, list[bool]] = {}
    for seed in range(grids):
        noise = np.random.default_rng(seed)
        losses = TRUTH.loss(parameters, tokens) * np.exp(scatter * noise.standard_normal(len(parameters)))
        fit = fitted(Measurements(parameters, tokens, losses), seed, resamples)
        for name, exponent in (("alpha", TRUTH.parameter_exponent), ("beta", TRUTH.token_exponent)):
            _, low, high = fit.interval(LABELS[name])
            inside.setdefault(name, []).append(low <= exponent <= high)
        for name, point in FORETOLD.items():
            _, low, high = fit.run_interval(*point)
            run = float(TRUTH.loss(*point)) * math.exp(scatter * noise.standard_normal())
            inside.setdefault(name, []).append(low <= run <= high)
    return {name: float(np.mean(values)) for name, values in inside.items()}


def published(path: str, resamples: int) -> dict[str, float]:
    """Constants of published runs, and errors of the largest ones predicted from the others."""
    with Path(path).open(encoding="utf-8") as file:
        rows = [
            (float(row["Model Size"]), float(row["Training FLOP"]), float(row["loss"])) for row in csv.DictReader(file)
        ]
    sizes, flops, losses = np.array(sorted(rows, key=lambda row: row[2])[: len(rows) - OUTLIERS]).T
    runs = Measurements(sizes, flops / 6 / sizes, losses)
    everything = fitted(runs, 0, resamples)
    for name, statistic in LABELS.items():
        value, low, high = everything.interval(statistic)
        print(f"  {name} {value:.4f} ({low:.4f} to {high:.4f})")
    largest = sizes > np.quantile(sizes, 1 - LARGEST_SHARE)
    fit = fitted(runs.taken(~largest), 0, resamples)
    expected = np.array([fit.run_interval(*point) for point in zip(sizes[largest], runs.tokens[largest], strict=True)])
    errors = np.abs(expected[:, 0] / losses[largest] - 1)
    inside = (expected[:, 1] <= losses[largest]) & (losses[largest] <= expected[:, 2])
    print(
        f"  {largest.sum()} runs above {sizes[~largest].max():.3g} parameters predicted from {(~largest).sum()} others"
    )
    return {
        "alpha": everything.law.parameter_exponent,
        "beta": everything.law.token_exponent,
        "predicted_mean_error_percent": round(100 * float(errors.mean()), 2),
        "predicted_largest_error_percent": round(100 * float(errors.max()), 2),
        "predicted_inside_interval": round(float(inside.mean()), 3),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="fits of scaling laws held against known constants")
    parser.add_argument("--quick", action="store_true", help="fewer grids and samples")
    parser.add_argument("--runs", metavar="FILE", help="published runs as CSV")
    arguments = parser.parse_args()
    grids, resamples = (30, 40) if arguments.quick else (200, 100)
    results: dict[str, float] = {}
    print(f"share of {grids} grids of {len(SIZES) * len(LENGTHS)} runs whose 95 % intervals hold the truth")
    for scatter in SCATTERS:
        shares = coverage(scatter, grids, resamples)
        print(f"  scatter {100 * scatter:g} %: " + ", ".join(f"{name} {share:.2f}" for name, share in shares.items()))
        results |= {f"coverage_{name.replace(' ', '_')}_{scatter:g}": share for name, share in shares.items()}
    if arguments.runs:
        results |= published(arguments.runs, resamples)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
