"""Profile: measure what the corpus consists of, as a whole and slice by slice."""

from collections.abc import Mapping
from functools import partial
from typing import ClassVar

from data_schemas.artifact_kinds import CORPUS, PROFILE, ArtifactKind
from data_schemas.manifest import Estimate, Volume, Work
from infra.hardware import data_process_bytes
from infra.store.artifact_writer import ArtifactWriter
from infra.store.artifacts import Artifact
from infra.workers.capacity import Capacity
from infra.workers.partitions import Partition
from stages.profile.config import ProfileConfig
from stages.profile.coverage.analyses import (
    ENTITY_BYTES,
    coverage_packages,
    coverage_seconds,
    coverage_sources,
)
from stages.stage import Stage, StageContext

TEXT_BYTES_PER_SECOND = 4e6
"""Per core."""
START_SECONDS = 1.0
STATE_BYTES = 24 * 4
"""Memory per type that a slice counts: two states of 24 bytes per type are merged into a third."""
SUMMARY = ("documents", "length.words.total", "entropy.unigram.miller_madow", "zipf.exponent", "heaps.exponent")
"""Figures of the whole corpus that the manifest repeats."""


class ProfileStage(Stage):
    """Measure what the corpus consists of."""

    name = "profile"
    is_optional = True
    version = 2
    Config = ProfileConfig
    inputs: ClassVar[Mapping[str, ArtifactKind]] = {"corpus": CORPUS}
    output = PROFILE

    def packages(self, config: ProfileConfig) -> tuple[str, ...]:
        """Phone numbers, top-level domains, the compressor, Unicode's tables, which say what a word is; coverage's."""
        own = ("phonenumbers", "tld", "unicodedata", "zstandard")
        return (*own, *(coverage_packages(config.coverage) if config.coverage else ()))

    def sources(self, config: ProfileConfig) -> dict[str, str]:
        """The WordNet that is installed."""
        return coverage_sources(config.coverage) if config.coverage else {}

    def estimate(self, config: ProfileConfig, volume: Volume, capacity: Capacity) -> Estimate:
        """Estimate from the bytes of text, and from the samples of coverage."""
        states = STATE_BYTES * (config.word_types + 2 * config.ngram_types)
        entities = ENTITY_BYTES if config.coverage and config.coverage.entity_pipelines else 0
        process = data_process_bytes(volume.text_bytes) + min(states, 4 * volume.text_bytes) + entities
        memory = capacity.per_node * process
        analyzed = ("choose slices", "analyze", "fit", "merge")
        return Estimate.of_work(
            Work(
                kind="profile", amount=volume.text_bytes, rate=TEXT_BYTES_PER_SECOND, parallel=capacity.partitions,
                phases=analyzed,
            ),
            Work(
                kind="profile coverage", amount=coverage_seconds(config.coverage, volume) if config.coverage else 0,
                rate=1, parallel=capacity.partitions, phases=analyzed,
            ),
            Work(kind="profile start", amount=1, rate=1 / START_SECONDS),
            peak_memory_bytes=memory,
            output=volume,
        )  # fmt: skip

    def run(
        self, config: ProfileConfig, inputs: Mapping[str, Artifact], out: ArtifactWriter, context: StageContext
    ) -> None:
        """Choose the slices, analyze file by file, then merge slice by slice."""
        import pyarrow as pa

        from data_schemas.tables import MEASURES
        from stages.profile.analyses import analyses_of
        from stages.profile.analysis import Measure, measures_table
        from stages.profile.partition import fitted, measure_slice, profile_partition, state_files
        from stages.profile.removed import removed
        from stages.profile.slices import ALL, chosen, count_partition

        corpus, maps = inputs["corpus"], context.partitions
        paths = [*corpus.paths("train/*.parquet"), *corpus.paths("held_out/*.parquet")]
        splits = [path.split("/")[0] for path in paths]
        files = [Partition(path.removesuffix(".parquet").replace("/", "-"), path) for path in paths]
        analyses = analyses_of(config, corpus.manifest.volume)
        with context.phase("choose slices"):
            counts = maps.map("count", partial(count_partition, corpus), files)
            slices = chosen(list(zip(splits, counts, strict=True)), config)
        with context.phase("analyze"):
            results = maps.map("analyze", partial(profile_partition, corpus, analyses, slices), files)
        with context.phase("fit"):
            analyses = fitted(analyses, results)
        with context.phase("merge"):
            states = state_files(list(zip(splits, results, strict=True)), slices)
            tasks = [Partition(f"{number:05d}", payload) for number, payload in enumerate(states.items())]
            measured = maps.map("merge", partial(measure_slice, analyses), tasks)
        more = removed(corpus, slices)
        others = [Measure("slices.other", count, "values", name) for name, count in slices.others.items() if count]
        more[ALL] = [*more.get(ALL, []), *others]
        tables = [*(result.read_table("measures.arrow") for result in measured), measures_table(more)]
        measures = pa.concat_tables(tables).replace_schema_metadata(MEASURES.metadata)
        out.write_table("measures.arrow", measures)
        out.write_table("examples.arrow", pa.concat_tables(result.read_table("examples.arrow") for result in measured))
        for result in results:
            for name, amount in result.marker.counts.items():
                out.count(name, amount)
        out.count("slices", len(slices.names))
        whole = {row["measure"]: row["value"] for row in measured[0].read_table("measures.arrow").to_pylist()}
        out.metrics |= {name: whole[name] for name in SUMMARY if name in whole}
        out.volume = corpus.manifest.volume
