"""Dedup: keep one document of each cluster of duplicates, cut repeats and benchmark items, and split off held-out
documents before anything is trained."""

from collections.abc import Mapping
from functools import partial
from typing import ClassVar

from data_schemas.artifact_kinds import CORPUS, RAW_DOCUMENTS, ArtifactKind
from data_schemas.errors import InputDataError
from data_schemas.manifest import Estimate, Volume, Work
from infra.hardware import data_process_bytes
from infra.store.artifact_writer import ArtifactWriter
from infra.store.artifacts import Artifact
from infra.workers.capacity import Capacity
from infra.workers.partitions import Partition
from stages.dedup.config import DedupConfig
from stages.stage import Sources, Stage, StageContext

TEXT_BYTES_PER_SECOND = 15e6
"""Per core, near-duplicate detection and filtering together."""
LOOKUP_BYTES_PER_SECOND = 40e6
"""Per core: reading, hashing words and n-gram lookup."""
SUFFIX_BYTES_PER_SECOND = 5e6
"""In one process: building the suffix array and comparing its neighbors."""
START_SECONDS = 1.0
WRITTEN_SHARE = 0.5
"""Bytes of all tables and signatures over those of the text."""
SUFFIX_MEMORY_PER_BYTE = 7
"""Text, int32 suffix array and two flags per byte; 11 from 2^31 bytes on, where the array is int64."""


class DedupStage(Stage):
    """Keep one document of each cluster of duplicates; split off the held-out documents."""

    name = "dedup"
    version = 4
    Config = DedupConfig
    inputs: ClassVar[Mapping[str, ArtifactKind]] = {"documents": RAW_DOCUMENTS}
    output = CORPUS

    def packages(self, config: DedupConfig) -> tuple[str, ...]:
        """Unicode's tables, which say what a word is."""
        return ("unicodedata",)

    def list_sources(self, config: DedupConfig, store: str) -> Sources:
        """The benchmark files with the state of each glob, and the digests of the earlier artifacts."""
        from stages.common.benchmark_ngrams.items import BenchmarkListing, list_benchmarks

        listing = BenchmarkListing([], {})
        if config.decontaminate:
            listing = list_benchmarks(config.decontaminate.benchmarks, store)
        fingerprints = dict(listing.fingerprints)
        if config.against:
            from stages.dedup.near_duplicates.signature_index import fingerprint as index_fingerprint

            fingerprints |= {url: index_fingerprint(url) for url in config.against}
        return Sources(fingerprints, listing)

    def estimate(self, config: DedupConfig, volume: Volume, capacity: Capacity) -> Estimate:
        """Estimate from the bytes of text."""
        memory = capacity.per_node * data_process_bytes(volume.text_bytes)
        if config.exact_substring:
            memory = max(memory, SUFFIX_MEMORY_PER_BYTE * volume.text_bytes)
        return Estimate.of_work(
            Work(
                kind="dedup", amount=volume.text_bytes, rate=TEXT_BYTES_PER_SECOND, parallel=capacity.partitions,
                phases=("signatures", "candidates", "verification", "clusters", "paragraphs", "filter", "index"),
            ),
            Work(
                kind="dedup decontaminate", amount=volume.text_bytes if config.decontaminate else 0,
                rate=LOOKUP_BYTES_PER_SECOND, parallel=capacity.partitions, phases=("decontaminate",),
            ),
            Work(
                kind="dedup exact_substring", amount=volume.text_bytes if config.exact_substring else 0,
                rate=SUFFIX_BYTES_PER_SECOND, phases=("exact_substring",),
            ),
            Work(kind="dedup start", amount=1, rate=1 / START_SECONDS),
            peak_memory_bytes=memory,
            written_bytes=int(volume.text_bytes * WRITTEN_SHARE),
            output=volume,
        )  # fmt: skip

    def run(
        self, config: DedupConfig, inputs: Mapping[str, Artifact], out: ArtifactWriter, context: StageContext
    ) -> None:
        """Decide on whole documents first, so that no text is cut as a repeat of a document that is dropped."""
        from stages.dedup.cuts import CutSource
        from stages.dedup.decontamination.decontamination import find_contamination
        from stages.dedup.exact_substring import substring_cuts, suffix_array_library
        from stages.dedup.filter import FilterRules, filter_partition
        from stages.dedup.near_duplicates.pipeline import find_fates
        from stages.dedup.near_duplicates.signing import write_index
        from stages.dedup.paragraphs import paragraph_cuts

        if config.exact_substring:
            suffix_array_library()
        documents, maps = inputs["documents"], context.partitions
        names = [path.removeprefix("documents/") for path in documents.paths("documents/*.parquet")]
        fates = find_fates(documents, names, config.near, config.survivor, config.against, context)
        cuts: list[CutSource] = []
        if config.decontaminate:
            with context.phase("decontaminate"):
                listing = context.listing or self.list_sources(config, "").listing
                contamination = find_contamination(documents, names, fates, config.decontaminate, listing.files, maps)
            fates = [table.changed(partial(contamination.marked, number)) for number, table in enumerate(fates)]
            cuts += contamination.cuts
            out.adopt(contamination.report)
            out.metrics["contamination"] = contamination.metrics()
        if config.paragraphs:
            with context.phase("paragraphs"):
                cuts += paragraph_cuts(documents, names, fates, config.paragraphs, maps)
        if config.exact_substring:
            with context.phase("exact_substring"):
                cuts += substring_cuts(documents, names, fates, cuts, config.exact_substring, maps)
        rules = FilterRules(config.held_out_share, config.seed, config.min_characters_left, cuts)
        files = [
            Partition(name.removesuffix(".parquet"), (number, name, file_fates))
            for number, (name, file_fates) in enumerate(zip(names, fates, strict=True))
        ]
        with context.phase("filter"):
            for result in maps.map("filter", partial(filter_partition, documents, rules), files):
                result.adopt_into(out)
        with context.phase("index"):
            for result in write_index(documents, names, config.near, fates, context):
                result.adopt_into(out)
        _check_both_splits(config, out)
        out.volume = documents.manifest.volume.scaled(out.counts["train_documents"], out.counts["train_bytes"])


def _check_both_splits(config: DedupConfig, out: ArtifactWriter) -> None:
    if not out.counts.get("train_documents") or not out.counts.get("held_out_documents"):
        raise InputDataError(
            f"dedup left {out.counts.get('train_documents', 0)} documents to train on and "
            f"{out.counts.get('held_out_documents', 0)} held out, and both are needed; use more text or "
            f"a larger dedup.held_out_share (now {config.held_out_share})"
        )
