"""`headrace verify`: every file of the store, read again and compared with its manifest."""

from flows.console import console
from infra.store.artifacts import Artifact, ArtifactStore
from infra.store.runs import RunStore
from stages.registry import STAGES


def verify_store(store_url: str, run_id: str | None) -> bool:
    """Check the artifacts of one run, or all; prints each damaged file and how to rebuild it. True if none is."""
    artifacts = list(_artifacts(store_url, run_id))
    damaged = 0
    for artifact in artifacts:
        for problem in artifact.damage():
            damaged += 1
            rebuild = f"headrace rerun {artifact.ref.stage} --run {run_id or artifact.ref.attempt}"
            console.print(f"damaged: {problem}; rebuild it with: {rebuild}", markup=False)
    files = sum(len(artifact.manifest.files) for artifact in artifacts)
    console.print(f"{len(artifacts)} artifacts, {files} files, {damaged} damaged")
    return damaged == 0


def _artifacts(store_url: str, run_id: str | None) -> list[Artifact]:
    store = ArtifactStore(store_url)
    if run_id is not None:
        record = RunStore(store_url).get(run_id)
        return [store.open(outcome.artifact) for outcome in record.stages.values()]
    return [artifact for stage in STAGES for artifact in store.all(stage.name)]
