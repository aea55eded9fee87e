"""Ingest: any source of text becomes one table of documents, partition by partition."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from pydantic import Field

from data_schemas.artifact_kinds import RAW_DOCUMENTS
from data_schemas.config import StageConfig
from data_schemas.errors import InputDataError
from data_schemas.manifest import Estimate, Volume
from infra.artifacts import Artifact, ArtifactWriter
from infra.hardware import DATA_PROCESS_BYTES, workers_or_all
from infra.partitions import Partition
from stages.stage import Stage, StageContext

PYTHON_DOCUMENTATION = "python://documentation"
SOURCE_BYTES_PER_SECOND = 3e6
"""Python source parsed, or text files decoded, per core."""
TEXT_SHARE_OF_PYTHON_SOURCE = 0.24


class IngestConfig(StageConfig):
    """Where the text comes from and how it is described."""

    path: str = Field(
        PYTHON_DOCUMENTATION,
        description="glob over text files on any fsspec URL, such as ./my_texts/**/*.jsonl.gz, or "
        "python://documentation: the documentation of this Python and its installed packages",
    )
    max_source_bytes: int | None = Field(
        None, gt=0, description="stop after this many bytes of source files, taken in the order of their paths' hash"
    )
    text_field: str = Field("text", description="field or column that holds the text in JSON lines and Parquet")
    genre: str = Field("technical documentation", description="genre of every document: books, wiki, news, web ...")
    source: str | None = Field(None, description="name of the collection; from the files where left out")
    licence: str | None = Field(None, description="licence of every document, where the files do not say")
    partition_bytes: int = Field(8_000_000, gt=0, description="source bytes per partition; bounds memory")


class IngestStage(Stage):
    """Read raw text from where it is."""

    name = "ingest"
    version = 2
    Config = IngestConfig
    inputs: Mapping = {}  # type: ignore[type-arg]
    output = RAW_DOCUMENTS

    def sources(self, config: IngestConfig) -> dict[str, str]:
        """What the files look like from outside: sizes and checksums, or the installed packages' versions."""
        from stages.ingest.units import fingerprint

        return {config.path: fingerprint(config)}

    def estimate(self, config: IngestConfig, volume: Volume) -> Estimate:
        """By the bytes to read."""
        from stages.ingest.units import source_bytes

        size = source_bytes(config)
        is_python = config.path == PYTHON_DOCUMENTATION
        text_bytes = int(size * TEXT_SHARE_OF_PYTHON_SOURCE) if is_python else size
        workers = workers_or_all(None)
        return Estimate(
            seconds=size / SOURCE_BYTES_PER_SECOND / workers + 2,
            peak_memory_bytes=workers * (DATA_PROCESS_BYTES + 4 * config.partition_bytes),
            output=Volume(documents=text_bytes // 5_000, text_bytes=text_bytes),
        )

    def run(
        self, config: IngestConfig, inputs: Mapping[str, Artifact], out: ArtifactWriter, context: StageContext
    ) -> None:
        """List the units, read them partition by partition."""
        from stages.ingest.units import list_units, read_partition

        with context.phase("list"):
            groups = list(grouped(list_units(config), config.partition_bytes))
        partitions = [Partition(f"{number:05d}", (number, group)) for number, group in enumerate(groups)]
        with context.phase("read"):
            for result in context.partitions.map("read", partial(read_partition, config), partitions):
                result.adopt_into(out)
        if not out.counts.get("documents_out"):
            raise InputDataError(
                f"no document was read from {config.path}: {out.counts.get('documents_in', 0)} records were rejected; "
                f"the rejects table of the partition says why, and ingest.text_field ({config.text_field!r}) names "
                "the field that holds the text"
            )
        out.volume = Volume(documents=out.counts["documents_out"], text_bytes=out.counts["bytes_out"])


Sized = TypeVar("Sized", bound=Any)


def grouped(units: Iterable[Sized], partition_bytes: int) -> Iterator[Sequence[Sized]]:
    """Cut a sequence of units (each with `.bytes`) into partitions of about `partition_bytes`, in order."""
    group: list[Sized] = []
    size = 0
    for unit in units:
        if group and size + unit.bytes > partition_bytes:
            yield group
            group, size = [], 0
        group.append(unit)
        size += unit.bytes
    if group:
        yield group
