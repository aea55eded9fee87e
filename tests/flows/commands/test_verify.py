"""`headrace verify` of a run whose artifacts are damaged, missing or removed."""

import pytest

from data_schemas.errors import NotFoundError
from flows.commands.verify import verify_store
from infra.store.filesystem import Folder
from infra.store.garbage.contents import artifact_id
from infra.store.pins import RemovedArtifacts
from tests.infra.store.garbage.small_store import add_artifact, add_run


def test_a_missing_artifact_does_not_end_the_check_of_the_others(any_store, capsys):
    refs = [add_artifact(any_store, stage, stage, "run", 1) for stage in ("ingest", "clean", "dedup")]
    add_run(any_store, "run", 1, refs)
    assert verify_store(any_store, "latest")
    Folder(any_store).remove(artifact_id(refs[0]))
    Folder(any_store).write(f"{artifact_id(refs[2])}/own", b"altered")
    assert not verify_store(any_store, "latest")
    output = capsys.readouterr().out
    assert f"missing: {refs[0].label}; rebuild it with: headrace rerun ingest --run latest" in output
    assert "damaged: " in output and "2 artifacts, 2 files, 2 damaged" in output
    RemovedArtifacts(any_store).write({"run": ["ingest"]})
    assert not verify_store(any_store, "ru")
    output = capsys.readouterr().out
    assert f"removed by headrace gc: {refs[0].label}" in output and "2 artifacts, 2 files, 1 damaged" in output
    with pytest.raises(NotFoundError):
        verify_store(any_store, "another")
