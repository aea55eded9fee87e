"""Manifests of many files: Parquet lists beside `manifest.json`, read when one of their files is needed."""

import json
import pickle
import uuid
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_schemas.errors import ContractError, DamagedArtifactError
from data_schemas.manifest import FileEntry, Manifest, content_digest
from flows.commands.verify import verify_store
from infra.store import file_lists
from infra.store.artifacts import Artifact, ArtifactStore
from infra.store.file_lists import MAX_IN_MANIFEST, FileIndex, with_lists
from infra.store.filesystem import Folder
from infra.store.garbage.collection import collect
from tests.infra.store.counting import counted_requests
from tests.infra.store.garbage.small_store import DAY, STAGES, add_run
from tests.infra.store.test_many_files import KEY, large_artifact
from tests.stores import documents_artifact


@pytest.fixture
def listed(any_store, monkeypatch) -> Artifact:
    """An artifact of 250 files in three lists."""
    monkeypatch.setattr(file_lists, "MAX_IN_MANIFEST", 100)
    monkeypatch.setattr(file_lists, "FILES_PER_LIST", 100)
    return large_artifact(any_store, 250)


def stored(artifact: Artifact) -> dict:
    return json.loads(artifact.folder.read(f"{artifact.ref.attempt}/manifest.json"))


def test_a_few_files_are_listed_in_the_manifest_as_before(any_store):
    content = stored(documents_artifact(any_store, [{"a": "one"}]))
    assert (content["manifest_version"], len(content["files"]), "file_lists" in content) == (4, 3, False)
    assert len(stored(large_artifact(any_store, MAX_IN_MANIFEST))["files"]) == MAX_IN_MANIFEST
    Manifest.model_validate(content | {"manifest_version": 1})  # of earlier versions


def test_an_artifact_with_lists_is_the_same_artifact(listed, any_store):
    content = stored(listed)
    assert (content["manifest_version"], content["files"], len(content["file_lists"])) == (4, [], 3)
    again = ArtifactStore(any_store).open(listed.ref)
    assert len(again.paths("*")) == again.manifest.file_count == 250
    assert again.paths("documents/*") == [
        *(f"documents/{number:05d}.parquet" for number in range(247)),
        "documents/99999.parquet",
    ]
    assert content_digest(again.files) == again.ref.digest
    assert again.manifest.total_bytes == sum(entry.bytes for entry in again.files)
    again.check_sizes()
    assert again.damage() == [] and verify_store(any_store, None)
    assert pickle.loads(pickle.dumps(again)).read_table("documents/00007.parquet").num_rows == 1
    with pytest.raises(ContractError, match="contains no file documents/absent"):
        again.location("documents/absent")


def test_one_file_costs_one_list(monkeypatch):
    monkeypatch.setattr(file_lists, "MAX_IN_MANIFEST", 100)
    monkeypatch.setattr(file_lists, "FILES_PER_LIST", 100)
    store = f"memory://{uuid.uuid4().hex}"
    ref = large_artifact(store, 250).ref
    with counted_requests() as requests:
        artifact = ArtifactStore(store).open(ref)
        assert len(pickle.dumps(artifact)) < 4_000
        for name in ("documents/00120.parquet", "documents/00130.parquet", "documents/00120.parquet"):
            assert artifact.location(name) == f"run/{name}"
        assert requests == {"cat_file": 2}
        artifact.check_sizes()
        assert requests["cat_file"] == 4, "the other two"


@pytest.mark.parametrize("harm", ["missing", "altered"])
def test_a_damaged_list_is_named_and_gc_leaves_its_files(listed, any_store, harm, capsys):
    path = f"run/{listed.manifest.file_lists[1].name}"
    if harm == "missing":
        listed.folder.remove(path)
    else:
        listed.folder.write(path, b"PAR1")
    artifact = ArtifactStore(any_store).open(listed.ref)
    assert artifact.location("documents/00000.parquet"), "it is in another list"
    with pytest.raises(DamagedArtifactError, match=r"the list of files .*headrace rerun ingest"):
        artifact.check_sizes()
    [problem] = artifact.damage()
    assert path in problem and not verify_store(any_store, None)
    assert "1 damaged" in capsys.readouterr().out
    add_run(any_store, "other", 90)
    assert [row for row in collect(any_store, STAGES, 0, print) if row.file.path.startswith("ingest")] == []


def test_gc_keeps_the_lists_of_what_is_needed_and_removes_those_of_a_superseded_owner(listed, any_store):
    listed.folder.write("run/manifest-0123456789abcdef.parquet", b"of an owner that was taken over")
    add_run(any_store, "run", 1, [listed.ref])
    [row] = collect(any_store, STAGES, 30 * DAY, print)
    assert row.file.path == f"ingest/{KEY}/run/manifest-0123456789abcdef.parquet"
    assert ArtifactStore(any_store).open(listed.ref).damage() == []


@settings(max_examples=15)
@given(st.sets(st.text(min_size=1, max_size=6), min_size=1, max_size=40), st.integers(1, 7), st.text(max_size=6))
def test_any_path_is_found_in_the_lists(paths, per_list, other):
    folder = Folder(f"memory://{uuid.uuid4().hex}")
    entries = [
        FileEntry(path=path, bytes=len(path), sha256="0" * 64, part=path if len(path) > 3 else None) for path in paths
    ]
    now = "2026-01-01T00:00:00Z"
    manifest = Manifest(
        stage="clean", stage_version=1, kind="k", kind_version=1, key=KEY, attempt="run", digest="", config={},
        inputs={}, files=entries, counts={}, metrics={}, volume={}, code={}, packages={}, device={}, started=now,
        ended=now, phases={}, peak_memory_bytes=0,
    )  # fmt: skip
    with mock.patch.multiple(file_lists, MAX_IN_MANIFEST=0, FILES_PER_LIST=per_list):
        stored = Manifest.model_validate_json(with_lists(folder, manifest).to_json())
    assert stored.files == [] and stored.file_count == len(paths)
    index = FileIndex(folder, stored)
    for entry in entries:
        assert index.find(entry.path) == entry
    assert (index.find(other) is not None) == (other in paths)
    assert FileIndex(folder, stored).all() == sorted(entries, key=lambda entry: entry.path)
