"""Synthesize: texts made of the training documents, admitted by gates, added to the corpus in exact shares."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from functools import partial
from statistics import fmean
from typing import TYPE_CHECKING, Any, ClassVar

from data_schemas.artifact_kinds import CORPUS, ArtifactKind
from data_schemas.errors import ConfigError, EnvironmentProblem
from data_schemas.manifest import Estimate, Volume, Work
from infra.hardware import data_process_bytes
from infra.store.artifact_writer import ArtifactWriter
from infra.store.artifacts import Artifact, ArtifactStore
from infra.workers.capacity import Capacity
from infra.workers.partitions import Partition, PartitionResult
from stages.stage import Sources, Stage, StageContext
from stages.synthesize.config import SynthesizeConfig, labels

if TYPE_CHECKING:
    from stages.synthesize.methods_config import MethodConfig
    from stages.synthesize.records import MethodRecord
    from stages.synthesize.rounds import MadePart
    from stages.synthesize.shares import Quota

TEXT_BYTES_PER_SECOND = {"apertium": 22e3, "local_models": 2e3, "endpoint": 2e3, "checkpoint": 2e3}
"""Per core, by kind of method."""
OTHER_BYTES_PER_SECOND = 1e6
CORPUS_BYTES_PER_SECOND = 40e6
"""Per core: ranks and copies of the corpus."""
SIGNED_BYTES_PER_SECOND = 30e6
"""Per core: signatures of the corpus, which near duplicates are found by."""
REMOTE = ("endpoint", "checkpoint", "local_models")
"""Methods whose engine is large or elsewhere: a plan takes it to be there."""
START_SECONDS = 0.4
SHARE_ACCEPTED = 0.7
WRITTEN_SHARE = 0.4
"""Bytes of all tables over those of the corpus with its synthetic texts."""
MISSING = "not installed"


class SynthesizeStage(Stage):
    """Add synthetic documents, made of the training documents, to the corpus."""

    name = "synthesize"
    is_optional = True
    version = 2
    Config = SynthesizeConfig
    inputs: ClassVar[Mapping[str, ArtifactKind]] = {"corpus": CORPUS}
    output = CORPUS

    def __init__(self, clean_rules: Callable[[Mapping[str, Any]], Any] | None = None) -> None:
        """Take the rules of clean from the registry.

        Args:
            clean_rules: function from settings of clean to its verdict on a document; a module-level function.
        """
        self._clean_rules = clean_rules

    def packages(self, config: SynthesizeConfig) -> tuple[str, ...]:
        """Unicode's tables, which say what a word is; engines are sources."""
        return ("unicodedata",)

    def check(self, config: SynthesizeConfig, store: str = "") -> None:
        """Check that the engine of every method is there, and that the endpoints answer."""
        from stages.synthesize.methods import check_endpoint

        _methods(config, store)
        for method in config.methods:
            if method.kind == "endpoint":
                check_endpoint(method)

    def list_sources(self, config: SynthesizeConfig, store: str) -> Sources:
        """Engine and version of every method, and the benchmark files."""
        from stages.common.benchmark_ngrams.items import BenchmarkListing, list_benchmarks

        benchmarks = BenchmarkListing([], {})
        if config.gates.benchmarks:
            benchmarks = list_benchmarks(config.gates.benchmarks.benchmarks, store)
        methods, missing = _methods(config, store)
        fingerprints = {f"method {each.label}": f"{each.engine} {each.engine_version}".strip() for each in methods}
        return Sources(fingerprints | benchmarks.fingerprints, (benchmarks, methods, missing))

    def estimate(self, config: SynthesizeConfig, volume: Volume, capacity: Capacity) -> Estimate:
        """Estimate from the bytes of text, the shares, and the gates; without methods that are left out here."""
        shares = {method.kind: 0.0 for method in config.methods}
        for label, method in zip(labels(config.methods), config.methods, strict=True):
            if not _is_left_out(config, method):
                shares[method.kind] += _mean_share(config, label, method.share)
        made = volume.text_bytes / SHARE_ACCEPTED
        texts = [
            Work(
                kind=f"synthesize {kind}", amount=made * share,
                rate=TEXT_BYTES_PER_SECOND.get(kind, OTHER_BYTES_PER_SECOND), parallel=capacity.partitions,
                phases=("texts",),
            )
            for kind, share in shares.items()
        ]  # fmt: skip
        more = 1 + sum(shares.values())
        output = volume.scaled(int(volume.documents * more), int(volume.text_bytes * more))
        memory = capacity.per_node * data_process_bytes(volume.text_bytes)
        return Estimate.of_work(
            *texts,
            Work(
                kind="synthesize near", amount=volume.text_bytes if config.gates.near and more > 1 else 0,
                rate=SIGNED_BYTES_PER_SECOND, parallel=capacity.partitions, phases=("texts",),
            ),
            Work(
                kind="synthesize corpus", amount=volume.text_bytes, rate=CORPUS_BYTES_PER_SECOND,
                parallel=capacity.partitions, phases=("parents", "write"),
            ),
            Work(kind="synthesize start", amount=1, rate=1 / START_SECONDS),
            peak_memory_bytes=memory,
            written_bytes=int(output.text_bytes * WRITTEN_SHARE),
            output=output,
        )  # fmt: skip

    def run(
        self, config: SynthesizeConfig, inputs: Mapping[str, Artifact], out: ArtifactWriter, context: StageContext
    ) -> None:
        """Rank the parents, make and judge texts in rounds until every share is reached, then write all of it."""
        from stages.synthesize.generation import Work
        from stages.synthesize.output import copy_held_out, methods_metrics, write_file
        from stages.synthesize.parents import Parents, write_parents
        from stages.synthesize.rounds import make_texts

        corpus, maps = inputs["corpus"], context.partitions
        store = corpus.folder.url.rstrip("/").rsplit("/", 2)[0]
        benchmarks, methods, missing = context.listing or self.list_sources(config, store).listing
        _check_benchmarks(config, corpus)
        settings = _clean_settings(corpus, store) if config.gates.clean_rules else None
        work = Work(corpus, store, config, methods, self._clean_rules, settings)
        paths = corpus.paths("train/*.parquet")
        with context.phase("parents"):
            work = work.with_items(_benchmark_items(config, benchmarks.files, context))
            partitions = [Partition(_stem(path), path) for path in paths]
            results = maps.map("parents", partial(write_parents, work), partitions)
            for result in results:
                for name, amount in result.marker.counts.items():
                    out.count(name, amount)
            parents = Parents.read(paths, results, len(methods))
        for genre in sorted(config.shares.keys() - set(parents.names)):
            known = ", ".join(parents.names) or "none"
            context.listener.logged(
                f"synthesize.shares names the genre {genre!r}, of which there are no documents: {known}"
            )
        is_missing = [method.label in missing for method in methods]
        shares = [_present(config.shares_of(genre), is_missing) for genre in parents.names]
        quotas = parents.quotas(work, shares)
        with context.phase("texts"):
            made = make_texts(work, parents, quotas, maps)
        with context.phase("write"):
            by_file: dict[str, list[MadePart]] = {path: [] for path in paths}
            for part in made:
                by_file[part.path].append(part)
            files = [Partition(_stem(path), (path, parts)) for path, parts in by_file.items()]
            alone = sorted(
                {path.replace("held_out/", "train/") for path in corpus.paths("held_out/*.parquet")} - {*paths}
            )
            for result in maps.map("write", partial(write_file, work), files):
                result.adopt_into(out)
            held_out = [Partition(_stem(path), path.replace("train/", "held_out/")) for path in alone]
            for result in maps.map("held_out", partial(copy_held_out, corpus), held_out):
                result.adopt_into(out)
        out.metrics["methods"] = methods_metrics(methods)
        out.metrics["missing_engines"] = missing
        out.metrics["shares"] = _share_rows(quotas, methods, shares, parents.names)
        out.metrics["refusals"] = _refusals(made, methods)
        _report_short(out, context)
        out.volume = corpus.manifest.volume.scaled(out.counts["train_documents"], out.counts["train_bytes"])


