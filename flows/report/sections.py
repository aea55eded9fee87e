"""What the report shows of each stage, as plain values and SVG for the template."""

import json
from typing import Any

from data_schemas.manifest import RunRecord
from flows.console import amount, duration
from flows.report import charts
from infra.artifacts import Artifact

BASELINES = ("unigram bytes", "xz", "xz after training text")


def tiles(artifacts: dict[str, Artifact], record: RunRecord) -> list[dict[str, str]]:
    """The headline figures."""
    shown = []
    if "benchmark" in artifacts:
        bits = {row["model"]: row["value"] for row in scores(artifacts) if row["metric"] == "bits per byte"}
        others = ", ".join(
            f"{name} {value:.2f}" for name, value in bits.items() if name not in ("pretrained", "compressed")
        )
        shown.append(tile("bits per byte, held out", f"{bits['pretrained']:.3f}", others))
        shown.append(
            tile("after compression", f"{bits['compressed']:.3f}", _change(bits["pretrained"], bits["compressed"]))
        )
    if "compress" in artifacts:
        passes = artifacts["compress"].manifest.metrics["passes"]
        first, last = passes[0]["bytes"], passes[-1]["bytes"]
        shown.append(
            tile("model on disk", amount(last, "B"), f"from {amount(first, 'B')}, {first / last:.1f} times smaller")
        )
    if "pretrain" in artifacts:
        metrics = artifacts["pretrain"].manifest.metrics
        shown.append(
            tile("parameters", amount(metrics["parameters"]), f"{amount(metrics['tokens'])} tokens of training")
        )
    seconds = sum(outcome.seconds for outcome in record.stages.values())
    ran = sum(outcome.action == "run" for outcome in record.stages.values())
    shown.append(tile("time of the stages", duration(seconds), f"{ran} run, {len(record.stages) - ran} reused"))
    return shown


def tile(label: str, value: str, note: str) -> dict[str, str]:
    """One headline figure."""
    return {"label": label, "value": value, "note": note}


def _change(before: float, after: float) -> str:
    return f"{100 * (after / before - 1):+.1f} % against before"


def funnel(artifacts: dict[str, Artifact]) -> dict[str, Any] | None:
    """Documents and bytes on their way through the data stages."""
    rows, dropped = [], []
    for stage in ("ingest", "clean", "dedup"):
        if stage not in artifacts:
            continue
        counts = artifacts[stage].manifest.counts
        rows.append((f"after {stage}", counts["documents_out"], counts["bytes_out"]))
        for name, documents in sorted(counts.items(), key=lambda item: -item[1]):
            if name.startswith("dropped.") and documents:
                share = documents / max(counts["documents_in"], 1)
                dropped.append(
                    (stage, name.removeprefix("dropped.").replace("_", " "), documents, f"{100 * share:.1f} %")
                )
    if "dedup" in artifacts:
        counts = artifacts["dedup"].manifest.counts
        rows.append(("to train on", counts["train_documents"], counts["train_bytes"]))
        rows.append(("held out", counts["held_out_documents"], counts["held_out_bytes"]))
    if not rows:
        return None
    colours = [charts.ORANGE if name == "held out" else charts.BLUE for name, *_ in rows]
    notes = [f"{amount(size, 'B')}, {documents:,} documents" for _, documents, size in rows]
    drawn = charts.bars([row[0] for row in rows], [row[2] for row in rows], notes, colours, "Bytes through the stages")
    tokens = artifacts["tokenize"].manifest if "tokenize" in artifacts else None
    return {"chart": drawn, "dropped": dropped, "tokens": tokens}


