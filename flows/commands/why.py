"""`headrace why`: one document through the stages: kept, edited or rejected, and by which rule.

- `Fate`: what one stage did with the document
- `fates`: one per stage, in order
- `print_fates`, `text_of`, `as_json`: the output of the command
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_schemas.errors import NotFoundError
from data_schemas.manifest import Manifest, RunRecord
from flows.commands.synthetic_records import children_of, hint, made_sentence, record_of
from flows.console import amount, console
from flows.runs.artifacts import stage_artifacts
from infra.store.artifacts import Artifact

KEPT_UNDER = {
    "documents": ("documents/*.parquet",),
    "corpus": ("train/*.parquet", "held_out/*.parquet"),
    "tokens": ("train/*.arrow", "held_out/*.arrow"),
}
"""Kind of artifact -> files with the documents that it keeps."""
SHOWN_SUGGESTIONS = 3


@dataclass(frozen=True)
class Fate:
    """Decision of a stage about a document."""

    stage: str
    kept: bool
    file: str
    """File of the artifact that holds the row."""
    row: Mapping[str, Any]
    """The document's row in the documents, tokens or rejects table."""
    sentence: str
    document: str = ""
    """Id of the document, if it is the parent of the one in question."""


def fates(store_url: str, record: RunRecord, document: str) -> list[Fate]:
    """Decisions of the run's stages about a document, up to the one that rejected it.

    Those about a synthetic document begin with the decisions about its parent.

    Raises:
        NotFoundError: if no stage of the run has the id; names ids that contain it.
    """
    artifacts = [
        (stage, artifact)
        for stage, artifact in stage_artifacts(store_url, record).items()
        if artifact.manifest.kind in KEPT_UNDER
    ]
    decisions = _fates(artifacts, document)
    if not decisions:
        made = [artifact for stage, artifact in artifacts if stage == "synthesize" and "~" in document]
        if made:
            raise NotFoundError(f"no document {document!r} in run {record.run_id}; {hint(made[0], document)}")
        raise NotFoundError(_unknown(record, [artifact for _, artifact in artifacts[:1]], document))
    return decisions


def _fates(artifacts: Sequence[tuple[str, Artifact]], document: str) -> list[Fate]:
    decisions: list[Fate] = []
    for number, (stage, artifact) in enumerate(artifacts):
        synthetic = record_of(artifact, document) if not decisions else None
        if synthetic is not None:
            parent = _fates(artifacts[:number], synthetic["parent"])
            decisions += [replace(fate, document=synthetic["parent"]) for fate in parent]
        stem = PurePosixPath(decisions[-1].file).stem if decisions else ""
        decisions += _stage_fates(stage, artifact, document, stem, synthetic)
        if decisions and not decisions[-1].kept:
            break
    return decisions


def print_fates(document: str, record: RunRecord, decisions: list[Fate]) -> None:
    """A line per stage."""
    console.print(f"{document} in run {record.run_id} ({record.config_name})")
    for fate in decisions:
        about = f"parent {fate.document}: " if fate.document else ""
        console.print(f"{'✓' if fate.kept else '✗'} {fate.stage:<10} {about}{fate.sentence}")


def as_json(document: str, record: RunRecord, decisions: list[Fate]) -> dict[str, Any]:
    """The object that `--json` prints, without the text."""
    rows = [
        asdict(fate) | {"row": {k: v for k, v in fate.row.items() if k not in ("text", "tokens")}} for fate in decisions
    ]
    return {"document": document, "run_id": record.run_id, "stages": rows}


def text_of(decisions: list[Fate]) -> str:
    """The text after the last stage that kept the document.

    Raises:
        NotFoundError: if the record was rejected before it became a document.
    """
    texts = [fate.row["text"] for fate in decisions if "text" in fate.row]
    if not texts:
        raise NotFoundError("it was never read as a document, so there is no text")
    return str(texts[-1])