def _stem(path: str) -> str:
    return path.removesuffix(".parquet").replace("/", "-")


def _methods(config: SynthesizeConfig, store: str) -> tuple[list["MethodRecord"], dict[str, str]]:
    """The methods as records name them, and why some are missing.

    Raises:
        EnvironmentProblem: if an engine is missing, unless the config skips it.
    """
    from stages.synthesize.methods import build_method
    from stages.synthesize.records import MethodRecord, parameters_of

    methods, missing = [], {}
    for label, settings in zip(labels(config.methods), config.methods, strict=True):
        engine = version = ""
        try:
            method = build_method(settings, store or None)
            engine, version = method.engine, method.engine_version
        except EnvironmentProblem as problem:
            if config.missing_engines == "refuse":
                raise EnvironmentProblem(
                    f"{problem}; or leave {label} out with --set synthesize.missing_engines=skip"
                ) from None
            missing[label], engine = str(problem), MISSING
        ranking = getattr(settings, "parents_of", None) or label
        methods.append(MethodRecord(label, settings.kind, parameters_of(settings), engine, version, ranking))
    return methods, missing


def _is_left_out(config: SynthesizeConfig, method: "MethodConfig") -> bool:
    """Whether the config leaves a method out whose engine is not installed here."""
    from stages.synthesize.methods import build_method

    if config.missing_engines == "refuse" or method.kind in REMOTE:
        return False
    try:
        build_method(method, None)
    except EnvironmentProblem:
        return True
    return False


