"""Benchmark results: rows of the tables SCORES and ITEMS.

- `TaskResult`: a row of SCORES with the rows of ITEMS that it summarizes
- `score_row`, `item_row`: rows of the two tables
- `single_value`: a score without interval and items
- `missing_score`, `unsupported_model`: rows for scores that could not be measured, with the reason
"""

import json
import math
from dataclasses import dataclass
from typing import Any

from stages.common.statistics import Interval


@dataclass(frozen=True)
class TaskResult:
    """A row of the table SCORES and the rows of the table ITEMS that it summarizes."""

    score: dict[str, Any]
    items: list[dict[str, Any]]


def score_row(
    task: str,
    model: str,
    metric: str,
    interval: Interval,
    items: int,
    higher_is_better: bool,
    protocol: str | None = None,
    note: str | None = None,
) -> dict[str, Any]:
    """A row of the table SCORES; interval bounds that are NaN become null."""
    low, high = (None if math.isnan(bound) else bound for bound in (interval.low, interval.high))
    return {
        "task": task, "model": model, "metric": metric, "value": interval.value, "low": low, "high": high,
        "items": items, "higher_is_better": higher_is_better, "protocol": protocol, "note": note,
    }  # fmt: skip


def item_row(
    task: str,
    item: str,
    model: str,
    output: dict[str, Any],
    numerator: float,
    denominator: float,
    prompt: str | None = None,
) -> dict[str, Any]:
    """A row of the table ITEMS."""
    return {
        "task": task, "item": item, "model": model, "output": json.dumps(output, ensure_ascii=False),
        "numerator": numerator, "denominator": denominator, "prompt": prompt,
    }  # fmt: skip


def point_estimate(value: float) -> Interval:
    """A value without a confidence interval."""
    return Interval(value, math.nan, math.nan)


def single_value(
    task: str, model: str, metric: str, value: float, protocol: str | None = None, note: str | None = None
) -> TaskResult:
    """A score without interval and items, such as the expected score of random choice."""
    return TaskResult(score_row(task, model, metric, point_estimate(value), 0, True, protocol, note), [])


def missing_score(task: str, metric: str, reason: str, protocol: str | None = None, model: str = "") -> TaskResult:
    """A row without value for a score that could not be measured; `reason` becomes its note."""
    row = score_row(task, model, metric, point_estimate(math.nan), 0, True, protocol, reason)
    return TaskResult(row | {"value": None}, [])


def unsupported_model(task: str, model: str) -> TaskResult:
    """A row without value for a task that does not support the architecture of a checkpoint."""
    reason = (
        f"not run on {model}: it needs a network that Headrace itself can represent, and transformers runs this one"
    )
    return missing_score(task, "", reason, model=model)
