"""The corpora that `headrace profile` names, and their profiles: found in the store, or computed and kept there.

- `Profiled`: a corpus with its profile
- `profile_of`: by its name on the command line; `profiles_of`: two with the same settings
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from data_schemas.artifact_kinds import CORPUS, PROFILE, RAW_DOCUMENTS
from data_schemas.config import StageConfig, with_current_names
from data_schemas.errors import ConfigError, ContractError, NotFoundError
from data_schemas.manifest import Estimate, RunRecord, Volume
from flows.commands.lineage import find_artifact
from flows.planning.changes import field_changes
from flows.planning.planner import PlannedStage
from flows.runs.stage_manifest import stage_manifest
from infra.measure import PeakMemory
from infra.progress import ProgressListener
from infra.store import provenance
from infra.store.artifact_key import artifact_key
from infra.store.artifacts import Artifact, ArtifactStore
from infra.store.runs import RunStore
from infra.workers.capacity import Engine
from infra.workers.partitions import PartitionMap
from stages.registry import STAGES, stage_named
from stages.stage import StageContext

STAGE = "profile"
Listener = Callable[[], ProgressListener]
ATTEMPT = "headrace-profile"
"""Attempt of a profile that the command computes. It is no run's id, so that `headrace gc` goes by its age."""
TEXT = {RAW_DOCUMENTS.name: RAW_DOCUMENTS, CORPUS.name: CORPUS}
"""Kinds of artifacts with text, by name."""
STAGES_WITH_TEXT = tuple(stage.name for stage in STAGES if stage.output.name in TEXT)
FREE = Estimate(seconds=0, peak_memory_bytes=0, output=Volume())
IN_PROCESS_BYTES = 64_000_000
"""Text up to which starting worker processes is not worth it."""


@dataclass(frozen=True)
class Profiled:
    """A corpus with its profile."""

    label: str
    """Such as `clean of quiet-otter-3f9a`."""
    profile: Artifact
    corpus: Artifact | None
    """None if it is gone from the store."""
    run_id: str | None
    """The run whose stage `profile` made or took this; None for other corpora."""


@dataclass(frozen=True)
class _Named:
    """An artifact by its name on the command line."""

    label: str
    artifact: Artifact
    settings: Mapping[str, Any] | None
    """Config of a profile, or the section of the run's config; None without one."""
    run_id: str | None


def profile_of(store_url: str, name: str, listener: Listener) -> Profiled:
    """The profile of a run, of the corpus that a stage of a run made, or of an artifact.

    Args:
        store_url: the store.
        name: RUN, RUN:STAGE, STAGE/KEY or STAGE/KEY/ATTEMPT.
        listener: makes what receives the progress, if a profile must be computed.

    Raises:
        NotFoundError: if there is no such run or artifact, or the run has no profile.
        ContractError: if the artifact holds no text.
    """
    return _profiled(store_url, _named(store_url, name), None, listener)


def profiles_of(store_url: str, names: tuple[str, str], listener: Listener) -> tuple[Profiled, Profiled]:
    """Two profiles of the same settings; arguments and errors as of `profile_of`.

    Raises:
        ConfigError: if both exist already and differ in version or settings.
    """
    first, second = (_named(store_url, name) for name in names)
    ordered = sorted((first, second), key=lambda row: not _is_profile(row.artifact))
    settings = next((row.settings for row in ordered if row.settings is not None), None)
    sides = tuple(_profiled(store_url, row, settings, listener) for row in (first, second))
    differences = _differences(sides[0].profile, sides[1].profile)
    if differences:
        corpora = " --against ".join(f"{side.corpus.ref.label if side.corpus else side.label}" for side in sides)
        raise ConfigError(
            f"the profiles of {sides[0].label} and {sides[1].label} are not comparable: {'; '.join(differences)}; "
            f"compare the corpora themselves, which are then profiled alike: headrace profile {corpora}"
        )
    return sides[0], sides[1]


def _is_profile(artifact: Artifact) -> bool:
    return artifact.manifest.kind == PROFILE.name


def _named(store_url: str, name: str) -> _Named:
    if ":" not in name and "/" not in name:
        return _of_run(store_url, RunStore(store_url).get(name))
    artifact = find_artifact(store_url, name)
    run_id, _, stage = name.partition(":")
    record = None if "/" in name else RunStore(store_url).get(run_id)
    label = f"{stage} of {record.run_id}" if record else artifact.ref.label
    if _is_profile(artifact):
        return _Named(label, artifact, artifact.manifest.config, record.run_id if record else None)
    if artifact.manifest.kind not in TEXT:
        raise ContractError(
            f"{name} is of the kind {artifact.manifest.kind}, which has no documents to profile; accepted are what "
            f"{', '.join(STAGES_WITH_TEXT)} made, and profiles"
        )
    return _Named(label, artifact, record.config.get(STAGE) if record else None, None)


