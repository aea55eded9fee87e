"""One partition of the clean stage."""

from collections import Counter
from typing import Any

import pyarrow as pa

from data_schemas.tables import DOCUMENTS, REJECTS, reject_row
from infra.store.artifacts import Artifact
from infra.workers.partitions import PartitionWriter
from stages.clean.document_cleaner import Cleaned, Cleaner
from stages.common.funnel import Funnel


def clean_partition(documents: Artifact, cleaner: Cleaner, path: str, out: PartitionWriter) -> None:
    """Clean the documents of one file.

    Args:
        documents: artifact with the documents.
        cleaner: settings and models.
        path: the file, `documents/NAME.parquet`.
        out: receives `NAME.parquet` under `documents/`, `rejects/` and `funnel/`, and the counts `tagged.RULE` and
            `edits.KIND`, both over the documents that are kept.
    """
    cleaner, kept = cleaner.of_file(path), []
    rejects, funnel, counts = [], Funnel(), Counter[str]()
    for row in documents.read_table(path).to_pylist():
        size = len(row["text"].encode())
        cleaned = cleaner.clean(row)
        if cleaned.dropped_by is not None:
            rejects.append(reject_row(row, cleaned.dropped_by, size=size, score=cleaned.score))
            funnel.dropped(row, cleaned.dropped_by, size)
            continue
        kept.append(_cleaned_row(row, cleaned))
        funnel.kept(row, size, len(cleaned.text.encode()))
        counts.update(f"tagged.{rule}" for rule in cleaned.tags)
        counts.update({f"edits.{kind}": count for kind, count in cleaned.edits.items()})
    funnel.write(out, path.replace("documents/", "funnel/"))
    for name, amount in sorted(counts.items()):
        out.count(name, amount)
    out.write_table(path, pa.Table.from_pylist(kept, DOCUMENTS))
    out.write_table(path.replace("documents/", "rejects/"), pa.Table.from_pylist(rejects, REJECTS))


def _cleaned_row(row: dict[str, Any], cleaned: Cleaned) -> dict[str, Any]:
    """Row of the cleaned document; edits and tags are added to those of earlier stages."""
    edits = Counter(dict(row["edits"] or []))
    edits.update(cleaned.edits)
    return {
        **row,
        "text": cleaned.text,
        "language": cleaned.language,
        "quality": cleaned.quality if cleaned.quality is not None else row["quality"],
        "tags": [*(row["tags"] or []), *cleaned.tags] or None,
        "edits": sorted(edits.items()) or None,
    }
