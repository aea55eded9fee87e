import contextlib
import os
import random
import uuid

import pytest

from data_schemas import manifest
from infra.store import run_index
from infra.store.run_index import INDEX, MAX_CHANGED, RunIndex
from infra.store.runs import RunStore, close
from tests.infra.store.counting import counted_requests
from tests.infra.store.run_records import run_record

MANY = 300


def many_runs(store: str, count: int = MANY) -> RunStore:
    """Records of finished runs, which got their numbers in another order than that of their names."""
    runs, numbers = RunStore(store), list(range(1, count + 1))
    random.Random(0).shuffle(numbers)
    for number in numbers:
        record = run_record(f"run-{number:05d}").model_copy(update={"sequence": number, "config_digest": f"d{number}"})
        runs.save(close(record, "finished"))
    return runs


def test_thousands_of_runs_are_listed_with_few_requests():
    runs = many_runs(f"memory://{uuid.uuid4().hex}", 2000)
    runs.index()
    with counted_requests() as requests:
        assert runs.get("latest").run_id == "run-02000"
        assert requests == {"ls": 1, "cat_file": 2}, "a listing, the index and the record"
        requests.clear()
        assert next(runs.newest_first(runs.index()[0])).run_id == "run-02000"
        assert requests.total() <= 10
        requests.clear()
        assert runs.get("run-00007").sequence == 7
        assert requests == {"cat_file": 1}
        requests.clear()
        runs.save(run_record("run-00008"))
        assert runs.get("run-0200").run_id == "run-02000"
        assert requests["cat_file"] == 4, "of that name, the index, the record that changed, the record"


def test_the_index_is_what_the_records_are_whatever_happens_to_them(any_store):
    """Records change, go and appear, also those of other processes: the index of rows equals that of a fresh look."""
    runs, chance = many_runs(any_store), random.Random(1)
    for step in range(6):
        names = [name for name in runs.folder.names() if name.endswith(".json")]
        for name in chance.sample(names, 20 * step):
            action = chance.choice(["change", "delete", "damage"])
            if action == "delete":
                runs.folder.remove(name)
            elif action == "damage":
                runs.folder.write(name, b"{")
            else:
                record = run_record(name.removesuffix(".json"))
                runs.save(record.model_copy(update={"sequence": chance.randrange(5 * MANY), "config_name": f"{step}"}))
        rows, unreadable = runs.index()
        runs.folder.remove(INDEX)
        assert (rows, unreadable) == runs.index()
        assert [row.run_id for row in rows] == [record.run_id for record in runs.all()]
        records = {record.run_id: record for record in runs.all()}
        assert all(records[row.run_id].config_name == row.config_name for row in rows)


@pytest.mark.parametrize("content", [b"", b"\x1f\x8b broken", b"[]", b'{"index_version": 1, "rows": [1]}'])
def test_a_broken_index_is_made_again(any_store, content):
    runs = many_runs(any_store)
    whole = runs.index()
    assert runs.folder.exists(INDEX)
    runs.folder.write(INDEX, content)
    assert runs.index() == whole
    assert len(RunIndex(runs.folder)._cached()) == MANY


def test_the_index_of_a_newer_version_is_not_taken_for_what_this_one_can_read(any_store, monkeypatch):
    """A newer version on the same store lists its own records; here they are unreadable, and `latest` skips them."""
    runs = many_runs(any_store, MAX_CHANGED + 9)
    with monkeypatch.context() as newer:
        for module in (manifest, run_index):
            newer.setattr(module, "RUN_RECORD_VERSION", 99)
        runs.save(run_record("run-newer").model_copy(update={"run_record_version": 99, "sequence": 999}))
        assert runs.index()[0][0].run_id == "run-newer"
    assert [run.run_id for run in runs.index()[1]] == ["run-newer"]
    assert runs.get("latest").run_id == f"run-{MAX_CHANGED + 9:05d}"


def test_a_record_that_is_removed_during_the_listing_hides_no_other(tmp_path, monkeypatch):
    runs = many_runs(str(tmp_path), 9)
    scandir = os.scandir

    @contextlib.contextmanager
    def removing(folder):
        with scandir(folder) as entries:
            listed = list(entries)
            runs.folder.remove("run-00004.json")
            yield listed

    monkeypatch.setattr(os, "scandir", removing)
    rows, unreadable = runs.index()
    assert (len(rows), unreadable) == (8, [])


def test_a_store_that_may_only_be_read_has_no_index(tmp_path, monkeypatch):
    runs = many_runs(str(tmp_path / "store"), MAX_CHANGED + 1)

    def refuse(*arguments: object) -> None:
        raise PermissionError("read-only")

    monkeypatch.setattr(type(runs.folder), "write", refuse)
    assert len(runs.index()[0]) == MAX_CHANGED + 1
    assert runs.get("latest").sequence == MAX_CHANGED + 1


def test_copies_and_renamed_records_are_no_other_runs(any_store):
    runs = RunStore(any_store)
    for name in ("first", "second"):
        runs.save(close(run_record(name), "finished"))
    runs.folder.write("first (conflicted copy).json", runs.folder.read("first.json"))
    assert ([record.run_id for record in runs.all()], runs.listing()[1]) == (["second", "first"], [])
    assert runs.get("fir").run_id == "first"
    runs.folder.remove("first.json")
    [renamed] = runs.listing()[1]
    assert renamed.problem.endswith(
        "first (conflicted copy).json holds the record of run first; rename it to first.json"
    )
    assert [record.run_id for record in runs.all()] == ["second"]
