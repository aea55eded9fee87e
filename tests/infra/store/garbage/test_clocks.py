"""Ages of runs and files when the clock of a host is wrong."""

import time
from datetime import timedelta

from infra.store.garbage.collection import collect
from infra.store.garbage.contents import artifact_id
from infra.store.garbage.runs_in_store import read_runs
from infra.store.runs import RunStore
from tests.infra.store.garbage.small_store import DAY, NOW, STAGES, add_artifact, add_run


def test_a_collector_whose_clock_is_ahead_removes_nothing_young(tmp_path, monkeypatch):
    store, refs = str(tmp_path), {}
    for name, days in {"young": 1, "old": 90}.items():
        refs[name] = add_artifact(store, "ingest", name, name, days)
        add_run(store, name, days, [refs[name]])
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 60 * DAY)
    removed = {row.name for row in collect(store, STAGES, 30 * DAY, print)}
    assert removed == {artifact_id(refs["old"])}


def test_a_run_on_a_host_whose_clock_is_behind_is_as_young_as_those_before_it(tmp_path):
    store = str(tmp_path)
    for number, (name, days) in enumerate({"first": 90, "second": 2, "behind": 9_000, "ahead": -9_000}.items(), 1):
        add_run(store, name, days, sequence=number)
    add_run(store, "without a number", 9_000)
    assert read_runs(store).kept(NOW.timestamp(), 30 * DAY) == {"second", "behind", "ahead"}
    assert read_runs(store).kept((NOW + timedelta(days=40)).timestamp(), 30 * DAY) == {"ahead"}
    assert len(RunStore(store).all()) == 5
