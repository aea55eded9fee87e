"""Dedup: exact and near duplicates go; then some documents are held out before anything learns from them."""

from collections.abc import Mapping
from functools import partial

from pydantic import Field, model_validator

from data_schemas.artifact_kinds import CORPUS, RAW_DOCUMENTS
from data_schemas.config import StageConfig
from data_schemas.errors import InputDataError
from data_schemas.manifest import Estimate, Volume
from infra.artifacts import Artifact, ArtifactWriter
from infra.hardware import DATA_PROCESS_BYTES, workers_or_all
from infra.partitions import Partition
from stages.stage import Stage, StageContext

TEXT_BYTES_PER_SECOND = 5e6
"""Per core, signatures and filtering together."""


class DedupConfig(StageConfig):
    """When two documents count as the same, and how many are held out."""

    permutations: int = Field(128, gt=0, description="MinHash values per document")
    bands: int = Field(16, gt=0, description="LSH bands; the curve's middle is at (1/bands)^(1/rows)")
    rows: int = Field(8, gt=0, description="signature values per band")
    similarity: float = Field(0.75, gt=0, le=1, description="estimated Jaccard similarity from which two are the same")
    held_out_share: float = Field(0.03, gt=0, lt=0.5, description="share of the documents kept from all training")
    seed: int = Field(0, ge=0, description="of the choice of held-out documents")

    @model_validator(mode="after")
    def _bands_fit(self) -> "DedupConfig":
        if self.bands * self.rows > self.permutations:
            raise ValueError(
                f"bands x rows is {self.bands} x {self.rows} = {self.bands * self.rows}, more than the "
                f"{self.permutations} permutations; raise permutations or lower bands or rows"
            )
        return self


class DedupStage(Stage):
    """Keep one document of every cluster of duplicates; split off the held-out documents."""

    name = "dedup"
    version = 2
    Config = DedupConfig
    inputs: Mapping = {"documents": RAW_DOCUMENTS}  # type: ignore[type-arg]
    output = CORPUS

    def estimate(self, config: DedupConfig, volume: Volume) -> Estimate:
        """By the bytes of text."""
        workers = workers_or_all(None)
        seconds = volume.text_bytes / TEXT_BYTES_PER_SECOND / workers + 1
        memory = workers * DATA_PROCESS_BYTES + 4 * config.permutations * volume.documents
        return Estimate(seconds=seconds, peak_memory_bytes=memory, output=volume)

    def run(
        self, config: DedupConfig, inputs: Mapping[str, Artifact], out: ArtifactWriter, context: StageContext
    ) -> None:
        """Signatures per partition, clusters over all, then a filter per partition."""
        from stages.dedup.partitions import fates_table, filter_partition, sign_partition

        documents = inputs["documents"]
        names = [path.removeprefix("documents/") for path in documents.paths("documents/*.parquet")]
        parts = [Partition(name.removesuffix(".parquet"), name) for name in names]
        with context.phase("signatures"):
            sign = partial(sign_partition, documents, config.permutations)
            signed = context.partitions.map("signatures", sign, parts)
        with context.phase("clusters"):
            fates = fates_table([result.read_table("signatures.arrow") for result in signed], config)
        with context.phase("filter"):
            filtering = [
                Partition(part.name, (part.payload, fates.slice(start, length)))
                for part, start, length in _ranges(parts, [result.marker.counts["signed"] for result in signed])
            ]
            for result in context.partitions.map("filter", partial(filter_partition, documents), filtering):
                result.adopt_into(out)
        if not out.counts.get("train_documents") or not out.counts.get("held_out_documents"):
            raise InputDataError(
                f"after dedup there are {out.counts.get('train_documents', 0)} documents to train on and "
                f"{out.counts.get('held_out_documents', 0)} held out, and both are needed; use more text or "
                f"a larger dedup.held_out_share (now {config.held_out_share})"
            )
        out.volume = Volume(documents=out.counts["train_documents"], text_bytes=out.counts["train_bytes"])


def _ranges(parts: list[Partition], lengths: list[int]) -> list[tuple[Partition, int, int]]:
    starts = [sum(lengths[:number]) for number in range(len(lengths))]
    return list(zip(parts, starts, lengths, strict=True))
