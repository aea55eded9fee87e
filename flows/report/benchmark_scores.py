"""Benchmark: the networks beside the baselines, every score, and text they generated."""

import json
from dataclasses import dataclass
from typing import Any

from flows.report.bars import Bar, Quantity, bars
from infra.store.artifacts import Artifact

CHARTED = (("held-out text", "bits per byte"), ("winograd", "accuracy"))
AVERAGE = "GLUE average"
TONES = {"pretrained": "network", "compressed": "compressed"}
Score = dict[str, Any]
"""A row of the SCORES schema."""


@dataclass(frozen=True)
class TaskScores:
    """All models on one task by one metric, the best first."""

    task: str
    metric: str
    protocol: str
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
    charts: list[TaskScores]
    """Those that are drawn as well."""
    not_run: list[tuple[str, str]]
    """(tasks, why they have no score)."""
    samples: list[Sample]


def benchmark(artifact: Artifact, scores: list[Score]) -> Benchmark:
    """The section, from the score table and the samples."""
    measured = [row for row in scores if row["value"] is not None]
    names = dict.fromkeys((row["task"], row["metric"]) for row in measured)
    tasks = [_task([row for row in measured if (row["task"], row["metric"]) == name]) for name in names]
    charts = [task for task in tasks if (task.task, task.metric) in CHARTED or task.task == AVERAGE]
    return Benchmark(tasks, charts, _not_run(scores), _samples(artifact))


def read_scores(artifact: Artifact) -> list[Score]:
    """The score table."""
    artifact.check_sizes()
    return list(artifact.read_table("scores.parquet").to_pylist())


def bits_per_byte(scores: list[Score]) -> dict[str, float]:
    """Model or baseline -> bits per byte on held-out text."""
    return {row["model"]: row["value"] for row in scores if row["metric"] == "bits per byte"}


def _not_run(scores: list[Score]) -> list[tuple[str, str]]:
    tasks: dict[str, dict[str, None]] = {}
    for row in scores:
        if row["value"] is None:
            tasks.setdefault(row["note"] or "not run", {})[row["task"]] = None
    return [(", ".join(names), reason) for reason, names in tasks.items()]


def _task(rows: list[Score]) -> TaskScores:
    higher = rows[0]["higher_is_better"]
    rows = sorted(rows, key=lambda row: -row["value"] if higher else row["value"])
    quantities = [
        Quantity(
            row["model"], row["value"], f"{row['value']:.3f}", TONES.get(row["model"], "plain"), row["low"], row["high"]
        )
        for row in rows
    ]
    # A baseline may have one of its own, and stands first where it is better.
    asked = sorted(rows, key=lambda row: row["model"] not in TONES)
    protocol = next((row["protocol"] for row in asked if row.get("protocol")), "")
    direction = "higher is better" if higher else "lower is better"
    return TaskScores(rows[0]["task"], rows[0]["metric"], protocol, direction, bars(quantities), rows)


def _samples(artifact: Artifact) -> list[Sample]:
    texts: dict[str, list[tuple[str, str]]] = {}
    for sample in json.loads(artifact.read("samples.json")):
        texts.setdefault(sample["prompt"], []).append((sample["model"], sample["text"]))
    return [Sample(prompt, found) for prompt, found in texts.items()]
