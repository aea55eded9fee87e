"""Benchmark: a row per task with the models against the baselines, all its scores, and generated text.

- `benchmark`: the section
- `read_scores`, `bits_per_byte`, `not_run`: what the headline and the terminal take from the score table
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from infra.store.artifacts import Artifact

MODELS = {"pretrained": "network", "compressed": "compressed"}
"""The run's own models -> the tone that the page draws them in; all other models are baselines."""
Score = dict[str, Any]
"""A row of the SCORES schema."""


@dataclass(frozen=True)
class Mark:
    """A model's score on the scale of its row."""

    label: str
    tone: str
    """`network`, `compressed`, or `plain` for a baseline."""
    position: float
    """Per cent of the scale."""
    interval: tuple[float, float] | None
    """Left end and width of the 95 % interval, per cent of the scale."""


@dataclass(frozen=True)
class TaskRow:
    """One task: its first metric as a picture, and all its scores."""

    task: str
    metric: str
    protocol: str
    direction: str
    marks: list[Mark]
    figures: dict[str, str]
    """pretrained, compressed -> value; empty if there is none."""
    baseline: tuple[str, str] | None
    """Name and value of the best baseline."""
    rows: list[Score]
    """Metric by metric, the best model first."""


@dataclass(frozen=True)
class NotRun:
    """Tasks without a score."""

    tasks: list[str]
    reason: str


@dataclass(frozen=True)
class Sample:
    """Continuations of one prompt."""

    prompt: str
    texts: list[tuple[str, str]]
    """(model, text)."""


@dataclass(frozen=True)
class Benchmark:
    """Contents of the section."""

    tasks: list[TaskRow]
    not_run: list[NotRun]
    samples: list[Sample]


def benchmark(artifact: Artifact, scores: list[Score]) -> Benchmark:
    """The section, from the score table and the samples."""
    measured = [row for row in scores if row["value"] is not None]
    tasks = dict.fromkeys(row["task"] for row in measured)
    rows = [_task([row for row in measured if row["task"] == task]) for task in tasks]
    return Benchmark(rows, not_run(scores), _samples(artifact))


def read_scores(artifact: Artifact) -> list[Score]:
    """The score table."""
    artifact.check_sizes()
    return list(artifact.read_table("scores.parquet").to_pylist())


def bits_per_byte(scores: list[Score]) -> dict[str, float]:
    """Model or baseline -> bits per byte on held-out text."""
    return {row["model"]: row["value"] for row in scores if row["metric"] == "bits per byte"}


def not_run(scores: list[Score]) -> list[NotRun]:
    """Tasks without a score by their reason, in the order of the table."""
    tasks: dict[str, dict[str, None]] = {}
    for row in scores:
        if row["value"] is None:
            reason = (row["note"] or "no reason recorded").removeprefix("not run: ")
            tasks.setdefault(reason, {})[row["task"]] = None
    return [NotRun(list(names), reason) for reason, names in tasks.items()]


def _task(rows: list[Score]) -> TaskRow:
    metrics = dict.fromkeys(row["metric"] for row in rows)
    by_metric = {metric: _best_first([row for row in rows if row["metric"] == metric]) for metric in metrics}
    # A model's first metric: baselines may have more than the models.
    metric = next((row["metric"] for row in rows if row["model"] in MODELS), rows[0]["metric"])
    shown = by_metric[metric]
    models = {row["model"]: row for row in shown if row["model"] in MODELS}
    baseline = next((row for row in shown if row["model"] not in MODELS), None)
    return TaskRow(
        task=rows[0]["task"],
        metric=metric,
        protocol=next((row["protocol"] for row in [*models.values(), *rows] if row.get("protocol")), ""),
        direction="higher is better" if shown[0]["higher_is_better"] else "lower is better",
        marks=_marks(shown),
        figures={model: f"{models[model]['value']:.3f}" if model in models else "" for model in MODELS},
        baseline=(baseline["model"], f"{baseline['value']:.3f}") if baseline else None,
        rows=[row for group in by_metric.values() for row in group],
    )


def _best_first(rows: list[Score]) -> list[Score]:
    sign = -1 if rows[0]["higher_is_better"] else 1
    return sorted(rows, key=lambda row: sign * row["value"])


def _marks(rows: Sequence[Score]) -> list[Mark]:
    """Baselines first, so that the models are drawn over them."""
    low, high = _scale([row[name] for row in rows for name in ("value", "low", "high") if row[name] is not None])
    marks = []
    for row in sorted(rows, key=lambda row: list(MODELS).index(row["model"]) if row["model"] in MODELS else -1):
        position, *ends = (
            None if row[name] is None else round(100 * (row[name] - low) / (high - low), 2)
            for name in ("value", "low", "high")
        )
        assert position is not None
        left, right = ends
        interval = None if left is None or right is None else (left, round(right - left, 2))
        label = f"{row['model']} {row['value']:.3f}"
        marks.append(Mark(label, MODELS.get(row["model"], "plain"), position, interval))
    return marks


def _scale(values: Sequence[float]) -> tuple[float, float]:
    """0 to 1 if that holds all values, else -1 to 1, else from 0 or the lowest value to the highest."""
    low, high = min(values), max(values)
    if high <= 1:
        return (0.0, 1.0) if low >= 0 else (min(-1.0, low), 1.0)
    return min(0.0, low), high


def _samples(artifact: Artifact) -> list[Sample]:
    texts: dict[str, list[tuple[str, str]]] = {}
    for sample in json.loads(artifact.read("samples.json")):
        texts.setdefault(sample["prompt"], []).append((sample["model"], sample["text"]))
    return [Sample(prompt, continuations) for prompt, continuations in texts.items()]
