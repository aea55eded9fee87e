"""One partition of the clean stage."""

import pyarrow as pa

from data_schemas.tables import DOCUMENTS, REJECTS
from infra.artifacts import Artifact
from infra.partitions import PartitionWriter
from stages.clean.normalize import normalize
from stages.clean.quality_filters import QualityThresholds, quality_verdict


def clean_partition(documents: Artifact, thresholds: QualityThresholds, path: str, out: PartitionWriter) -> None:
    """Repair and judge the documents of one file.

    Args:
        documents: the artifact they are in.
        thresholds: of the quality rules.
        path: the file, `documents/NAME.parquet`.
        out: gets `documents/NAME.parquet` and `rejects/NAME.parquet`.
    """
    kept, rejects = [], []
    rows = documents.read_table(path).to_pylist()
    for row in rows:
        size = len(row["text"].encode())
        out.count("bytes_in", size)
        text = normalize(row["text"])
        broken = quality_verdict(text, thresholds)
        if broken is None:
            kept.append({**row, "text": text})
            out.count("bytes_out", len(text.encode()))
        else:
            out.count(f"dropped.{broken}", 1)
            rejects.append(
                {
                    "id": row["id"],
                    "source": row["source"],
                    "path": row["path"],
                    "position": -1,
                    "reason": broken,
                    "bytes": size,
                }
            )
    out.count("documents_in", len(rows))
    out.count("documents_out", len(kept))
    out.write_table(path, pa.Table.from_pylist(kept, DOCUMENTS))
    out.write_table(path.replace("documents/", "rejects/"), pa.Table.from_pylist(rejects, REJECTS))
