import hashlib
import json

import pyarrow as pa
import pytest

from data_schemas.artifact_kinds import CORPUS, RAW_DOCUMENTS
from data_schemas.errors import ContractError, DamagedArtifactError, NotFoundError, UnreadableRecordError
from data_schemas.manifest import FileEntry, content_digest
from infra.store.artifact_key import artifact_key
from infra.store.artifacts import ArtifactStore
from tests.stores import commit, documents_artifact, documents_table


def test_key_depends_on_everything_that_decides_the_bytes_and_on_nothing_else():
    base = artifact_key("dedup", 1, {"a": 1, "b": 0.5}, {"documents": "d"}, {}, {})
    assert base == artifact_key("dedup", 1, {"b": 0.5, "a": 1}, {"documents": "d"}, {}, {})
    others = [
        artifact_key("clean", 1, {"a": 1, "b": 0.5}, {"documents": "d"}, {}, {}),
        artifact_key("dedup", 2, {"a": 1, "b": 0.5}, {"documents": "d"}, {}, {}),
        artifact_key("dedup", 1, {"a": 2, "b": 0.5}, {"documents": "d"}, {}, {}),
        artifact_key("dedup", 1, {"a": 1, "b": 0.5}, {"documents": "e"}, {}, {}),
        artifact_key("dedup", 1, {"a": 1, "b": 0.5}, {"documents": "d"}, {"path": "x"}, {}),
    ]
    assert len({base, *others}) == 6


def test_digest_is_of_names_sizes_and_content_but_not_of_where_a_file_lies():
    shared = FileEntry(path="a", bytes=1, sha256="x", part="parts/data/x")
    own = FileEntry(path="a", bytes=1, sha256="x")
    assert content_digest([shared]) == content_digest([own])
    assert content_digest([own]) != content_digest([FileEntry(path="b", bytes=1, sha256="x")])


def test_what_was_written_is_read_back_and_hashed_on_the_way(any_store):
    artifact = documents_artifact(any_store, [{"a": "one"}, {"b": "two"}])
    assert artifact.paths("documents/*") == ["documents/00000.parquet", "documents/00001.parquet"]
    assert artifact.read_table("documents/00001.parquet").column("text").to_pylist() == ["two"]
    for entry in artifact.manifest.files:
        assert hashlib.sha256(artifact.read(entry.path)).hexdigest() == entry.sha256
    artifact.check_sizes()
    assert artifact.damage() == []


def test_without_a_manifest_nothing_exists(any_store):
    store = ArtifactStore(any_store)
    out = store.writer("ingest", "k", "dead-run", RAW_DOCUMENTS)
    out.write_table("documents/0.parquet", documents_table({"a": "one"}))
    assert store.committed("ingest", "k") == []


def test_two_attempts_at_one_key_do_not_touch_each_other(any_store):
    first = documents_artifact(any_store, [{"a": "one"}], attempt="first")
    second = documents_artifact(any_store, [{"a": "two"}], attempt="second")
    assert first.read_table("documents/00000.parquet") != second.read_table("documents/00000.parquet")
    newest = ArtifactStore(any_store).committed("ingest", "a" * 64)
    assert [artifact.ref.attempt for artifact in newest] == ["second", "first"]


def test_a_kind_refuses_other_tables_and_missing_files(any_store):
    store = ArtifactStore(any_store)
    out = store.writer("ingest", "k", "run", RAW_DOCUMENTS)
    table = documents_table({"a": "one"})
    position = table.schema.get_field_index("text")
    wrong = table.set_column(position, pa.field("text", pa.binary()), table.column("text").cast(pa.binary()))
    with pytest.raises(
        ContractError, match=r"ingest writes documents/0.parquet .* field 'text' is binary, declared string"
    ):
        out.write_table("documents/0.parquet", wrong)
    with pytest.raises(ContractError, match="does not declare"):
        out.write_table("other/0.parquet", table)
    out.write_table("documents/0.parquet", table)
    with pytest.raises(ContractError, match=r"wrote no file rejects/\*\.parquet"):
        commit(store, out, "ingest", "k", RAW_DOCUMENTS)


def test_reader_and_writer_are_both_named_when_kinds_differ(any_store):
    artifact = documents_artifact(any_store, [{"a": "one"}])
    artifact.check_contract(RAW_DOCUMENTS, "clean")
    with pytest.raises(ContractError, match=r"ingest wrote documents v2 .* tokenize reads corpus v2"):
        artifact.check_contract(CORPUS, "tokenize")


@pytest.mark.parametrize("harm", ["flip", "truncate", "delete"])
def test_damage_is_found(any_store, harm):
    artifact = documents_artifact(any_store, [{"a": "one"}])
    location = artifact.location("documents/00000.parquet")
    data = artifact.folder.read(location)
    if harm == "delete":
        artifact.folder.remove(location)
    else:
        artifact.folder.write(
            location, data[:-1] if harm == "truncate" else data[:40] + bytes([data[40] ^ 1]) + data[41:]
        )
    [problem] = artifact.damage()
    assert "documents/00000.parquet" in problem
    if harm == "flip":
        artifact.check_sizes()  # a look at sizes cannot see it; verify does
    else:
        with pytest.raises(DamagedArtifactError, match=r"documents/00000\.parquet: .*headrace rerun ingest"):
            artifact.check_sizes()


def test_a_missing_artifact_names_the_command_that_helps(any_store):
    artifact = documents_artifact(any_store, [{"a": "one"}])
    artifact.folder.remove()
    with pytest.raises(NotFoundError, match="headrace rerun ingest"):
        ArtifactStore(any_store).open(artifact.ref)


def test_an_unreadable_manifest_is_skipped_and_named(any_store, caplog):
    artifact = documents_artifact(any_store, [{"a": "one"}])
    documents_artifact(any_store, [{"a": "one"}], attempt="other")
    fields = artifact.manifest.model_dump(mode="json") | {"packages": {"headrace": "9.1.0"}, "manifest_version": 99}
    artifact.folder.write("test-run/manifest.json", json.dumps(fields).encode())
    store = ArtifactStore(any_store)
    assert [found.ref.attempt for found in store.committed("ingest", "a" * 64)] == ["other"]
    [line] = caplog.messages
    assert "test-run/manifest.json cannot be read" in line
    assert "written by Headrace 9.1.0" in line
    assert [len(found) for found in store.listing("ingest")] == [1, 1]
    with pytest.raises(UnreadableRecordError, match=r"manifest\.json .*newest that can be read is"):
        store.open(artifact.ref)


def test_a_spoilt_manifest_of_the_same_attempt_is_replaced(any_store):
    artifact = documents_artifact(any_store, [{"a": "one"}])
    artifact.folder.write("test-run/manifest.json", b'{"manifest_version": 1')
    documents_artifact(any_store, [{"a": "one"}])
    assert ArtifactStore(any_store).open(artifact.ref).manifest.digest == artifact.manifest.digest
