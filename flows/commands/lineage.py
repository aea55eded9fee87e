"""`headrace lineage`: an artifact and its inputs down to the sources, or a synthetic document and its parent."""

from typing import Any

from rich.tree import Tree

from data_schemas.errors import NotFoundError, UnreadableRecordError
from data_schemas.manifest import ArtifactRef
from flows.commands.synthetic_records import hint, matching, record_of
from infra.store.artifacts import Artifact, ArtifactStore
from infra.store.runs import RunStore
from stages.registry import STAGES

SHA256_DIGITS = 64


def find_artifact(store_url: str, name: str) -> Artifact:
    """An artifact by `STAGE/KEY[/ATTEMPT]` (a prefix of the key suffices), `RUN_ID:STAGE` or `latest:STAGE`.

    Raises:
        NotFoundError: if the name is malformed, or there is no such artifact.
    """
    store = ArtifactStore(store_url)
    if ":" in name and "/" not in name:
        run_id, _, stage = name.partition(":")
        record = RunStore(store_url).get(run_id)
        if stage not in record.stages:
            raise NotFoundError(
                f"run {record.run_id} has no {stage!r}; it has: {', '.join(record.stages) or 'nothing'}"
            )
        return store.open(record.stages[stage].artifact)
    stage, _, rest = name.partition("/")
    key, _, attempt = rest.partition("/")
    if stage not in {known.name for known in STAGES} or not key:
        raise NotFoundError(f"{name!r} names no artifact; use STAGE/KEY[/ATTEMPT], RUN_ID:STAGE or latest:STAGE")
    matches = [
        artifact
        for full in store.keys(stage)
        if full.startswith(key)
        for artifact in store.committed(stage, full)
        if artifact.ref.attempt.startswith(attempt)
    ]
    if not matches:
        raise NotFoundError(f"no artifact {name!r} in {store_url}; see: headrace show latest")
    return matches[0]


def synthetic_document(store_url: str, name: str) -> tuple[Artifact, dict[str, Any], dict[str, Any]] | None:
    """Artifact, record and parent of a synthetic document `RUN_ID:DOC_ID`; None if the name is none.

    Raises:
        NotFoundError: if there is no such run, or its artifact is gone.
    """
    run_id, colon, document = name.partition(":")
    if not colon or "~" not in document or "/" in run_id:
        return None
    run = RunStore(store_url).get(run_id)
    outcome = run.stages.get("synthesize")
    artifact = ArtifactStore(store_url).open(outcome.artifact) if outcome else None
    record = record_of(artifact, document) if artifact else None
    if artifact is None or record is None:
        known = f"; {hint(artifact, document)}" if artifact else ", as it has no stage synthesize"
        raise NotFoundError(f"run {run.run_id} has no synthetic document {document!r}{known}")
    for path in artifact.paths("train/*.parquet"):
        for row in matching(artifact, path, "id", record["parent"]).to_pylist():
            return artifact, record, row
    raise NotFoundError(f"the parent {record['parent']} of {document} is not in {artifact.ref.label}")


def lineage_tree(store_url: str, artifact: Artifact) -> Tree:
    """A tree with the artifact on top and its sources as leaves."""
    tree = Tree(_label(artifact))
    _grow(ArtifactStore(store_url), artifact, tree, set())
    return tree


def _grow(store: ArtifactStore, artifact: Artifact, branch: Tree, seen: set[str]) -> None:
    for name, fingerprint in artifact.manifest.sources.items():
        branch.add(f"source {name} {fingerprint[:16] if len(fingerprint) == SHA256_DIGITS else fingerprint}")
    for name, ref in artifact.manifest.inputs.items():
        if ref.label in seen:
            branch.add(f"{name}: {ref.label} (above)")
            continue
        seen.add(ref.label)
        try:
            below = store.open(ref)
        except UnreadableRecordError:
            branch.add(f"{name}: {ref.label} (its manifest cannot be read by this version)")
            continue
        except NotFoundError:
            branch.add(f"{name}: {ref.label} (gone from the store)")
            continue
        _grow(store, below, branch.add(f"{name}: {_label(below)}"), seen)


def _label(artifact: Artifact) -> str:
    manifest = artifact.manifest
    return f"{artifact.ref.label}  {manifest.kind}, digest {manifest.digest[:12]}, {manifest.ended:%Y-%m-%d %H:%M}"


def lineage_json(store_url: str, artifact: Artifact) -> dict[str, Any]:
    """The same as one object, for `--json`: every artifact once, with its inputs by label."""
    store = ArtifactStore(store_url)
    rows: dict[str, dict[str, Any]] = {}
    pending: list[ArtifactRef] = [artifact.ref]
    while pending:
        ref = pending.pop()
        if ref.label in rows:
            continue
        try:
            manifest = store.open(ref).manifest
        except UnreadableRecordError as error:
            rows[ref.label] = {"artifact": ref.label, "unreadable": str(error)}
            continue
        except NotFoundError:
            rows[ref.label] = {"artifact": ref.label, "gone": True}
            continue
        rows[ref.label] = {
            "artifact": ref.label,
            "stage": manifest.stage,
            "digest": manifest.digest,
            "sources": manifest.sources,
            "config": manifest.config,
            "code": manifest.code,
            "inputs": {name: below.label for name, below in manifest.inputs.items()},
        }
        pending.extend(manifest.inputs.values())
    return {"artifact": artifact.ref.label, "lineage": list(rows.values())}
