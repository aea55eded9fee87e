"""Clean: repair the text, remove what is not text, then drop or tag documents by named rules."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from data_schemas.artifact_kinds import RAW_DOCUMENTS, ArtifactKind
from data_schemas.errors import InputDataError
from data_schemas.manifest import Estimate, Volume, Work
from infra.hardware import data_process_bytes
from infra.store.artifact_writer import ArtifactWriter
from infra.store.artifacts import Artifact
from infra.workers.capacity import Capacity
from infra.workers.partitions import Partition
from stages.clean.config import CleanConfig
from stages.stage import Stage, StageContext

if TYPE_CHECKING:
    from stages.clean.rules.boilerplate_lines import RepeatedLinesByFile

TEXT_BYTES_PER_SECOND = 4e6
"""Per core, with all defaults."""
START_SECONDS = 1.0
SHARE_KEPT = 0.8
WRITTEN_SHARE = 0.33
"""Bytes of all tables over those of the text that is kept."""


class CleanStage(Stage):
    """Repair encodings and white space, and keep the documents that pass the quality rules."""

    name = "clean"
    version = 4
    Config = CleanConfig
    inputs: ClassVar[Mapping[str, ArtifactKind]] = {"documents": RAW_DOCUMENTS}
    output = RAW_DOCUMENTS

    def packages(self, config: CleanConfig) -> tuple[str, ...]:
        """Repair, language, phone numbers, top-level domains, bad words, and the Unicode tables that normalize."""
        return ("ftfy", "phonenumbers", "profanityfilter", "pycld2", "tld", "unicodedata")

    def estimate(self, config: CleanConfig, volume: Volume, capacity: Capacity) -> Estimate:
        """Estimate from the bytes of text."""
        kept = volume.scaled(int(volume.documents * SHARE_KEPT), int(volume.text_bytes * SHARE_KEPT))
        return Estimate.of_work(
            Work(
                kind="clean", variant="with models" if config.quality_classifier or config.perplexity else "",
                amount=volume.text_bytes, rate=TEXT_BYTES_PER_SECOND, parallel=capacity.partitions,
                phases=("boilerplate", "clean"),
            ),
            Work(kind="clean start", amount=1, rate=1 / START_SECONDS),
            peak_memory_bytes=capacity.per_node * data_process_bytes(volume.text_bytes),
            written_bytes=int(kept.text_bytes * WRITTEN_SHARE),
            output=kept,
        )  # fmt: skip

    def run(
        self, config: CleanConfig, inputs: Mapping[str, Artifact], out: ArtifactWriter, context: StageContext
    ) -> None:
        """Compute what depends on the whole corpus (boilerplate, models), then clean partition by partition."""
        from stages.clean.document_cleaner import Cleaner
        from stages.clean.partition import clean_partition
        from stages.clean.quality.corpus_models import train_models

        documents = inputs["documents"]
        cleaner = Cleaner(config, _repeated_lines(config, documents, context))
        if config.quality_classifier or config.perplexity:
            models = train_models(
                config.quality_classifier, config.perplexity, documents, cleaner.kept_texts, context.partitions,
                _partitions(documents), out,
            )  # fmt: skip
            cleaner = replace(cleaner, models=models)
        with context.phase("clean"):
            clean = partial(clean_partition, documents, cleaner)
            for result in context.partitions.map("clean", clean, _partitions(documents)):
                result.adopt_into(out)
        if not out.counts.get("documents_out"):
            rules = ", ".join(sorted(name for name in out.counts if name.startswith("dropped.")))
            count = out.counts.get("documents_in", 0)
            documents_in = "the only document" if count == 1 else f"all {count:,} documents"
            raise InputDataError(
                f"the quality rules dropped {documents_in} ({rules}); relax the limits under clean.rules"
            )
        out.volume = documents.manifest.volume.scaled(out.counts["documents_out"], out.counts["bytes_out"])


def _partitions(documents: Artifact) -> list[Partition]:
    """A partition per file of documents."""
    return [
        Partition(path.removeprefix("documents/").removesuffix(".parquet"), path)
        for path in documents.paths("documents/*.parquet")
    ]


def _repeated_lines(config: CleanConfig, documents: Artifact, context: StageContext) -> "RepeatedLinesByFile | None":
    if config.boilerplate is None:
        return None
    from stages.clean.document_cleaner import prepared_text
    from stages.clean.rules.boilerplate_lines import find_repeated_lines

    with context.phase("boilerplate"):
        prepare = partial(prepared_text, config.unwrapped_genres)
        return find_repeated_lines(documents, _partitions(documents), prepare, config.boilerplate, context.partitions)
