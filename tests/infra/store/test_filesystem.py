"""Names of files and folders that filesystems take for something else."""

import os
import uuid

import pytest

from data_schemas.errors import EnvironmentProblem
from infra.store.access import check_access
from infra.store.filesystem import Folder
from infra.store.garbage.collection import preview
from tests.infra.store.garbage.small_store import DAY, STAGES, add_artifact, add_run

NAMES = [
    "störe ключ",
    "a#b",
    "a+b",
    "a%20b",
    "a?b",
    "a[1]",
    "[!a]",
    "a*b",
    "a{b,c}",
    'a"b',
    "a\\b",
    "~",
    "a:b&c=d",
    "😀",
]


def uses(folder: Folder) -> None:
    """What a store does with its files."""
    folder.write("runs/x.json", b"1")
    folder.write("runs/sub/y", b"22")
    with folder.create("runs/sub/z") as file:
        file.write(b"333")
    assert (folder.read("runs/x.json"), folder.size("runs/sub/y"), folder.exists("runs/z")) == (b"1", 2, False)
    assert folder.names("runs") == ["sub", "x.json"]
    assert sorted(file.path for file in folder.files("runs")) == ["runs/sub/y", "runs/sub/z", "runs/x.json"]
    assert list(folder.child("runs").versions(".json")) == ["x.json"]
    assert folder.create_exclusive("runs/claim", b"a") and not folder.create_exclusive("runs/claim", b"b")
    folder.remove_files(["runs/x.json", "runs/sub/y"])
    assert folder.names("runs") == ["claim", "sub"]
    folder.remove("runs/sub")
    assert [file.path for file in folder.files("runs")] == ["runs/claim"]


@pytest.mark.parametrize("name", NAMES)
def test_a_store_may_have_any_name(any_store, name):
    uses(Folder(any_store).child(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_store_on_s3_may_have_any_name(s3, name):
    store = Folder(f"{s3}/{uuid.uuid4().hex}/{name}")
    check_access(store.url)
    uses(store)


def test_what_a_pattern_would_match_is_not_removed(any_store):
    similar = Folder(any_store).child("store-1"), Folder(any_store).child("store-[1]"), Folder(any_store).child("st*")
    for folder in similar:
        folder.write("runs/x/y", b"1")
    similar[2].remove("runs")
    similar[2].write("runs/x/y", b"1")
    similar[1].remove_files(["runs/x/y"])
    similar[1].write("runs/x/y", b"1")
    similar[1].remove()
    assert [folder.exists("runs/x/y") for folder in similar] == [True, False, True]


@pytest.mark.slow
def test_empty_objects_that_stand_for_folders_are_no_files(s3):
    """As consoles, sync tools and Hadoop make them, for the folder itself and for those inside."""
    store = f"{s3}/{uuid.uuid4().hex}"
    ref = add_artifact(store, "ingest", "old", "old", 90)
    add_run(store, "old", 90, [ref])
    before = {row.file.path for row in preview(store, STAGES, 30 * DAY)}
    folder = Folder(store)
    for path in ("", "runs", "runs/old.claims", "ingest", f"ingest/{ref.key}", f"ingest/{ref.key}/old", "clean"):
        folder.filesystem.call_s3(
            "put_object", Bucket=folder.full().split("/")[0], Key=f"{key(folder, path)}/", Body=b""
        )
    assert {row.file.path for row in preview(store, STAGES, 30 * DAY)} == before
    assert folder.names() == ["clean", "ingest", "runs"]
    assert (folder.names("clean"), folder.files("clean"), folder.names("runs/old.claims")) == ([], [], [])
    assert folder.child("runs").versions("") == folder.child("runs").versions(".json")
    folder.remove("ingest")
    assert folder.names() == ["clean", "runs"]


def key(folder: Folder, path: str) -> str:
    return folder.full(path).partition("/")[2]


def test_a_store_with_a_folder_of_another_user_is_refused_before_anything_starts(tmp_path, monkeypatch):
    """Under umask 022 the first user of a stage keeps its folder; root, who may write anywhere, runs these tests."""
    (tmp_path / "clean" / ("a" * 64)).mkdir(parents=True)
    (tmp_path / "dedup" / ("b" * 64)).mkdir(parents=True)
    (tmp_path / "lost+found").mkdir()
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: "lost" not in str(path) and access(path, mode))
    check_access(str(tmp_path))
    monkeypatch.setattr(os, "access", lambda path, mode: not str(path).endswith("dedup") and access(path, mode))
    with pytest.raises(EnvironmentProblem, match=r"you may not write to .*/dedup, .* umask 002$"):
        check_access(str(tmp_path))


def test_a_store_on_s3_needs_a_bucket():
    pytest.importorskip("s3fs")
    for url in ("s3://", "s3:///"):
        with pytest.raises(EnvironmentProblem, match="names no bucket"):
            check_access(url)
