"""The funnel: how much of each genre and source every data stage kept, and what took the most of the rest."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import pyarrow as pa

from data_schemas.tables import KEPT
from flows.console import amount
from infra.store.artifacts import Artifact

SHOWN_ROWS = 24


@dataclass(frozen=True)
class FunnelRow:
    """One source."""

    genre: str
    source: str
    documents: list[str]
    """After each stage."""
    text: str
    """Bytes after the last stage."""
    percent: float
    """Of the bytes that the first stage read, how many the last one kept."""
    main_reason: str
    """The rule that left out the most bytes, and its share of them."""


@dataclass(frozen=True)
class CorpusFunnel:
    """What the table shows."""

    stages: list[str]
    rows: list[FunnelRow]


Flow = dict[tuple[str, str], Counter[str]]
"""(genre, source) -> documents kept, bytes kept, and bytes by reason."""


def corpus_funnel(artifacts: Mapping[str, Artifact]) -> CorpusFunnel | None:
    """The table, if any stage left its funnel; the largest sources by themselves, the others in one row."""
    flows = {stage: _flow(artifact) for stage, artifact in artifacts.items() if artifact.paths("funnel/*.parquet")}
    if not flows:
        return None
    first = next(iter(flows.values()))
    largest = sorted(first, key=lambda one: (-_came(first[one]), one))
    alone, together = largest[:SHOWN_ROWS], largest[SHOWN_ROWS:]
    rows = [_row(*one, [flow.get(one, Counter()) for flow in flows.values()]) for one in alone]
    if together:
        sums = [_sum(flow.get(one, Counter()) for one in together) for flow in flows.values()]
        rows.append(_row("", f"{len(together)} other sources", sums))
    return CorpusFunnel(list(flows), rows)


def _flow(artifact: Artifact) -> Flow:
    table = pa.concat_tables(artifact.read_table(path) for path in artifact.paths("funnel/*.parquet"))
    flow: Flow = {}
    for row in table.group_by(["genre", "source", "fate"], use_threads=False).aggregate(
        [("documents", "sum"), ("bytes_in", "sum"), ("bytes_out", "sum")]
    ).to_pylist():  # fmt: skip
        counter = flow.setdefault((row["genre"], row["source"]), Counter())
        if row["fate"] == KEPT:
            counter["documents"] += row["documents_sum"]
            counter["bytes"] += row["bytes_out_sum"]
            counter["reason edits in the text"] += max(0, row["bytes_in_sum"] - row["bytes_out_sum"])
        else:
            counter[f"reason {row['fate'].replace('_', ' ')}"] += row["bytes_in_sum"]
    return flow


def _sum(counters: Iterable[Counter[str]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for counter in counters:
        total.update(counter)
    return total


def _came(counter: Counter[str]) -> int:
    return sum(amount for name, amount in counter.items() if name != "documents")


def _row(genre: str, source: str, steps: list[Counter[str]]) -> FunnelRow:
    came, kept = _came(steps[0]), steps[-1]["bytes"]
    reasons = _sum(Counter({name: size for name, size in step.items() if name.startswith("reason")}) for step in steps)
    name, size = max(reasons.items(), key=lambda item: (item[1], item[0]), default=("", 0))
    main = f"{name.removeprefix('reason ')} ({100 * size / came:.0f} %)" if size and came else ""
    return FunnelRow(
        genre=genre,
        source=source,
        documents=[f"{step['documents']:,}" for step in steps],
        text=amount(kept, "B"),
        percent=round(100 * kept / came, 1) if came else 0.0,
        main_reason=main,
    )
