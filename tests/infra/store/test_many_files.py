"""Artifacts of thousands of files cost few requests, and what is wrong with one of them is still found."""

import uuid

import pyarrow as pa
import pytest

from data_schemas.artifact_kinds import RAW_DOCUMENTS
from data_schemas.errors import ContractError, DamagedArtifactError
from infra.store.artifact_writer import table_bytes
from infra.store.artifacts import CHECKED_TABLES, Artifact, ArtifactStore
from infra.store.filesystem import FEW_FILES
from infra.workers.partitions import Partition, PartitionMap, PartitionWriter
from tests.infra.store.counting import counted_requests
from tests.stores import commit, documents_table, no_rejects

KEY = "a" * 64


def large_artifact(store_url: str, files: int, last: pa.Table | None = None) -> Artifact:
    """An artifact of small documents tables; the last may be another one, of any schema."""
    store, name = ArtifactStore(store_url), "documents/x.parquet"
    out = store.writer("ingest", KEY, "run", RAW_DOCUMENTS)
    data = table_bytes(name, documents_table({"a": "one"}))
    for number in range(files - 3):
        out.write(f"documents/{number:05d}.parquet", data)
    out.write("documents/99999.parquet", data if last is None else table_bytes(name, last))
    out.write_table("rejects/0.parquet", no_rejects())
    out.write(
        "funnel/0.parquet", table_bytes(name, RAW_DOCUMENTS.accepted_schemas("funnel/0.parquet")[0].empty_table())
    )
    return commit(store, out, "ingest", KEY, RAW_DOCUMENTS)


def test_an_artifact_of_ten_thousand_files_is_opened_with_few_requests():
    store = f"memory://{uuid.uuid4().hex}"
    ref = large_artifact(store, 10_000).ref
    with counted_requests() as requests:
        artifact = ArtifactStore(store).open(ref)
        assert requests == {"cat_file": 1}
        artifact.check_sizes()
        assert requests == {"cat_file": 2, "ls": 1, "info": 2}, "a listing of documents/, of the others each its size"
        artifact.check_contract(RAW_DOCUMENTS, "clean")
        assert requests["_open"] == CHECKED_TABLES + 2
        assert requests.total() == CHECKED_TABLES + 7


@pytest.mark.parametrize("files", [10, FEW_FILES + 10])
def test_missing_and_truncated_files_are_found_in_any_number(any_store, files):
    artifact = large_artifact(any_store, files)
    artifact.check_sizes()
    artifact.folder.remove("run/documents/00003.parquet")
    artifact.folder.write("run/documents/00005.parquet", b"cut")
    assert [problem.split(": ")[1].split(",")[0] for problem in artifact.damage()] == [
        "the file is missing", "the file has 3 bytes",
    ]  # fmt: skip
    with pytest.raises(DamagedArtifactError, match=r"00003\.parquet: the file is missing"):
        artifact.check_sizes()
    artifact.folder.remove("run/documents")
    assert len(artifact.damage()) == files - 2


def test_a_table_of_another_schema_at_the_end_is_found(any_store):
    other = pa.table({"id": ["a"], "words": [1]})
    with pytest.raises(ContractError, match=r"ingest writes documents/99999\.parquet"):
        large_artifact(any_store, 200, other).check_contract(RAW_DOCUMENTS, "clean")


def write_document(payload: str, out: PartitionWriter) -> None:
    out.write_table(f"documents/{payload}.parquet", documents_table({payload: payload}))


def test_finished_partitions_are_found_with_few_requests():
    folder = ArtifactStore(f"memory://{uuid.uuid4().hex}").key_folder("ingest", KEY)
    partitions = [Partition(f"{number:04d}", f"{number}") for number in range(300)]
    one = PartitionMap(folder, "ingest", RAW_DOCUMENTS, "run")
    first = one.map("read", write_document, partitions)
    folder.remove(first[7].marker.files[0].part)
    folder.write("parts/read/0008.json", b"{")
    with counted_requests() as requests:
        found = one._finished("read", partitions)
    assert set(found) == {partition.name for partition in partitions} - {"0007", "0008"}
    assert requests == {"ls": 2, "cat_file": 300, "info": 1}, "markers in parallel, and what a listing lacks by name"
