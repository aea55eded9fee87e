"""`headrace runs`, `headrace show --scores`, and the JSON of `show` and `run`."""

from collections.abc import Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from data_schemas.errors import NotFoundError
from data_schemas.manifest import RunRecord
from flows.console import console
from flows.report.benchmark_scores import Score, not_run, read_scores
from flows.run_artifacts import manifests, report_location, status
from infra.store.artifacts import ArtifactStore
from infra.store.runs import UnreadableRun, process_of


def print_runs(records: Sequence[RunRecord], unreadable: Sequence[UnreadableRun]) -> None:
    """Print one line per run, then one for each that this version cannot read."""
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for title in ("run", "config", "status", "started", "stages", "rerun of"):
        table.add_column(title)
    for record in records:
        ran = sum(outcome.action == "run" for outcome in record.stages.values())
        rerun_of = f"{record.base_run}:{record.forced}" if record.base_run else ""
        stages = f"{ran} run, {len(record.stages) - ran} reused"
        where = f" on {record.host}" if record.status == "running" and not process_of(record).is_in_sight else ""
        table.add_row(
            record.run_id,
            record.config_name,
            status(record) + where,
            f"{record.started:%Y-%m-%d %H:%M}",
            stages,
            rerun_of,
        )
    for run in unreadable:
        table.add_row(run.run_id, "", "unreadable", "", "", "")
    console.print(table if table.rows else "no runs yet; begin with: headrace run configs/demo.yaml")
    for run in unreadable:
        console.print(f"unreadable: {run.problem}", markup=False)


def runs_json(records: Sequence[RunRecord], unreadable: Sequence[UnreadableRun]) -> dict[str, Any]:
    """The object that `headrace runs --json` prints."""
    rows = [record.model_dump(mode="json", exclude={"config"}) | {"status": status(record)} for record in records]
    rows += [
        {"run_id": run.run_id, "status": "unreadable", "written_by": run.written_by, "problem": run.problem}
        for run in unreadable
    ]
    return {"runs": rows}


def print_run_scores(store_url: str, record: RunRecord) -> None:
    """Print every score of a run.

    Raises:
        NotFoundError: if the run has no benchmark results.
    """
    outcome = record.stages.get("benchmark")
    if outcome is None:
        raise NotFoundError(
            f"run {record.run_id} has no benchmark results; it has: {', '.join(record.stages) or 'no stage'}"
        )
    console.print(f"scores of run {record.run_id} ({record.config_name})", markup=False)
    print_scores(read_scores(ArtifactStore(store_url).open(outcome.artifact)))


def print_scores(scores: Sequence[Score]) -> None:
    """Print a table of the scores, then the tasks that have none with the reason."""
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for title in ("task", "metric", "model", "value", "95 % interval"):
        table.add_column(title, justify="right" if title in ("value", "95 % interval") else "left")
    metrics = list(dict.fromkeys((row["task"], row["metric"]) for row in scores))
    for row in sorted(scores, key=lambda row: metrics.index((row["task"], row["metric"]))):
        if row["value"] is not None:
            interval = "" if row["low"] is None else f"{row['low']:.3f} - {row['high']:.3f}"
            table.add_row(row["task"], row["metric"], row["model"], f"{row['value']:.3f}", interval)
    if table.rows:
        console.print(table)
    for missing in not_run(list(scores)):
        console.print(Text(f"not run: {', '.join(missing.tasks)}: {missing.reason}"))


def run_json(store_url: str, record: RunRecord) -> dict[str, Any]:
    """The object that `--json` prints."""
    stages = manifests(store_url, record)
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
            for stage, manifest in stages.items()
        ],
        "report": report_location(store_url, record),
        "metrics": {stage: manifest.metrics for stage, manifest in stages.items() if manifest.metrics},
    }
