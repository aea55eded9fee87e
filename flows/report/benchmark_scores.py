"""Benchmark: the networks beside the baselines, every score, and text they generated."""

import json
from dataclasses import dataclass
from typing import Any

from flows.report.bars import Bar, Quantity, bars
from infra.artifacts import Artifact

TONES = {"pretrained": "network", "compressed": "compressed"}
Score = dict[str, Any]
"""A row of the SCORES schema."""


@dataclass(frozen=True)
class TaskScores:
    """All models on one task by one metric, the best first."""

    task: str
    metric: str
    direction: str
    bars: list[Bar]
    rows: list[Score]


@dataclass(frozen=True)
class Sample:
    """What the models made of one prompt."""

    prompt: str
    texts: list[tuple[str, str]]
    """(model, text)."""


@dataclass(frozen=True)
class Benchmark:
    """What the section shows."""

    tasks: list[TaskScores]
    samples: list[Sample]


def benchmark(artifact: Artifact, scores: list[Score]) -> Benchmark:
    """The section, from the score table and the samples."""
    tasks = dict.fromkeys((row["task"], row["metric"]) for row in scores)
    return Benchmark([_task(task, metric, scores) for task, metric in tasks], _samples(artifact))


def read_scores(artifact: Artifact) -> list[Score]:
    """The score table."""
    artifact.check_sizes()
    return list(artifact.read_table("scores.parquet").to_pylist())


def bits_per_byte(scores: list[Score]) -> dict[str, float]:
    """Model or baseline -> bits per byte on held-out text."""
    return {row["model"]: row["value"] for row in scores if row["metric"] == "bits per byte"}


def _task(task: str, metric: str, scores: list[Score]) -> TaskScores:
    rows = [row for row in scores if (row["task"], row["metric"]) == (task, metric)]
    higher = rows[0]["higher_is_better"]
    rows.sort(key=lambda row: -row["value"] if higher else row["value"])
    quantities = [
        Quantity(
            row["model"], row["value"], f"{row['value']:.3f}", TONES.get(row["model"], "plain"), row["low"], row["high"]
        )
        for row in rows
    ]
    return TaskScores(task, metric, "higher is better" if higher else "lower is better", bars(quantities), rows)


def _samples(artifact: Artifact) -> list[Sample]:
    texts: dict[str, list[tuple[str, str]]] = {}
    for sample in json.loads(artifact.read("samples.json")):
        texts.setdefault(sample["prompt"], []).append((sample["model"], sample["text"]))
    return [Sample(prompt, found) for prompt, found in texts.items()]