def _of_run(store_url: str, record: RunRecord) -> _Named:
    if STAGE in record.stages:
        artifact = ArtifactStore(store_url).open(record.stages[STAGE].artifact)
        return _Named(record.run_id, artifact, artifact.manifest.config, record.run_id)
    corpora = [stage for stage in STAGES_WITH_TEXT if stage in record.stages]
    raise NotFoundError(
        f"run {record.run_id} has no profile; "
        + (
            f"profile a corpus of it with: headrace profile {record.run_id}:{corpora[-1]}"
            if corpora
            else "nor a corpus"
        )
    )


def _config(settings: Mapping[str, Any]) -> StageConfig:
    config = stage_named(STAGE).Config
    try:
        return config.model_validate(with_current_names(config, settings))
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(
            f"the settings of this profile are those of another version: {'.'.join(map(str, first['loc']))}: "
            f"{first['msg']}; profile the corpus again with: headrace rerun profile --run latest"
        ) from None


def _profiled(store_url: str, named: _Named, settings: Mapping[str, Any] | None, listener: Listener) -> Profiled:
    store = ArtifactStore(store_url)
    if _is_profile(named.artifact):
        named.artifact.check_contract(PROFILE, "headrace profile")
        corpus = store.find_equal(named.artifact.manifest.inputs["corpus"])
        return Profiled(named.label, named.artifact, corpus, named.run_id)
    named.artifact.check_contract(TEXT[named.artifact.manifest.kind], "headrace profile")
    stage = stage_named(STAGE)
    config = _config(settings if settings is not None else named.settings or {})
    listed = stage.list_sources(config, store_url)
    packages = provenance.declared_versions(stage.packages(config))
    inputs = {"corpus": named.artifact.ref.digest}
    key = artifact_key(STAGE, stage.version, config.key_fields(), inputs, listed.fingerprints, packages)
    decision = PlannedStage(stage, config, "run", "headrace profile", key, None, FREE, sources=listed)
    known = store.committed(STAGE, key)
    profile = known[0] if known else _computed(store, decision, named.artifact, listener)
    return Profiled(named.label, profile, named.artifact, None)


def _computed(store: ArtifactStore, decision: PlannedStage, corpus: Artifact, listener: Listener) -> Artifact:
    """Run the stage on a corpus, outside of any run, and commit the profile."""
    stage, config, key = decision.stage, decision.config, decision.key
    assert key is not None
    corpus.check_sizes()
    stage.check(config)
    out = store.writer(STAGE, key, ATTEMPT, stage.output)
    volume = corpus.manifest.volume
    in_process = out.folder.is_in_process or volume.text_bytes <= IN_PROCESS_BYTES
    engine: Engine = "inline" if in_process else "processes"
    progress = listener()
    maps = PartitionMap(out.folder, STAGE, stage.output, ATTEMPT, engine, listener=progress)
    context = StageContext(ATTEMPT, maps, out.folder.child(f"{ATTEMPT}/work"), progress)
    context.listing = decision.sources.listing
    started = datetime.now(UTC)
    with PeakMemory() as memory:
        stage.run(config, {"corpus": as_corpus(corpus)}, out, context)
    out.commit(stage_manifest(stage, decision, {"corpus": corpus}, out, started, context.stopwatch, memory.peak_bytes))
    profile = store.committed(STAGE, key)[0]
    profile.check_sizes()  # headrace gc may have been at work beside this
    return profile


def as_corpus(artifact: Artifact) -> Artifact:
    """Documents before the split as a corpus whose documents are all in one split; a corpus as it is."""
    if artifact.manifest.kind == CORPUS.name:
        return artifact
    files = [
        entry.model_copy(
            update={"path": entry.path.replace("documents/", "train/", 1), "part": artifact.location(entry.path)}
        )
        for entry in artifact.files
    ]
    manifest = artifact.manifest.model_copy(
        update={"kind": CORPUS.name, "kind_version": CORPUS.version, "files": files, "file_lists": []}
    )
    return replace(artifact, manifest=manifest)


def _differences(first: Artifact, second: Artifact) -> list[str]:
    """Lines about versions and settings in which two profiles differ."""
    stage = stage_named(STAGE)
    ours, theirs = first.manifest, second.manifest
    changes = []
    if ours.stage_version != theirs.stage_version:
        changes.append(f"stage version {ours.stage_version} and {theirs.stage_version}")
    config = _config(theirs.config)
    changes += field_changes(stage.Config, _config(ours.config).key_fields(), config)
    versions = [(name, ours.packages.get(name), theirs.packages.get(name)) for name in stage.packages(config)]
    changes += [f"{name} {one} and {other}" for name, one, other in versions if one and other and one != other]
    names = [name for name in ours.sources if theirs.sources.get(name, ours.sources[name]) != ours.sources[name]]
    return changes + [f"another {name}" for name in names]