def _stage_fates(
    stage: str, artifact: Artifact, document: str, stem: str, synthetic: Mapping[str, Any] | None
) -> Iterator[Fate]:
    made = f"{made_sentence(synthetic)}; " if synthetic else ""
    for pattern in KEPT_UNDER[artifact.manifest.kind]:
        for file, row in _rows(artifact, pattern, document, stem):
            sentence = made + _kept_sentence(artifact.manifest.kind, file, row)
            if children := children_of(artifact, document, file):
                listed = ", ".join(f"{child} ({verdict})" for child, verdict in sorted(children.items()))
                sentence += f"; made of it: {listed}"
            yield Fate(stage, True, file, row, sentence)
            return
    for file, row in _rows(artifact, "rejects/*.parquet", document, stem):
        yield Fate(stage, False, file, row, made + _reject_sentence(row, artifact.manifest))


def _rows(artifact: Artifact, pattern: str, document: str, stem: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Rows of a document; searches files with the name of its previous file first, as most stages keep names."""
    for path in sorted(artifact.paths(pattern), key=lambda path: (PurePosixPath(path).stem != stem, path)):
        table = _matching(artifact, path, document)
        if len(table):
            for row in table.to_pylist():
                yield path, row
            return


def _matching(artifact: Artifact, path: str, document: str) -> pa.Table:
    """Rows with the document's id; texts are read only from a file that has it."""
    if path.endswith(".arrow"):
        shard = artifact.read_table(path)
        return shard.filter(pc.equal(shard.column("document_id"), document))
    with artifact.open(path) as file:
        parquet = pq.ParquetFile(file)
        matches = pc.equal(parquet.read(columns=["id"]).column("id"), document)
        return parquet.read().filter(matches) if pc.any(matches).as_py() else parquet.schema_arrow.empty_table()


def _kept_sentence(kind: str, file: str, row: Mapping[str, Any]) -> str:
    if kind == "tokens":
        return f"{len(row['tokens']):,} tokens, in {file}"
    notes = [amount(len(row["text"].encode()), "B")]
    notes += [f"{rule.replace('_', ' ')}: {times}" for rule, times in row.get("edits") or []]
    notes += [f"tagged {tag}" for tag in row.get("tags") or []]
    if row.get("quality") is not None:
        notes.append(f"quality {row['quality']:.3f}")
    return f"{'held out' if file.startswith('held_out/') else 'kept'} ({', '.join(notes)}), in {file}"


def _reject_sentence(row: Mapping[str, Any], manifest: Manifest) -> str:
    measured = "" if row["score"] is None else f": {row['score']:.4g}{_limits(row, manifest.config)}"
    detail = f" ({row['detail']})" if row["detail"] else ""
    where = f", record {row['position']} of {row['path']}" if row["position"] >= 0 else ""
    return f"rejected by {row['reason']}{measured}{detail}{where}"


def _limits(row: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """` (accepted: from 3 up to 10)`: limits of the rule for the document's genre."""
    genre_limits = config.get("by_genre", {}).get(row["genre"], {}).get("rules", {}).get(row["reason"]) or {}
    default_limits = config.get("rules", {}).get(row["reason"]) or {}
    low, high = (
        (genre_limits.get(end) if genre_limits.get(end) is not None else default_limits.get(end))
        for end in ("min", "max")
    )
    if low is None and high is None:
        return ""
    ends = [f"from {low:g}" if low is not None else "", f"up to {high:g}" if high is not None else ""]
    return f" (accepted: {' '.join(filter(None, ends))})"


def _unknown(record: RunRecord, first: list[Artifact], document: str) -> str:
    name = PurePosixPath(document).name
    similar: list[str] = []
    example = ""
    for artifact in first:
        for path in artifact.paths("documents/*.parquet"):
            with artifact.open(path) as file:
                ids = pq.ParquetFile(file).read(columns=["id"]).column("id")
            example = example or (ids[0].as_py() if len(ids) else "")
            similar += ids.filter(pc.match_substring(ids, name)).slice(0, SHOWN_SUGGESTIONS).to_pylist()
            if len(similar) >= SHOWN_SUGGESTIONS:
                break
    hint = "ids are SOURCE/PATH#POSITION" + (f", such as {example}" if example else "")
    if similar:
        hint = f"ids that contain {name!r}: {', '.join(similar[:SHOWN_SUGGESTIONS])}"
    return f"no document {document!r} in run {record.run_id}; {hint}"
