"""The end of `headrace run` and `headrace show`: one screen about a run.

- `print_summary`: stages with their seconds, the headline, tasks that were not run, the report's path
"""

from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from rich.table import Table
from rich.text import Text

from data_schemas.manifest import Manifest, RunRecord
from flows.console import amount, console, duration
from flows.monitoring.run_status import read_status
from flows.report.benchmark_scores import NotRun, not_run, read_scores
from flows.report.headline import Headline, Pair, change, headline
from flows.runs.artifacts import report_location, stage_artifacts, status
from infra.store.pins import Pins, RemovedArtifacts
from infra.store.runs import RunStore

MAX_COLUMNS = 100
LABEL_WIDTH = 12
MAX_REASONS = 3
"""Reasons why tasks were not run, one line each."""
MAX_NAMES = 2
"""Tasks named per reason."""


def print_summary(store_url: str, record: RunRecord) -> None:
    """At most 24 lines at 100 columns for up to nine stages; scores are left to `headrace show --scores`."""
    artifacts = stage_artifacts(store_url, record)
    stages = {stage: artifact.manifest for stage, artifact in artifacts.items()}
    scores = read_scores(artifacts["benchmark"]) if "benchmark" in artifacts else []
    figures = headline(stages, scores)
    width = min(console.width, MAX_COLUMNS)
    pinned = ", pinned" if record.run_id in Pins(store_url).ids() else ""
    console.print(f"{_title(record)}{pinned}")
    if record.message:
        console.print(record.message, width=width, soft_wrap=False)
    if record.stages:
        removed = RemovedArtifacts(store_url).by_run().get(record.run_id, ())
        console.print(_stage_table(stages, record, removed), Text(), width=width, soft_wrap=False)
    for table in (_headline_table(figures), _notes(stages, figures, not_run(scores))):
        if table.rows:
            console.print(table, width=width, soft_wrap=False)
    location = report_location(store_url, record)
    if location:  # not broken over lines, so that it can be copied
        console.print(f"{'report':<{LABEL_WIDTH}}  {_relative(location)}")
    for name, url in links(store_url, record).items():
        console.print(f"{name:<{LABEL_WIDTH}}  {url}")
    if scores:
        console.print(f"{'all scores':<{LABEL_WIDTH}}  headrace show {record.run_id} --scores")


def links(store_url: str, record: RunRecord) -> dict[str, str]:
    """Name -> URL of Prefect's page; while the run is alive also of Ray's and of its metrics."""
    known = read_status(RunStore(store_url).folder, record.run_id)
    found = known.links if known else {}
    return {name: url for name, url in found.items() if name == "prefect" or status(record) == "running"}


def _title(record: RunRecord) -> str:
    seconds = f" in {duration((record.ended - record.started).total_seconds())}" if record.ended else ""
    return f"run {record.run_id} ({record.config_name}): {status(record)}{seconds}"


def _stage_table(stages: Mapping[str, Manifest], record: RunRecord, removed: Collection[str]) -> Table:
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0), expand=True)
    for title in ("stage", "action", "seconds", "memory", "size"):
        table.add_column(title, justify="left" if title in ("stage", "action") else "right", no_wrap=True)
    table.add_column("why", ratio=1, no_wrap=True, overflow="ellipsis")
    for stage, outcome in record.stages.items():
        ran = outcome.action == "run"
        manifest = stages.get(stage)
        sizes = [amount(manifest.peak_memory_bytes, "B"), amount(manifest.total_bytes, "B")] if manifest else ["", ""]
        why = outcome.why if manifest else f"the artifact {outcome.artifact.label} is gone or cannot be read"
        if not manifest and stage in removed:
            why = "the artifact was removed by headrace gc"
        action = Text("ran" if ran else "reused", style="yellow" if ran else "green")
        table.add_row(stage, action, duration(outcome.seconds), *sizes, Text(why, style="dim"))
    return table


def _headline_table(figures: Headline) -> Table:
    """Pretrained and compressed model side by side, a row per measured quantity."""
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for title in ("", "pretrained", "compressed", "change"):
        table.add_column(title, justify="right" if title in ("pretrained", "compressed") else "left", no_wrap=True)
    _add_row(table, "bits per byte", figures.bits_per_byte, lambda bits: f"{bits:.3f}", change)
    _add_row(table, "size on disk", figures.size, lambda size: amount(size, "B"), _times_smaller)
    _add_row(table, "decode, tokens/s", figures.decode, lambda rate: f"{rate:,.0f}", _times_as_fast)
    return table


def _add_row(
    table: Table, name: str, pair: Pair, write: Callable[[float], str], compare: Callable[[float, float], str]
) -> None:
    before, after = pair
    if before is not None:
        cells = ["", ""] if after is None else [write(after), compare(before, after)]
        table.add_row(name, write(before), *cells)


def _times_smaller(before: float, after: float) -> str:
    return f"{before / after:.1f} times smaller"


def _times_as_fast(before: float, after: float) -> str:
    return f"{after / before:.2f} times as fast"


def _notes(stages: Mapping[str, Manifest], figures: Headline, reasons: list[NotRun]) -> Table:
    """Labeled lines: bits per byte of the baselines, and tasks that were not run."""
    grid = Table.grid(padding=(0, 2, 0, 0), expand=True)
    grid.add_column(no_wrap=True, min_width=LABEL_WIDTH)
    grid.add_column(ratio=1)
    if figures.baselines:
        names = ", ".join(f"{name} {value:.3f}" for name, value in figures.baselines)
        grid.add_row("baselines", Text(f"bits per byte: {names}"))
    elif "compress" not in stages and "pretrain" in stages:
        metrics = stages["pretrain"].metrics
        loss = f"final loss {metrics['final_loss']:.3f} nats per token"
        grid.add_row("training", f"{amount(metrics['parameters'])} parameters, {metrics['tokens']:,} tokens, {loss}")
    label = f"not run ({sum(len(row.tasks) for row in reasons)})"
    for number, row in enumerate(reasons[:MAX_REASONS]):
        line = Text(f"{_names(row.tasks)}: {row.reason}", no_wrap=True, overflow="ellipsis")
        grid.add_row("" if number else label, line)
    if len(reasons) > MAX_REASONS:
        grid.add_row("", f"and {sum(len(row.tasks) for row in reasons[MAX_REASONS:])} more tasks")
    return grid


def _relative(location: str) -> str:
    """A path below the working directory without it; any other path or URL as it is."""
    path = Path(location)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else location


def _names(tasks: list[str]) -> str:
    others = len(tasks) - MAX_NAMES
    names = tasks if others <= 1 else [*tasks[:MAX_NAMES], f"{others} more"]
    return ", ".join(names)
