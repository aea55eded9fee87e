"""Estimated amounts of text in units, for `headrace plan`.

- `text_volume`: documents and bytes, and how many of them are in scripts without spaces
"""

from collections.abc import Sequence
from itertools import islice

from data_schemas.errors import HeadraceError
from data_schemas.manifest import Volume
from stages.common.scripts import UNSPACED_LANGUAGES, unspaced_bytes
from stages.ingest import file_formats
from stages.ingest import python_documentation as python
from stages.ingest.config import IngestConfig, SourceConfig
from stages.ingest.file_listing import SourceFile
from stages.ingest.readers import read_file
from stages.ingest.records import Record
from stages.ingest.streams.byte_streams import ByteCounter, ReadInterruptedError
from stages.ingest.units import Unit

TEXT_SHARE_OF_PYTHON_SOURCE = 0.24
BYTES_PER_DOCUMENT = 5_000
SAMPLED_FORMATS = ("json_lines", "json", "csv", "tsv", "parquet", "arrow", "plain")
"""Formats whose first records are read at once; the others have their text in markup."""
SAMPLED_FILES, SAMPLED_RECORDS = 2, 8
SAMPLED_DOCUMENT_BYTES = 1_000_000


def text_volume(config: IngestConfig, units: Sequence[Unit]) -> Volume:
    """Estimated volume of the text in the units; a few records of each source are read for its script."""
    sizes = [0] * len(config.all_sources())
    for unit in units:
        sizes[unit.source] += _text_bytes(unit, config.all_sources()[unit.source])
    unspaced = sum(
        int(size * _unspaced_share(source, [unit.file for unit in units if unit.source == number]))
        for number, (size, source) in enumerate(zip(sizes, config.all_sources(), strict=True))
    )
    text = sum(sizes)
    return Volume(
        source_bytes=sum(unit.bytes for unit in units), documents=text // BYTES_PER_DOCUMENT, text_bytes=text,
        unspaced_bytes=unspaced,
    )  # fmt: skip


def _text_bytes(unit: Unit, source: SourceConfig) -> int:
    if isinstance(unit.file, python.Unit):
        return int(unit.bytes * TEXT_SHARE_OF_PYTHON_SOURCE)
    return file_formats.text_bytes(unit.file.path, unit.bytes, source, unit.file.format)


def _unspaced_share(source: SourceConfig, files: Sequence[python.Unit | SourceFile]) -> float:
    """Share of the text in scripts without spaces."""
    if source.language:
        return float(source.language in UNSPACED_LANGUAGES)
    if source.text_format not in (None, "plain"):
        return 0.0
    samples = [file for file in files if isinstance(file, SourceFile) and _is_cheap_to_begin(file)]
    texts = [text for file in samples[:SAMPLED_FILES] for text in _first_texts(file, source)]
    sizes = [len(text.encode("utf-8", "replace")) for text in texts]
    return sum(map(unspaced_bytes, texts, sizes)) / max(sum(sizes), 1)


def _is_cheap_to_begin(file: SourceFile) -> bool:
    """Whether the first records can be read without the rest: web servers may send a table as a whole only."""
    is_on_the_web = file.url.startswith(("http://", "https://"))
    return file.format in SAMPLED_FORMATS and not (is_on_the_web and file.format in ("parquet", "arrow"))


def _first_texts(file: SourceFile, source: SourceConfig) -> list[str]:
    try:
        records = read_file(file, source, SAMPLED_DOCUMENT_BYTES, ByteCounter())
        return [record.text for record in islice(records, SAMPLED_RECORDS) if isinstance(record, Record)]
    except (HeadraceError, ReadInterruptedError):  # reading the whole file reports it
        return []
