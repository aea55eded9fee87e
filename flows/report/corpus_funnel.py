"""The funnel: documents of each source after every data stage, and the rule that removed most of its text."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

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
    """Documents after each stage."""
    text: str
    """Bytes of text after the last stage."""
    percent: float
    """Share of the first stage's bytes that the last stage kept."""
    main_reason: str
    """The rule that removed most bytes, and its share of the bytes read."""


@dataclass(frozen=True)
class CorpusFunnel:
    """Contents of the table."""

    stages: list[str]
    has_genres: bool
    """More than one genre among the rows."""
    rows: list[FunnelRow]


Flow = dict[tuple[str, str], Counter[str]]
"""(genre, source) -> documents kept, bytes kept, bytes removed by reason."""


def corpus_funnel(artifacts: Mapping[str, Artifact]) -> CorpusFunnel | None:
    """The table, the largest sources first, small ones in one row; None if no stage wrote a funnel."""
    flows = {stage: _flow(artifact) for stage, artifact in artifacts.items() if artifact.paths("funnel/*.parquet")}
    if not flows:
        return None
    first = next(iter(flows.values()))
    sources = sorted(first, key=lambda source: (-_bytes_in(first[source]), source))
    largest, small = sources[:SHOWN_ROWS], sources[SHOWN_ROWS:]
    rows = [_row(*source, [flow.get(source, Counter()) for flow in flows.values()]) for source in largest]
    if small:
        sums = [_sum(flow.get(source, Counter()) for source in small) for flow in flows.values()]
        rows.append(_row("", f"{len(small)} other sources", sums))
    return CorpusFunnel(list(flows), len({genre for genre, _ in largest}) > 1, rows)


def _flow(artifact: Artifact) -> Flow:
    sums: dict[tuple[str, str, str], Counter[str]] = {}
    for path in artifact.paths("funnel/*.parquet"):
        for row in artifact.read_table(path).to_pylist():
            counter = sums.setdefault((row["genre"], row["source"], row["fate"]), Counter())
            counter.update({name: row[name] for name in ("documents", "bytes_in", "bytes_out")})
    flow: Flow = {}
    for (genre, source, fate), amounts in sums.items():
        counter = flow.setdefault((genre, source), Counter())
        if fate == KEPT:
            counter["documents"] += amounts["documents"]
            counter["bytes"] += amounts["bytes_out"]
            counter["reason edits in the text"] += max(0, amounts["bytes_in"] - amounts["bytes_out"])
        else:
            counter[f"reason {fate.replace('_', ' ')}"] += amounts["bytes_in"]
    return flow


def _sum(counters: Iterable[Counter[str]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for counter in counters:
        total.update(counter)
    return total


def _bytes_in(counter: Counter[str]) -> int:
    return sum(amount for name, amount in counter.items() if name != "documents")


def _row(genre: str, source: str, steps: list[Counter[str]]) -> FunnelRow:
    read, kept = _bytes_in(steps[0]), steps[-1]["bytes"]
    reasons = _sum(Counter({name: size for name, size in step.items() if name.startswith("reason")}) for step in steps)
    name, size = max(reasons.items(), key=lambda item: (item[1], item[0]), default=("", 0))
    main = f"{name.removeprefix('reason ')} ({100 * size / read:.0f} %)" if size and read else ""
    return FunnelRow(
        genre=genre,
        source=source,
        documents=[f"{step['documents']:,}" for step in steps],
        text=amount(kept, "B"),
        percent=round(100 * kept / read, 1) if read else 0.0,
        main_reason=main,
    )
