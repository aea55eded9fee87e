"""Small files of every format, and the shortest way to read them back."""

import bz2
import csv
import gzip
import io
import json
import lzma
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from stages.ingest.config import SourceConfig
from stages.ingest.file_listing import SourceFile, list_files
from stages.ingest.readers import read_file
from stages.ingest.records import Failure, Record
from stages.ingest.streams.byte_streams import ByteCounter

COMPRESS = {
    "": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress,
    ".zst": zstandard.ZstdCompressor().compress,
}  # fmt: skip
TEXTS = [f"Text number {number}: naïve café, “quoted” — 漢字.\nA second line." for number in range(40)]


def json_lines(*values: Any) -> bytes:
    return "".join(json.dumps(value) + "\n" for value in values).encode()


def delimited(rows: list[list[str]], delimiter: str = ",") -> bytes:
    buffer = io.StringIO()
    csv.writer(buffer, delimiter=delimiter).writerows(rows)
    return buffer.getvalue().encode()


def table() -> pa.Table:
    return pa.table({"text": TEXTS, "id": list(range(len(TEXTS))), "other": [1.5] * len(TEXTS)})


def parquet() -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table(), buffer, row_group_size=15)
    return buffer.getvalue()


def arrow(new: Any, content: pa.Table | None = None) -> bytes:
    content = content or table()
    buffer = io.BytesIO()
    with new(buffer, content.schema) as writer:
        for batch in content.to_batches(max_chunksize=15):
            writer.write_batch(batch)
    return buffer.getvalue()


def samples() -> dict[str, bytes]:
    """File name -> content: `TEXTS` in each format."""
    lines = json_lines(*({"text": text, "id": number} for number, text in enumerate(TEXTS)))
    rows = [["id", "text"], *([str(number), text] for number, text in enumerate(TEXTS))]
    flat = [["id", "text"], *([str(number), text.replace("\n", " ")] for number, text in enumerate(TEXTS))]
    return {
        **{f"lines.jsonl{ending}": compress(lines) for ending, compress in COMPRESS.items()},
        "array.json": json.dumps(
            [{"text": text, "id": number} for number, text in enumerate(TEXTS)], indent=1
        ).encode(),
        "rows.csv": delimited(rows),
        "rows.tsv": "".join("\t".join(row) + "\n" for row in flat).encode(),
        "table.parquet": parquet(),
        "file.arrow": arrow(pa.ipc.new_file),
        "stream.arrow": arrow(pa.ipc.new_stream),
        "plain.txt": "\n".join(TEXTS).encode(),
        "wide.txt": "\n".join(TEXTS).encode("utf-16"),
    }


def read_bytes(folder: Path, name: str, data: bytes, most: int = 1_000_000, **source: Any) -> list[Record | Failure]:
    """Records of one file with this content."""
    path = folder / name
    path.write_bytes(data)
    file = SourceFile(f"file://{path}", name, len(data), "")
    return list(read_file(file, SourceConfig(path=str(path), **source), most, ByteCounter()))


def read(path: Path | str, **source: Any) -> list[Record | Failure]:
    """Records of all files that match."""
    config = SourceConfig(path=str(path), **source)
    return [
        records for file in list_files(config).files for records in read_file(file, config, 1_000_000, ByteCounter())
    ]


def texts(records: list[Record | Failure]) -> list[str]:
    return [record.text for record in records if isinstance(record, Record)]


def reasons(records: list[Record | Failure]) -> list[str]:
    return [record.reason for record in records if isinstance(record, Failure)]