def _mean_share(config: SynthesizeConfig, label: str, share: float) -> float:
    """Mean of a method's share in the genres that the config names and in all others, whose sizes are not known."""
    return fmean([share, *(shares.get(label, share) for shares in config.shares.values())])


def _present(shares: Sequence[Fraction], is_missing: Sequence[bool]) -> list[Fraction]:
    return [Fraction(0) if absent else share for share, absent in zip(shares, is_missing, strict=True)]


def _benchmark_items(config: SynthesizeConfig, files: Sequence[Any], context: StageContext) -> PartitionResult | None:
    from stages.common.benchmark_ngrams.index import build_index

    if config.gates.benchmarks is None:
        return None
    build = partial(build_index, config.gates.benchmarks)
    [items] = context.partitions.map("benchmark_items", build, [Partition("all", files)])
    return items


def _check_benchmarks(config: SynthesizeConfig, corpus: Artifact) -> None:
    """Refuse to forget the benchmarks that dedup keeps out of the corpus."""
    decontaminate = corpus.manifest.config.get("decontaminate")
    if decontaminate and config.gates.benchmarks is None:
        globs = [str(glob) for glob in decontaminate["benchmarks"]]
        named = globs[0] + (f" and {len(globs) - 1} more" if len(globs) > 1 else "")
        raise ConfigError(
            f"dedup keeps the benchmark items of {named} out of the corpus, but synthesize.gates.benchmarks is null, "
            "so that synthetic texts could hold them; list the globs of dedup.decontaminate.benchmarks as "
            "synthesize.gates.benchmarks.benchmarks too"
        )


def _clean_settings(corpus: Artifact, store: str) -> Mapping[str, Any]:
    """Settings of clean that the corpus was made with.

    Raises:
        NotFoundError: if the artifact is gone.
        ConfigError: if the corpus does not come from clean.
    """
    cleaned = corpus.manifest.inputs.get("documents")
    if cleaned is None or cleaned.stage != "clean":
        raise ConfigError(
            "synthesize.gates.clean_rules is on, but the corpus names no artifact of clean that it was made of; set "
            "synthesize.gates.clean_rules=false"
        )
    return ArtifactStore(store).open(cleaned).manifest.config


def _share_rows(
    quotas: Sequence["Quota"],
    methods: Sequence["MethodRecord"],
    shares: Sequence[Sequence[Fraction]],
    genres: list[str],
) -> list[dict[str, Any]]:
    return [
        {
            "genre": quota.genre,
            "method": methods[quota.method].label,
            "documents": quota.documents,
            "parents": len(quota.parents),
            "share": float(shares[genres.index(quota.genre)][quota.method]),
            "target": quota.target,
            "tried": quota.taken,
            "kept": quota.accepted,
            "short": quota.target - quota.accepted,
        }
        for quota in quotas
    ]


def _refusals(made: Sequence["MadePart"], methods: Sequence["MethodRecord"]) -> dict[str, dict[str, int]]:
    """Method -> verdict -> texts."""
    counts = {method.label: Counter[str]() for method in methods}
    for part in made:
        counts[methods[part.method].label].update(part.decisions.column("verdict").to_pylist())
    return {label: dict(sorted(counter.items())) for label, counter in counts.items()}


def _report_short(out: ArtifactWriter, context: StageContext) -> None:
    short = [row for row in out.metrics["shares"] if row["short"]]
    out.count("short_documents", sum(row["short"] for row in short))
    for row in short:
        context.listener.logged(
            f"{row['genre']}: {row['kept']:,} of {row['target']:,} documents by {row['method']}: the gates refused too "
            "many, see the report"
        )
