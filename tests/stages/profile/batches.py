"""Batches of documents for tests of the profile."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from data_schemas.tables import DOCUMENTS


def batch(texts: Sequence[str], **columns: Any) -> pa.RecordBatch:
    """Documents `d0`, `d1` ... with these texts."""
    rows = [
        {"id": f"d{n}", "text": text, "source": "tests", "path": f"{n}", "genre": "tests", **columns}
        for n, text in enumerate(texts)
    ]
    return pa.RecordBatch.from_pylist(rows, DOCUMENTS)


def values(measures: Sequence[Any]) -> Mapping[Any, float]:
    """Name, or name and item -> value."""
    return {(row.measure, row.item) if row.item is not None else row.measure: row.value for row in measures}
