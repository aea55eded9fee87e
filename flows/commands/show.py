"""What `runs`, `show` and the end of a run print."""

from typing import Any

from rich.table import Table

from data_schemas.manifest import RunRecord
from flows.console import amount, console, duration
from flows.run_artifacts import manifests, report_location, status
from infra.store.artifacts import ArtifactStore


def runs_table(records: list[RunRecord]) -> None:
    """Print one line per run."""
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for title in ("run", "config", "status", "started", "stages", "rerun of"):
        table.add_column(title)
    for record in records:
        ran = sum(outcome.action == "run" for outcome in record.stages.values())
        rerun_of = f"{record.base_run}:{record.forced}" if record.base_run else ""
        stages = f"{ran} run, {len(record.stages) - ran} reused"
        table.add_row(
            record.run_id, record.config_name, status(record), f"{record.started:%Y-%m-%d %H:%M}", stages, rerun_of
        )
    console.print(table if records else "no runs yet; begin with: headrace run configs/demo.yaml")


def show_run(store_url: str, record: RunRecord) -> None:
    """Print what each stage of a run did, the scores, and where the report is."""
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for title in ("stage", "action", "seconds", "memory", "size", "artifact"):
        table.add_column(title, justify="right" if title in ("seconds", "memory", "size") else "left")
    by_stage = manifests(store_url, record)
    for stage, outcome in record.stages.items():
        if stage not in by_stage:
            console.print(f"the artifact {outcome.artifact.label} is gone from the store", markup=False)
            continue
        manifest = by_stage[stage]
        table.add_row(
            stage, outcome.action, duration(outcome.seconds), amount(manifest.peak_memory_bytes, "B"),
            amount(manifest.total_bytes, "B"), outcome.artifact.label,
        )  # fmt: skip
    console.print(f"run {record.run_id} ({record.config_name}): {status(record)}", markup=False)
    console.print(table)
    _print_scores(store_url, record)
    if record.message:
        console.print(record.message, markup=False)
    where = report_location(store_url, record)
    if where:
        console.print(f"report: {where}", markup=False)


def _print_scores(store_url: str, record: RunRecord) -> None:
    outcome = record.stages.get("benchmark")
    if outcome is None:
        return
    scores_table(ArtifactStore(store_url).open(outcome.artifact).read_table("scores.parquet").to_pylist())


def scores_table(scores: list[dict[str, Any]]) -> None:
    """Print rows of the SCORES schema."""
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for title in ("task", "model", "metric", "value", "95 % interval"):
        table.add_column(title, justify="right" if title in ("value", "95 % interval") else "left")
    for row in scores:
        interval = "" if row["low"] is None else f"{row['low']:.3f} - {row['high']:.3f}"
        value = (row["note"] or "not run") if row["value"] is None else f"{row['value']:.3f}"
        table.add_row(row["task"], row["model"], row["metric"], value, interval)
    console.print(table)


def run_summary(store_url: str, record: RunRecord) -> dict[str, Any]:
    """The object that `--json` prints."""
    found = manifests(store_url, record)
    return {
        "run_id": record.run_id,
        "status": status(record),
        "config": record.config_name,
        "stages": [
            {
                "stage": stage,
                "action": record.stages[stage].action,
                "why": record.stages[stage].why,
                "artifact": record.stages[stage].artifact.label,
                "seconds": record.stages[stage].seconds,
                "digest": manifest.digest,
                "counts": manifest.counts,
                "peak_memory_bytes": manifest.peak_memory_bytes,
            }
            for stage, manifest in found.items()
        ],
        "report": report_location(store_url, record),
        "metrics": {stage: manifest.metrics for stage, manifest in found.items() if manifest.metrics},
    }
