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

TEXT_BYTES_PER_SECOND = 3e6
"""Per core, without coverage."""
MERGED_BYTES_PER_SECOND = 28e6
"""Per core: text whose counted types are merged into a slice and measured."""
SAMPLE_SECONDS = 2.5e-3
"""Per sampled document: what topics, genres and keywords are learned from, in one process."""
PROCESS_SECONDS, SLICE_SECONDS = 2.0, 0.1
"""Seconds of a core: imports in each process; topics, genres and keywords of a slice."""
MEAN_SLICES = 3
"""Slices that a plan expects of a dimension, whose values it does not know."""
START_SECONDS = 0.2
WHOLE_AND_SPLITS = 2
"""Times that each document is counted besides its genre, language, source and domain: in all, and in its split."""
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
        """Estimate from the bytes of text, the dimensions of slices, and the samples of coverage."""
        states = STATE_BYTES * (config.word_types + 2 * config.ngram_types)
        coverage, size = config.coverage, volume.text_bytes
        entities = ENTITY_BYTES if coverage and coverage.entity_pipelines else 0
        process = data_process_bytes(size) + min(states, 4 * size) + entities
        limits = config.slices.model_dump().values()
        dimensions = WHOLE_AND_SPLITS + sum(limit > 0 for limit in limits)
        slices = WHOLE_AND_SPLITS + 1 + sum(min(limit, MEAN_SLICES) for limit in limits)
        analyzed = ("choose slices", "analyze")
        return Estimate.of_work(
            Work(
                kind="profile", amount=size, rate=TEXT_BYTES_PER_SECOND, parallel=capacity.partitions, phases=analyzed
            ),
            Work(
                kind="profile processes", amount=capacity.partitions, rate=1 / PROCESS_SECONDS,
                parallel=capacity.partitions, phases=analyzed,
            ),
            Work(
                kind="profile coverage",
                amount=coverage_seconds(coverage, volume, capacity.partitions) if coverage else 0,
                rate=1, parallel=capacity.partitions, phases=analyzed,
            ),
            Work(
                kind="profile sample", amount=min(coverage.sampled_documents, volume.documents) if coverage else 0,
                rate=1 / SAMPLE_SECONDS, phases=("fit",),
            ),
            Work(
                kind="profile slices", amount=dimensions * size, rate=MERGED_BYTES_PER_SECOND,
                parallel=capacity.partitions, phases=("merge",),
            ),
            Work(
                kind="profile slice models", amount=slices if coverage else 0, rate=1 / SLICE_SECONDS,
                parallel=capacity.partitions, phases=("merge",),
            ),
            Work(kind="profile start", amount=1, rate=1 / START_SECONDS),
            peak_memory_bytes=capacity.per_node * process,
            output=volume,
        )  # fmt: skip

    def run(
        self, config: ProfileConfig, inputs: Mapping[str, Artifact], out: ArtifactWriter, context: StageContext
    ) -> None:
        """Choose the slices, analyze file by file, then merge slice by slice."""
        import pyarrow as pa

        from stages.profile.analyses import analyses_of
        from stages.profile.analysis import Measure, measures_table
        from stages.profile.partition import (
            fitted,
            measure_slice,
            profile_partition,
            renamed,
            same_slices,
            state_files,
        )
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
            first_of = same_slices(states)
            merged = list(dict.fromkeys(first_of.values()))
            tasks = [Partition(f"{number:05d}", (name, states[name])) for number, name in enumerate(merged)]
            measured = dict(zip(merged, maps.map("merge", partial(measure_slice, analyses), tasks), strict=True))
        more = removed(corpus, slices)
        others = [Measure("slices.other", count, "values", name) for name, count in slices.others.items() if count]
        more[ALL] = [*more.get(ALL, []), *others]
        for path, rest in (("measures.arrow", [measures_table(more)]), ("examples.arrow", [])):
            tables = {name: result.read_table(path) for name, result in measured.items()}
            rows = pa.concat_tables([*(renamed(tables[first], name) for name, first in first_of.items()), *rest])
            out.write_table(path, rows.replace_schema_metadata(tables[ALL].schema.metadata))
        for result in results:
            for name, amount in result.marker.counts.items():
                out.count(name, amount)
        out.count("slices", len(slices.names))
        whole = {row["measure"]: row["value"] for row in measured[ALL].read_table("measures.arrow").to_pylist()}
        out.metrics |= {name: whole[name] for name in SUMMARY if name in whole}
        out.volume = corpus.manifest.volume
