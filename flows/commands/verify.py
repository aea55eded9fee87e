"""`headrace verify`: every file of the store, read again and compared with its manifest."""

from data_schemas.errors import UnreadableRecordError
from data_schemas.manifest import ArtifactRef, RunRecord
from flows.console import console
from infra.store.artifacts import Artifact, ArtifactStore
from infra.store.pins import RemovedArtifacts
from infra.store.runs import RunStore
from stages.registry import STAGES


def verify_store(store_url: str, run_id: str | None) -> bool:
    """Check the artifacts of one run, or all; prints each damaged file and how to rebuild it. True if none is.

    Artifacts of the run that are missing count as damaged, unless `headrace gc` removed them.
    Artifacts whose manifest this version cannot read are listed; their files are not checked.
    """
    record = RunStore(store_url).get(run_id) if run_id else None
    artifacts, unreadable, gone = _artifacts(store_url, record)
    damaged = sum(error.is_damaged for error in unreadable)
    removed = RemovedArtifacts(store_url).by_run().get(record.run_id, []) if record else []
    for ref in gone:
        if ref.stage in removed:
            console.print(f"removed by headrace gc: {ref.label}")
        else:
            damaged += 1
            console.print(f"missing: {ref.label}; rebuild it with: headrace rerun {ref.stage} --run {run_id}")
    for error in unreadable:
        console.print(f"{'damaged' if error.is_damaged else 'not checked'}: {error}")
    for artifact in artifacts:
        for problem in artifact.damage():
            damaged += 1
            rebuild = f"headrace rerun {artifact.ref.stage} --run {run_id or artifact.ref.attempt}"
            console.print(f"damaged: {problem}; rebuild it with: {rebuild}")
    files = sum(artifact.manifest.file_count for artifact in artifacts)
    not_checked = f", {len(unreadable)} artifacts not checked" if unreadable else ""
    console.print(f"{len(artifacts)} artifacts, {files} files, {damaged} damaged{not_checked}")
    return damaged == 0


def _artifacts(
    store_url: str, record: RunRecord | None
) -> tuple[list[Artifact], list[UnreadableRecordError], list[ArtifactRef]]:
    """Artifacts to check, those that this version cannot read, and those of the run that are gone."""
    store = ArtifactStore(store_url)
    artifacts: list[Artifact] = []
    unreadable: list[UnreadableRecordError] = []
    gone: list[ArtifactRef] = []
    if record is None:
        for stage in STAGES:
            found, errors = store.listing(stage.name)
            artifacts, unreadable = artifacts + found, unreadable + errors
        return artifacts, unreadable, gone
    for outcome in record.stages.values():
        try:
            artifact = store.find_equal(outcome.artifact)
        except UnreadableRecordError as error:
            unreadable.append(error)
            continue
        if artifact is None:
            gone.append(outcome.artifact)
        else:
            artifacts.append(artifact)
    return artifacts, unreadable, gone
