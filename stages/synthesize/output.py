"""Last step of synthesize: the corpus as it came, the synthetic documents beside it, and the record of every text.

- `write_file`: one file of the corpus; `copy_held_out`: one that has no training documents
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from data_schemas.tables import DOCUMENTS, KEPT, REJECTS, SYNTHETIC, reject_row
from infra.store.artifacts import Artifact
from infra.workers.partitions import PartitionWriter
from stages.common.funnel import Funnel
from stages.synthesize.generation import Work, drafts_of
from stages.synthesize.records import Decision, MethodRecord, document_row, record_row, source_of
from stages.synthesize.rounds import MadePart


def write_file(work: Work, payload: tuple[str, Sequence[MadePart]], out: PartitionWriter) -> None:
    """Write one file of training documents with what was made of them.

    The files of the corpus are copied byte for byte; synthetic documents are in a file of their own, so the split
    cannot change.

    Args:
        work: corpus and methods.
        payload: the file, `train/NAME.parquet`, and the texts of its documents.
        out: receives `NAME.parquet` under `train/`, `held_out/`, `synthetic/`, `rejects/` and `funnel/`, and
            `train/NAME.synthetic.parquet`.
    """
    path, parts = payload
    name = path.removeprefix("train/")
    funnel = Funnel()
    _copy(work.corpus, path, funnel, out)
    if f"held_out/{name}" in work.corpus.paths("held_out/*.parquet"):
        _copy(work.corpus, f"held_out/{name}", funnel, out)
    records: list[dict[str, Any]] = []
    kept: list[dict[str, Any]] = []
    rejects: list[dict[str, Any]] = []
    table = work.corpus.read_table(path) if parts else DOCUMENTS.empty_table()
    for part in sorted(parts, key=lambda part: part.method):
        method = work.methods[part.method]
        for draft, parent, decision in _decided(part, table):
            record = record_row(draft, parent, method, decision)
            records.append(record)
            document = {**parent, "id": record["id"], "source": source_of(method.label)}
            if decision.verdict == KEPT:
                kept.append(document_row(draft, parent, method))
                funnel.kept(document, record["bytes"], record["bytes"])
            else:
                rejects.append(_reject(document, record))
                funnel.dropped(document, decision.verdict, record["bytes"])
    funnel.write(out, f"funnel/{name}")
    if kept:
        kept.sort(key=lambda row: row["id"])
        out.write_table(
            f"train/{name.removesuffix('.parquet')}.synthetic.parquet", pa.Table.from_pylist(kept, DOCUMENTS)
        )
    records.sort(key=lambda row: row["id"])
    rejects.sort(key=lambda row: row["id"])
    out.count("synthetic_documents", len(kept))
    out.count("synthetic_bytes", sum(len(row["text"].encode()) for row in kept))
    out.count("train_documents", len(kept))
    out.count("train_bytes", sum(len(row["text"].encode()) for row in kept))
    out.write_table(f"synthetic/{name}", pa.Table.from_pylist(records, SYNTHETIC))
    out.write_table(f"rejects/{name}", pa.Table.from_pylist(rejects, REJECTS))


def copy_held_out(corpus: Artifact, path: str, out: PartitionWriter) -> None:
    """Copy a file of held-out documents to which no file of training documents belongs."""
    funnel = Funnel()
    _copy(corpus, path, funnel, out)
    funnel.write(out, path.replace("held_out/", "funnel/held-out-"))


def _copy(corpus: Artifact, path: str, funnel: Funnel, out: PartitionWriter) -> None:
    split = path.split("/")[0]
    table = corpus.read_table(path)
    sizes = pc.binary_length(table.column("text")).to_pylist()
    for document, size in zip(table.select(["source", "genre"]).to_pylist(), sizes, strict=True):
        funnel.kept(document, size, size)
    out.count(f"{split}_documents", len(table))
    out.count(f"{split}_bytes", sum(sizes))
    out.write(path, corpus.read(path))


def _decided(part: MadePart, table: pa.Table) -> list[tuple[Mapping[str, Any], Mapping[str, Any], Decision]]:
    """Draft, parent and decision of each text of a part."""
    decisions = {row.pop("row"): Decision(**row) for row in part.decisions.to_pylist()}
    drafts = [row for row in drafts_of(part.result).to_pylist() if row["row"] in decisions]
    parents = table.take(pa.array([draft["row"] for draft in drafts], pa.int64())).to_pylist()
    return [(draft, parent, decisions[draft["row"]]) for draft, parent in zip(drafts, parents, strict=True)]


def _reject(document: Mapping[str, Any], record: Mapping[str, Any]) -> dict[str, Any]:
    refused = next((gate for gate in record["gates"] if not gate["passed"]), None)
    score = refused["score"] if refused else None
    return reject_row(document, record["verdict"], size=record["bytes"], score=score, detail=record["detail"])


def methods_metrics(methods: Sequence[MethodRecord]) -> list[dict[str, str]]:
    """The methods as the manifest lists them."""
    return [method._asdict() for method in methods]
