"""Fate of the documents of one partition, by source and genre; also the counts that every data stage reports."""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from data_schemas.tables import FUNNEL, KEPT
from infra.workers.partitions import PartitionWriter


class Funnel:
    """Counts of documents and bytes of one partition."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str, str], list[int]] = {}

    def kept(self, document: Mapping[str, Any], bytes_in: int, bytes_out: int) -> None:
        """Count a document that is kept; it needs at least `source` and `genre`."""
        self._add(document, KEPT, bytes_in, bytes_out)

    def dropped(self, document: Mapping[str, Any], reason: str, bytes_in: int) -> None:
        """Count a document that is dropped; `reason` as in its row of the rejects table."""
        self._add(document, reason, bytes_in, 0)

    def write(self, out: PartitionWriter, path: str) -> None:
        """Write the table `funnel/NAME.parquet` and add the totals to the counts.

        Counts are `documents_in`, `bytes_in`, `documents_out`, `bytes_out` and `dropped.REASON`.
        """
        rows = []
        for (source, genre, fate), (documents, bytes_in, bytes_out) in sorted(self._rows.items()):
            rows.append(dict(zip(FUNNEL.names, (source, genre, fate, documents, bytes_in, bytes_out), strict=True)))
            out.count("documents_in", documents)
            out.count("bytes_in", bytes_in)
            out.count("documents_out" if fate == KEPT else f"dropped.{fate}", documents)
            out.count("bytes_out", bytes_out)
        out.write_table(path, pa.Table.from_pylist(rows, FUNNEL))

    def _add(self, document: Mapping[str, Any], fate: str, bytes_in: int, bytes_out: int) -> None:
        row = self._rows.setdefault((document["source"], document["genre"], fate), [0, 0, 0])
        for column, amount in enumerate((1, bytes_in, bytes_out)):
            row[column] += amount
