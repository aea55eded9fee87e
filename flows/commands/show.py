"""`headrace runs`, `headrace show --scores`, and the JSON of `show` and `run`."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.text import Text

from data_schemas.errors import NotFoundError
from data_schemas.manifest import RunRecord
from flows.commands.summary import links
from flows.console import console, plain_table
from flows.report.benchmark_scores import Score, not_run, read_scores
from flows.runs.artifacts import manifests, report_location, status
from infra.store.artifacts import ArtifactStore
from infra.store.pins import Pins, RemovedArtifacts
from infra.store.run_index import UnreadableRun
from infra.store.runs import RunStore, process_of

NAMED = 10
"""Records that cannot be read, up to which each is named."""


@dataclass(frozen=True)
class RunPage:
    """Runs of a store, newest first, with what is known of their artifacts."""

    records: Sequence[RunRecord]
    unreadable: Sequence[UnreadableRun]
    pinned: Collection[str] = ()
    """Ids of pinned runs."""
    removed: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Run id -> stages whose artifacts `headrace gc` removed."""
    total: int = 0
    """Runs in the store that this version can read."""
    older: int = 0
    """Runs after the last of `records`."""


def run_page(store_url: str, limit: int | None, before: str | None) -> RunPage:
    """Up to `limit` runs, newest first, optionally only those older than the run `before`."""
    runs, removed = RunStore(store_url), RemovedArtifacts(store_url).by_run()
    rows, unreadable = runs.index()
    ids = [row.run_id for row in rows]
    start = ids.index(runs.matching(before, ids)) + 1 if before else 0
    end = len(rows) if limit is None else start + limit
    records = list(runs.newest_first(rows[start:end]))
    return RunPage(records, unreadable, Pins(store_url).ids(), removed, len(rows), max(0, len(rows) - end))


def print_runs(page: RunPage) -> None:
    """Print one line per run, then one for each that this version cannot read, then how to see older ones."""
    titles = ("run", "config", "status", "started", "stages", "rerun of")
    table = plain_table(titles, words=titles)
    for record in page.records:
        ran = sum(outcome.action == "run" for outcome in record.stages.values())
        removed = page.removed.get(record.run_id, ())
        rerun_of = ":".join(filter(None, (record.base_run, record.forced)))
        stages = f"{ran} run, {len(record.stages) - ran} reused" + (f", {len(removed)} removed" if removed else "")
        pinned = ", pinned" if record.run_id in page.pinned else ""
        where = f" on {record.host}" if record.status == "running" and not process_of(record).is_in_sight else ""
        table.add_row(
            record.run_id,
            record.config_name,
            status(record) + where + pinned,
            f"{record.started:%Y-%m-%d %H:%M}",
            stages,
            rerun_of,
        )
    shown, others = page.unreadable[:NAMED], len(page.unreadable[NAMED:])
    for run in shown:
        table.add_row(run.run_id, "", "unreadable", "", "", "")
    console.print(table if table.rows else "no runs yet; begin with: headrace run configs/demo.yaml")
    for run in shown:
        console.print(f"unreadable: {run.problem}")
    if others:
        console.print(f"and {others:,} more records that cannot be read; all with: headrace runs --json")
    if page.older and page.records:
        older = f"headrace runs --before {page.records[-1].run_id}"
        console.print(f"{len(page.records)} of {page.total} runs; older: {older}")


def runs_json(page: RunPage) -> dict[str, Any]:
    """The object that `headrace runs --json` prints."""
    rows = [
        record.model_dump(mode="json", exclude={"config"})
        | {"status": status(record), "pinned": record.run_id in page.pinned}
        | {"removed": list(page.removed.get(record.run_id, ()))}
        for record in page.records
    ]
    rows += [
        {"run_id": run.run_id, "status": "unreadable", "written_by": run.written_by, "problem": run.problem}
        for run in page.unreadable
    ]
    return {"runs": rows, "total": page.total, "older": page.older}


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
    console.print(f"scores of run {record.run_id} ({record.config_name})")
    print_scores(read_scores(ArtifactStore(store_url).open(outcome.artifact)))


def print_scores(scores: Sequence[Score]) -> None:
    """Print a table of the scores, then the tasks that have none with the reason."""
    table = plain_table(("task", "metric", "model", "value", "95 % interval"), words=("task", "metric", "model"))
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
                "estimate": manifest.estimate.model_dump(exclude={"output"}) if manifest.estimate else None,
                "incomplete": list(manifest.incomplete),
            }
            for stage, manifest in stages.items()
        ],
        "report": report_location(store_url, record),
        "links": links(store_url, record),
        "metrics": {stage: manifest.metrics for stage, manifest in stages.items() if manifest.metrics},
        "pinned": record.run_id in Pins(store_url).ids(),
        "removed": list(RemovedArtifacts(store_url).by_run().get(record.run_id, ())),
    }
