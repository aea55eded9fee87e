"""Clean: repair the text, then drop documents that are not good running text, naming the rule that each one broke."""

from collections.abc import Mapping
from functools import partial

from pydantic import Field

from data_schemas.artifact_kinds import RAW_DOCUMENTS
from data_schemas.config import StageConfig
from data_schemas.errors import InputDataError
from data_schemas.manifest import Estimate, Volume
from infra.artifacts import Artifact, ArtifactWriter
from infra.hardware import DATA_PROCESS_BYTES, workers_or_all
from infra.partitions import Partition
from stages.clean.quality_filters import QualityThresholds
from stages.stage import Stage, StageContext

TEXT_BYTES_PER_SECOND = 4e6
"""Per core, repair and filters together."""
SHARE_KEPT = 0.8


class CleanConfig(StageConfig):
    """What counts as good text."""

    quality: QualityThresholds = Field(default_factory=QualityThresholds, description="thresholds of the quality rules")


class CleanStage(Stage):
    """Repair encodings and white space, and keep what passes the quality rules."""

    name = "clean"
    version = 2
    Config = CleanConfig
    inputs: Mapping = {"documents": RAW_DOCUMENTS}  # type: ignore[type-arg]
    output = RAW_DOCUMENTS

    def estimate(self, config: CleanConfig, volume: Volume) -> Estimate:
        """By the bytes of text."""
        workers = workers_or_all(None)
        kept = Volume(documents=int(volume.documents * SHARE_KEPT), text_bytes=int(volume.text_bytes * SHARE_KEPT))
        seconds = volume.text_bytes / TEXT_BYTES_PER_SECOND / workers + 1
        return Estimate(seconds=seconds, peak_memory_bytes=workers * DATA_PROCESS_BYTES, output=kept)

    def run(
        self, config: CleanConfig, inputs: Mapping[str, Artifact], out: ArtifactWriter, context: StageContext
    ) -> None:
        """One partition of documents in, one out."""
        from stages.clean.partition import clean_partition

        documents = inputs["documents"]
        partitions = [
            Partition(path.removeprefix("documents/").removesuffix(".parquet"), path)
            for path in documents.paths("documents/*.parquet")
        ]
        with context.phase("clean"):
            function = partial(clean_partition, documents, config.quality)
            for result in context.partitions.map("clean", function, partitions):
                result.adopt_into(out)
        if not out.counts.get("documents_out"):
            rules = ", ".join(sorted(name for name in out.counts if name.startswith("dropped.")))
            raise InputDataError(
                f"the quality rules dropped all {out.counts.get('documents_in', 0)} documents ({rules}); "
                "loosen the thresholds under clean.quality"
            )
        out.volume = Volume(documents=out.counts["documents_out"], text_bytes=out.counts["bytes_out"])
