"""One partition of the clean stage."""

import pyarrow as pa

from data_schemas.tables import DOCUMENTS, REJECTS, reject_row
from infra.artifacts import Artifact
from infra.funnel import Funnel
from infra.partitions import PartitionWriter
from stages.clean.normalize import normalize
from stages.clean.quality_filters import QualityThresholds, quality_verdict


def clean_partition(documents: Artifact, thresholds: QualityThresholds, path: str, out: PartitionWriter) -> None:
    """Repair and judge the documents of one file.

    Args:
        documents: the artifact they are in.
        thresholds: of the quality rules.
        path: the file, `documents/NAME.parquet`.
        out: gets `NAME.parquet` under `documents/`, `rejects/` and `funnel/`.
    """
    kept, rejects, funnel = [], [], Funnel()
    for row in documents.read_table(path).to_pylist():
        size = len(row["text"].encode())
        text = normalize(row["text"])
        broken = quality_verdict(text, thresholds)
        if broken is None:
            kept.append({**row, "text": text})
            funnel.kept(row, size, len(text.encode()))
        else:
            rejects.append(reject_row(row, broken, size=size))
            funnel.dropped(row, broken, size)
    funnel.write(out, path.replace("documents/", "funnel/"))
    out.write_table(path, pa.Table.from_pylist(kept, DOCUMENTS))
    out.write_table(path.replace("documents/", "rejects/"), pa.Table.from_pylist(rejects, REJECTS))
