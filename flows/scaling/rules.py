"""Settings of the fitted runs carried to other sizes and lengths: learning rate, batch and shape.

- `rule_of`, `batch_of`: learning rate and batch as powers of parameters and tokens; constants if all runs have the same
- `shapes`, `grown_shapes`: networks between and beyond the sizes of the runs, with heads as wide and layers as they had
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from pydantic import ValidationError

from flows.scaling.fit import Grid, GridRun
from modeling.evaluation.config_counts import active_parameters
from modeling.transformer_config import TransformerConfig

MAX_FACTOR = 1.5
"""Factor from a rule within which a setting is taken to follow it."""
MAX_WIDTHS = 2_000
RUN_FIELDS = {"peak_learning_rate": "learning_rate", "batch_tokens": "batch_tokens"}


def rule_of(grid: Grid, field: str) -> Callable[[float, float], float]:
    """Value of a field of `pretrain` by parameters and tokens: the least-squares power law of the runs' values.

    The runs' values are what was tuned, by hand or by muP (`base_width`), under which one rate suits all widths.
    """
    values = [float(getattr(run, RUN_FIELDS[field])) for run in grid.runs]
    if len(set(values)) == 1:
        return lambda parameters, tokens: values[0]
    rows = np.array([[1, math.log(run.parameters), math.log(run.tokens)] for run in grid.runs])
    factors = np.linalg.lstsq(rows, np.log(values), rcond=None)[0]
    return lambda parameters, tokens: math.exp(factors @ [1, math.log(parameters), math.log(tokens)])


def batch_of(grid: Grid, parameters: float, tokens: float) -> int:
    """Tokens per batch by the runs' rule, a multiple of their greatest common divisor."""
    unit = math.gcd(*(run.batch_tokens for run in grid.runs))
    return max(1, round(rule_of(grid, "batch_tokens")(parameters, tokens) / unit)) * unit


def shapes(grid: Grid) -> Iterator[dict[str, Any]]:
    """Shapes by growing width, up to `max_extrapolation` times the parameters of the largest run."""
    limit = max(run.parameters for run in grid.runs) * grid.max_extrapolation
    for shape, network in grown_shapes(grid.runs, grid.vocabulary_size):
        if active_parameters(network) > limit:
            return
        yield shape


def grown_shapes(grid: Sequence[GridRun], vocabulary_size: int) -> Iterator[tuple[dict[str, Any], TransformerConfig]]:
    """Shapes by growing width, with their networks, from that of the smallest run to far beyond the largest.

    Heads are as wide as the largest network's (widen by adding heads). Layers follow those of the runs, linearly over
    log width, and beyond the largest in proportion to the width.
    """
    runs = sorted({run.parameters: run for run in grid}.values(), key=lambda run: run.parameters)
    largest, smallest = runs[-1].model, runs[0].model
    head = largest["width"] // largest["heads"]
    first = max(1, smallest["width"] // head)
    for heads in range(first, first + MAX_WIDTHS):
        shape = _shape(runs, largest, heads, head)
        network = _valid(shape, vocabulary_size)
        if network is not None:
            yield shape, network


def _shape(runs: Sequence[GridRun], largest: dict[str, Any], heads: int, head: int) -> dict[str, Any]:
    width = heads * head
    by_width = sorted({run.model["width"]: run.model["layers"] for run in runs}.items())
    layers = float(np.interp(math.log(width), [math.log(w) for w, _ in by_width], [n for _, n in by_width]))
    if width > largest["width"] and len({layers for _, layers in by_width}) > 1:
        layers = largest["layers"] * width / largest["width"]
    kinds = len(largest["attention"])
    return largest | {
        "width": width,
        "heads": heads,
        "layers": max(1, round(layers / kinds)) * kinds,
        "feed_forward_width": round(largest["feed_forward_width"] / largest["width"] * width),
    }


def _valid(shape: dict[str, Any], vocabulary_size: int) -> TransformerConfig | None:
    try:
        return TransformerConfig(**shape, vocabulary_size=vocabulary_size)
    except ValidationError:
        return None
