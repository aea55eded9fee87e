"""Division of the units into partitions.

- `partitions`: groups of consecutive units; a large Parquet file is several units
- `partition_name`, `piece_name`: names that sort in the order of their numbers
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import pyarrow.parquet as pq

from stages.ingest.config import SourceConfig
from stages.ingest.file_listing import RowGroups, SourceFile
from stages.ingest.streams.byte_streams import BROKEN_STREAM, opened_filesystem
from stages.ingest.units import Unit


def partitions(units: Sequence[Unit], sources: Sequence[SourceConfig], size: int) -> list[list[Unit]]:
    """Group consecutive units into partitions of about `size` bytes."""
    groups: list[list[Unit]] = []
    group_bytes = 0
    for part in (part for unit in units for part in _parts(unit, sources[unit.source], size)):
        if not groups or group_bytes + part.bytes > size:
            groups.append([])
            group_bytes = 0
        groups[-1].append(part)
        group_bytes += part.bytes
    return groups


def partition_name(number: int, count: int) -> str:
    """Name of one of `count` partitions: five digits, or more if there are more partitions."""
    return f"{number:0{max(5, len(str(count - 1)))}d}"


def piece_name(partition: str, number: int) -> str:
    """Name of a piece of a partition, whose number of pieces is known at its end: six digits, or a letter and more."""
    if not number:
        return partition
    more_digits = len(str(number)) - 6
    return f"{partition}_{chr(ord('a') + more_digits - 1) if more_digits > 0 else ''}{number:06d}"


def _parts(unit: Unit, source: SourceConfig, size: int) -> Iterator[Unit]:
    """The unit, or row groups of a large Parquet file, whose footer says which rows they hold."""
    file = unit.file
    is_large = isinstance(file, SourceFile) and file.bytes > size
    if not is_large or not isinstance(file, SourceFile) or (source.format or file.format) != "parquet":
        yield unit
        return
    parts = _row_groups(file, size)
    yield from (replace(unit, file=replace(file, rows=rows)) for rows in parts)
    if not parts:
        yield unit


def _row_groups(file: SourceFile, size: int) -> list[RowGroups]:
    """Consecutive row groups of about `size` bytes; empty if the file is damaged, or a server sends it whole only."""
    try:
        filesystem, name = opened_filesystem(file.url)
        with filesystem.open(name, "rb") as stream:
            metadata = pq.read_metadata(stream) if stream.seekable() else None
    except (*BROKEN_STREAM, AttributeError):  # reading reports it
        return []
    if metadata is None or metadata.num_row_groups < 2:
        return []
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    all_bytes = max(sum(group.total_byte_size for group in groups), 1)
    parts: list[RowGroups] = []
    position = 0
    for number, group in enumerate(groups):
        group_bytes = file.bytes * group.total_byte_size // all_bytes
        if parts and parts[-1].bytes + group_bytes <= size:
            parts[-1] = parts[-1]._replace(end=number + 1, bytes=parts[-1].bytes + group_bytes)
        else:
            parts.append(RowGroups(number, number + 1, position, group_bytes))
        position += group.num_rows
    return parts
