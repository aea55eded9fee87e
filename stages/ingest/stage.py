"""Ingest: read all sources of text into one table of documents, partition by partition."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from data_schemas.artifact_kinds import RAW_DOCUMENTS, ArtifactKind
from data_schemas.errors import InputDataError
from data_schemas.manifest import Estimate, Volume, Work
from data_schemas.public_urls import public_url
from infra.hardware import DATA_PROCESS_BYTES, MEMORY_PER_PARTITION_BYTE, partition_bytes
from infra.store.artifact_writer import ArtifactWriter
from infra.store.artifacts import Artifact
from infra.workers.capacity import Capacity
from infra.workers.partitions import Partition, PartitionResult
from stages.ingest.config import PYTHON_DOCUMENTATION, IngestConfig
from stages.stage import Sources, Stage, StageContext

if TYPE_CHECKING:
    from stages.ingest.units import Unit

SOURCE_BYTES_PER_SECOND = 3e6
"""Per core, parsing Python source or decoding text files."""
START_SECONDS = 2.0
WRITTEN_SHARE = 0.3
"""Bytes of the documents' tables over those of their text."""
CHECKS = 16
"""Number of checks of a large corpus against the limit of broken records while it is read."""
MIN_PARTITIONS_PER_CHECK = 64
MAX_LISTED_FILES = 1_000
"""Number of damaged files in the manifest; the rejects table has all of them."""


class IngestStage(Stage):
    """Read raw text from its sources."""

    name = "ingest"
    version = 5
    Config = IngestConfig
    inputs: ClassVar[Mapping[str, ArtifactKind]] = {}
    output = RAW_DOCUMENTS

    def list_sources(self, config: IngestConfig, store: str) -> Sources:
        """The files with their sizes, checksums and formats, or the selected documentation."""
        from stages.ingest.text_estimates import text_volume
        from stages.ingest.units import list_sources

        listing = list_sources(config, store)
        return Sources(listing.fingerprints, listing, text_volume(config, listing.units))

    def packages(self, config: IngestConfig) -> tuple[str, ...]:
        """The readers of markup, archives and unknown encodings; none for Python documentation."""
        if all(source.path == PYTHON_DOCUMENTATION for source in config.all_sources()):
            return ()
        return (
            "charset-normalizer", "docutils", "brotli", "lxml", "markdown-it-py", "mwparserfromhell", "trafilatura",
        )  # fmt: skip

    def estimate(self, config: IngestConfig, volume: Volume, capacity: Capacity) -> Estimate:
        """Estimate from the bytes to read."""
        size = config.partition_bytes or partition_bytes(volume.source_bytes)
        return Estimate.of_work(
            Work(
                kind="ingest", amount=volume.source_bytes, rate=SOURCE_BYTES_PER_SECOND, parallel=capacity.partitions,
                phases=("read",),
            ),
            Work(kind="ingest start", amount=1, rate=1 / START_SECONDS),
            peak_memory_bytes=capacity.per_node * (DATA_PROCESS_BYTES + MEMORY_PER_PARTITION_BYTE * size),
            written_bytes=int(volume.text_bytes * WRITTEN_SHARE),
            output=volume.model_copy(update={"source_bytes": 0}),
        )  # fmt: skip

    def run(
        self, config: IngestConfig, inputs: Mapping[str, Artifact], out: ArtifactWriter, context: StageContext
    ) -> None:
        """Read the listed units partition by partition, with checks of the share of broken records."""
        from stages.common.passed_over import sentences, summary
        from stages.ingest.partitioning import partitions
        from stages.ingest.units import SourceListing, list_sources

        with context.phase("list"):
            listing: SourceListing = context.listing or list_sources(config)
            size = config.partition_bytes or partition_bytes(sum(unit.bytes for unit in listing.units))
            config = config.model_copy(update={"partition_bytes": size})
            groups = partitions(listing.units, config.all_sources(), size)
        out.count("files_read", len(listing.units))
        out.count("files_passed_over", len(listing.passed_over))
        if listing.passed_over:
            out.metrics["passed_over"] = summary(listing.passed_over)
            context.listener.logged(f"files passed over: {'; '.join(sentences(out.metrics['passed_over']))}")
        with context.phase("read"):
            results = _read(config, groups, out, context)
        kinds = {name.split(".", 1)[1]: count for name, count in out.counts.items() if name.startswith("passed_over.")}
        if kinds:
            shown = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in sorted(kinds.items()))
            context.listener.logged(f"records passed over: {shown}")
        if damaged := _damaged_files(results):
            out.metrics["damaged_files"] = damaged[:MAX_LISTED_FILES]
        if not out.counts.get("documents_out"):
            raise _nothing_read(config, out, results)
        out.volume = Volume(
            documents=out.counts["documents_out"], text_bytes=out.counts["bytes_out"],
            unspaced_bytes=out.counts["unspaced_bytes"],
        )  # fmt: skip


