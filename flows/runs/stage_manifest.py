"""Manifest of the artifact that a stage of a run has made."""

from collections.abc import Mapping
from datetime import UTC, datetime

from data_schemas.manifest import ArtifactRef, Manifest, content_digest
from data_schemas.public_urls import PUBLIC
from flows.planning.planner import PlannedStage
from infra.measure import Stopwatch
from infra.store import provenance
from infra.store.artifact_writer import ArtifactWriter
from infra.store.artifacts import Artifact
from stages.stage import Stage


def stage_manifest(
    stage: Stage,
    decision: PlannedStage,
    inputs: dict[str, Artifact],
    out: ArtifactWriter,
    started: datetime,
    stopwatch: Stopwatch,
    peak_memory_bytes: int,
) -> Manifest:
    """The manifest of what a stage has written to `out`."""
    assert decision.key is not None
    files = sorted(out.files.values(), key=lambda entry: entry.path)
    return Manifest(
        stage=stage.name,
        stage_version=stage.version,
        kind=stage.output.name,
        kind_version=stage.output.version,
        key=decision.key,
        attempt=out.attempt,
        digest=content_digest(files),
        config=decision.config.model_dump(mode="json", context=PUBLIC),
        inputs=artifact_refs(inputs),
        sources=dict(decision.sources.fingerprints),
        files=files,
        counts=out.counts,
        metrics=out.metrics,
        volume=out.volume,
        code=provenance.code_version(),
        packages=provenance.package_versions(stage.packages(decision.config)),
        device=provenance.device(),
        started=started,
        ended=datetime.now(UTC),
        phases=stopwatch.phases,
        peak_memory_bytes=peak_memory_bytes,
    )


def artifact_refs(artifacts: Mapping[str, Artifact]) -> dict[str, ArtifactRef]:
    """References to artifacts by name, as records keep them."""
    return {name: artifact.ref for name, artifact in artifacts.items()}