def training(artifacts: dict[str, Artifact]) -> dict[str, Any] | None:
    """Loss, learning rate and tokens per second over the tokens seen."""
    if "pretrain" not in artifacts:
        return None
    artifact = artifacts["pretrain"]
    rows = [json.loads(line) for line in artifact.read("training_log.jsonl").decode().splitlines()]
    metrics = artifact.manifest.metrics
    curves = {
        "Loss, nats per token": [row["loss"] for row in rows],
        "Learning rate": [row["learning_rate"] for row in rows],
        "Thousand tokens per second": [row["tokens_per_second"] / 1e3 for row in metrics["throughput"]],
        "Gradient norm": [row["gradient_norm"] for row in rows],
    }
    millions = [row["tokens"] / 1e6 for row in rows]
    return {
        "metrics": metrics,
        "charts": [(name, charts.line(millions, values, name)) for name, values in curves.items()],
    }


def compression(artifacts: dict[str, Artifact]) -> dict[str, Any] | None:
    """Each pass beside the uncompressed model."""
    if "compress" not in artifacts:
        return None
    passes = artifacts["compress"].manifest.metrics["passes"]
    first = passes[0]
    rows = [
        {
            "name": one["name"],
            "settings": ", ".join(f"{name} {value}" for name, value in one["settings"].items() if _tells(name, value)),
            "bytes": amount(one["bytes"], "B"),
            "smaller": f"{first['bytes'] / one['bytes']:.2f}",
            "zeros": f"{100 * (1 - one['nonzero_parameters'] / one['parameters']):.0f} %",
            "bits": f"{one['bits_per_byte']:.4f}",
            "loss": f"{100 * (one['bits_per_byte'] / first['bits_per_byte'] - 1):+.2f} %",
            "prefill": f"{one['prefill_tokens_per_second']:,.0f}",
            "decode": f"{one['decode_tokens_per_second']:,.0f}",
        }
        for one in passes
    ]
    return {"chart": charts.frontier(passes), "rows": rows}


def _tells(name: str, value: Any) -> bool:
    return value is not None and name != "kind"


def benchmark(artifacts: dict[str, Artifact]) -> dict[str, Any] | None:
    """Bits per byte beside the baselines, every score, and samples."""
    if "benchmark" not in artifacts:
        return None
    rows = scores(artifacts)
    bits = sorted((row for row in rows if row["metric"] == "bits per byte"), key=lambda row: -row["value"])
    colours = [charts.BLUE if row["model"] in ("pretrained", "compressed") else charts.MUTED for row in bits]
    drawn = charts.bars(
        [row["model"] for row in bits], [row["value"] for row in bits],
        [f"{row['value']:.3f}" for row in bits], colours,
        "Bits per byte on held-out text",
    )  # fmt: skip
    samples = json.loads(artifacts["benchmark"].read("samples.json"))
    return {"chart": drawn, "rows": rows, "samples": samples}


def scores(artifacts: dict[str, Artifact]) -> list[dict[str, Any]]:
    """The score table's rows."""
    return list(artifacts["benchmark"].read_table("scores.parquet").to_pylist())


def costs(artifacts: dict[str, Artifact], record: RunRecord) -> list[dict[str, str]]:
    """Seconds and peak memory of each stage, planned and measured."""
    rows = []
    for stage, artifact in artifacts.items():
        manifest, outcome = artifact.manifest, record.stages[stage]
        planned = manifest.estimate
        rows.append(
            {
                "stage": stage,
                "action": outcome.action,
                "planned_seconds": f"{planned.seconds:.0f}" if planned else "",
                "seconds": f"{manifest.seconds:.1f}",
                "seconds_ratio": f"{manifest.seconds / planned.seconds:.2f}" if planned else "",
                "planned_memory": amount(planned.peak_memory_bytes, "B") if planned else "",
                "memory": amount(manifest.peak_memory_bytes, "B"),
                "memory_ratio": f"{manifest.peak_memory_bytes / planned.peak_memory_bytes:.2f}" if planned else "",
                "flops": amount(planned.flops) if planned and planned.flops else "",
                "phases": ", ".join(f"{name} {duration(seconds)}" for name, seconds in manifest.phases.items()),
            }
        )
    return rows
