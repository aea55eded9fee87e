"""`headrace verify`: every file of the store, read again and compared with its manifest."""

from data_schemas.errors import UnreadableRecordError
from flows.console import console
from infra.store.artifacts import Artifact, ArtifactStore
from infra.store.runs import RunStore
from stages.registry import STAGES


def verify_store(store_url: str, run_id: str | None) -> bool:
    """Check the artifacts of one run, or all; prints each damaged file and how to rebuild it. True if none is.

    Artifacts whose manifest this version cannot read are listed; their files are not checked.
    """
    artifacts, unreadable = _artifacts(store_url, run_id)
    damaged = sum(error.is_damaged for error in unreadable)
    for error in unreadable:
        console.print(f"{'damaged' if error.is_damaged else 'not checked'}: {error}", markup=False)
    for artifact in artifacts:
        for problem in artifact.damage():
            damaged += 1
            rebuild = f"headrace rerun {artifact.ref.stage} --run {run_id or artifact.ref.attempt}"
            console.print(f"damaged: {problem}; rebuild it with: {rebuild}", markup=False)
    files = sum(artifact.manifest.file_count for artifact in artifacts)
    not_checked = f", {len(unreadable)} artifacts not checked" if unreadable else ""
    console.print(f"{len(artifacts)} artifacts, {files} files, {damaged} damaged{not_checked}")
    return damaged == 0


def _artifacts(store_url: str, run_id: str | None) -> tuple[list[Artifact], list[UnreadableRecordError]]:
    store = ArtifactStore(store_url)
    if run_id is None:
        listings = [store.listing(stage.name) for stage in STAGES]
        return [row for found, _ in listings for row in found], [row for _, errors in listings for row in errors]
    artifacts, unreadable = [], []
    for outcome in RunStore(store_url).get(run_id).stages.values():
        try:
            artifacts.append(store.open(outcome.artifact))
        except UnreadableRecordError as error:
            unreadable.append(error)
    return artifacts, unreadable
