"""Pretraining: loss, learning rate, throughput and gradient norm over the tokens seen."""

import json
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from flows.console import amount, duration
from flows.report.charts import Curve, curve_chart
from infra.store.artifacts import Artifact


@dataclass(frozen=True)
class Training:
    """Contents of the section."""

    summary: list[str]
    charts: list[tuple[str, Markup]]
    restarts: str
    """Steps from which training resumed after an interruption; empty without one."""
    time: str
    """Share of step time per phase; empty in manifests written before it was measured."""
    ensemble: list[dict[str, Any]]
    """The last step's weights and averages of several steps: name, members, loss, gain, chosen."""
    events: list[dict[str, Any]]
    """Skipped steps and rewinds."""
    sample: list[str]
    """Texts generated at the last sampling."""


def training(artifact: Artifact) -> Training:
    """The section, from the training log and the metrics."""
    artifact.check_sizes()
    rows = [json.loads(line) for line in artifact.read("training_log.jsonl").splitlines()]
    metrics = artifact.manifest.metrics
    restarts = [step for step in metrics["starts"] if step]
    return Training(
        summary=_summary(metrics),
        charts=[(curve.title, curve_chart(curve)) for curve in _curves(rows, metrics, restarts)],
        restarts=", ".join(f"{step:,}" for step in restarts),
        time=", ".join(f"{name} {share:.1%}" for name, share in metrics.get("share_of_time", {}).items()),
        ensemble=_ensemble(metrics.get("ensemble", {})),
        events=metrics.get("events", []),
        sample=_last_sample(artifact),
    )


def _ensemble(metrics: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "name": row["name"],
            "members": ", ".join(f"{step:,}" for step in row["members"]),
            "loss": f"{row['loss']:.4f}",
            "gain": f"{row['gain']:+.4f}",
            "chosen": row["name"] == metrics["chosen"],
        }
        for row in metrics.get("candidates", [])
    ]


def _last_sample(artifact: Artifact) -> list[str]:
    if not artifact.paths("samples.jsonl"):
        return []
    texts: list[str] = json.loads(artifact.read("samples.jsonl").splitlines()[-1])["texts"]
    return texts


def _curves(rows: list[dict[str, Any]], metrics: dict[str, Any], restarts: list[int]) -> list[Curve]:
    tokens = [row["tokens"] for row in rows]
    rates = [row["tokens_per_second"] for row in metrics["throughput"]]
    marks = [step * metrics["tokens"] / metrics["steps"] for step in restarts]
    return [
        Curve("Loss, nats per token", tokens, [row["loss"] for row in rows], smoothed=True, restarts=marks),
        Curve("Learning rate", tokens, [row["learning_rate"] for row in rows], from_zero=True, restarts=marks),
        Curve("Tokens per second", tokens, rates, from_zero=True, restarts=marks),
        Curve("Gradient norm", tokens, [row["gradient_norm"] for row in rows], smoothed=True, restarts=marks),
    ]


def _summary(metrics: dict[str, Any]) -> list[str]:
    return [
        f"{metrics['parameters']:,} parameters",
        f"{metrics['tokens']:,} tokens, {metrics['epochs']:.1f} epochs",
        f"{metrics['steps']:,} steps in {duration(metrics['training_seconds'])}",
        f"final loss {metrics['final_loss']:.3f}",
        f"{amount(metrics['tokens_per_second'])} tokens/s",
        f"{amount(metrics['model_flops_per_second'], 'FLOP/s')} in {metrics['precision']}",
        *_utilization(metrics),
    ]


def _utilization(metrics: dict[str, Any]) -> list[str]:
    ceiling = metrics.get("device_flops_per_second")
    return [f"{metrics['model_flops_per_second'] / ceiling:.0%} of the devices' matrix-product rate"] if ceiling else []