def _read(
    config: IngestConfig, groups: "Sequence[Sequence[Unit]]", out: ArtifactWriter, context: StageContext
) -> list[PartitionResult]:
    """Read the partitions in batches, the same for all engines, so that a broken corpus stops early."""
    from stages.ingest.extraction import close_worker
    from stages.ingest.partition import read_partition
    from stages.ingest.partitioning import partition_name
    from stages.ingest.reject_limit import BrokenRecords, is_exceeded

    names = [partition_name(number, len(groups)) for number in range(len(groups))]
    partitions = [Partition(name, (name, group)) for name, group in zip(names, groups, strict=True)]
    all_bytes = sum(unit.bytes for group in groups for unit in group)
    per_check = max(MIN_PARTITIONS_PER_CHECK, -(-len(partitions) // CHECKS))
    results: list[PartitionResult] = []
    for start in range(0, len(partitions), per_check):
        read = partial(read_partition, config, all_bytes)
        for result in context.partitions.map("read", read, partitions[start : start + per_check]):
            result.adopt_into(out)
            results.append(result)
        records, broken = out.counts.get("documents_in", 0), out.counts["broken_records"]
        share_read = out.counts["source_bytes"] / all_bytes if len(results) < len(partitions) and all_bytes else 1.0
        share_lost = out.counts["lost_bytes"] / all_bytes if all_bytes else 0.0
        if is_exceeded(config, records=records, broken=broken, share_read=share_read, share_lost=share_lost):
            broken_records = BrokenRecords()
            for row in _rejects(results):
                broken_records.add(row)
            raise broken_records.error(config, records, all_bytes)
    close_worker()
    return results


def _damaged_files(results: Sequence[PartitionResult]) -> list[dict[str, Any]]:
    """Files that could not be read to their end, in reading order."""
    lossy = [result for result in results if result.marker.counts.get("lost_bytes")]
    return [
        {"path": row["path"], "record": row["position"], "lost_bytes": row["bytes"], "detail": row["detail"]}
        for row in _rejects(lossy)
        if row["bytes"]
    ]


def _rejects(results: Sequence[PartitionResult]) -> Iterator[Mapping[str, Any]]:
    for result in results:
        if result.marker.counts.get("broken_records"):
            for entry in result.marker.files:
                if entry.path.startswith("rejects/"):
                    yield from result.read_table(entry.path).to_pylist()


def _nothing_read(config: IngestConfig, out: ArtifactWriter, results: Sequence[PartitionResult]) -> InputDataError:
    paths = ", ".join(public_url(source.path) for source in config.all_sources())
    first = next(_rejects(results), None)
    example = f", such as record {first['position']} of {first['path']}: {first['detail'] or ''}" if first else ""
    reasons = ", ".join(sorted(name.removeprefix("dropped.") for name in out.counts if name.startswith("dropped.")))
    if not out.counts.get("documents_in") and any(source.where for source in config.all_sources()):
        return InputDataError(f"no document was read from {paths}: no record has the values required by `where`")
    is_unnamed = "dropped.no_text" in out.counts
    field = "set ingest.fields.text to the name of the field with the text"
    return InputDataError(
        f"no document was read from {paths}: {out.counts.get('documents_in', 0)} records were rejected ({reasons})"
        f"{example}; {field if is_unnamed else 'check ingest.path, or set ingest.format'}"
    )
