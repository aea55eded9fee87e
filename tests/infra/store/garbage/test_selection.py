import uuid

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_schemas.errors import EnvironmentProblem, NotFoundError
from infra.store.artifacts import ArtifactStore
from infra.store.filesystem import Folder
from infra.store.garbage.collection import collect, preview
from infra.store.pins import Pins
from infra.store.runs import RunStore
from tests.infra.store.garbage.small_store import (
    DAY,
    STAGES,
    add_artifact,
    add_run,
    age,
    damage,
    key_of,
    live,
    paths,
)


def selected(store: str, days: float = 30) -> dict[str, set[str]]:
    """Kind -> paths of what is selected, after the first 12 digits of each key."""
    kinds: dict[str, set[str]] = {}
    for row in preview(store, STAGES, days * DAY):
        kinds.setdefault(row.kind, set()).add(row.file.path)
    return kinds


def test_each_kind_of_garbage_is_found_and_only_that(any_store):
    ingest, clean, old = key_of("ingest"), key_of("clean"), key_of("old")
    raw = add_artifact(any_store, "ingest", "ingest", "first", 90, parts=["a", "b"])
    cleaned = add_artifact(any_store, "clean", "clean", "first", 90, [raw])
    gone = add_artifact(any_store, "clean", "old", "ancient", 90, [raw], parts=["a"])
    add_run(any_store, "first", 1, [raw, cleaned])
    add_run(any_store, "ancient", 90, [raw, gone])
    add_run(any_store, "stopped", 1, [raw], status="failed")
    add_run(any_store, "abandoned", 90, [raw], status="interrupted")
    root = Folder(any_store)
    kept = paths(any_store) - {
        f"clean/{old}/ancient/own", f"clean/{old}/ancient/manifest.json", f"clean/{old}/parts/data/a"
    }  # fmt: skip
    garbage = {
        "artifacts": [f"clean/{old}/ancient/own", f"clean/{old}/ancient/manifest.json", f"clean/{old}/parts/data/a"],
        "partitions": [f"ingest/{ingest}/parts/read/0.json", f"ingest/{ingest}/parts/data/c"],
        "progress": [f"clean/{clean}/first/work/step-1/shard", f"dedup/{ingest}/abandoned/work/step-1/shard"],
        "superseded": [f"clean/{clean}/first/owner-2/own"],
        "shared passes": [f"shared/compress/{ingest}/model.safetensors"],
        "temporary": [f"clean/{clean}/first/.own.0123abcd.tmp", "runs/.first.json.0123abcd.tmp"],
    }
    not_garbage = [
        f"dedup/{ingest}/stopped/work/step-1/shard", f"dedup/{ingest}/parts/signatures/0.json",
        f"shared/compress/{clean}/model.safetensors", "ingest/notes/of/a-user", "mine/x", f"{clean}/x/y",
        "runs/.second.json.0123abcd.tmp", "reports/first/report.html", "runs/first/tensorboard/events",
        "runs/stopped.claims/000000.hold",
    ]  # fmt: skip
    for path in [*garbage["partitions"], *garbage["progress"], *garbage["superseded"], *not_garbage]:
        root.write(path, b"12345")
    for path in [*garbage["shared passes"], *garbage["temporary"]]:
        root.write(path, b"12345")
        age(any_store, path, 40)
    root.write("runs/stopped.claims/000000.hold", f"dedup/{ingest}".encode())
    assert selected(any_store) == {kind: set(files) for kind, files in garbage.items()}
    before = paths(any_store)
    assert before == kept | set(not_garbage) | {path for files in garbage.values() for path in files}
    removed = collect(any_store, STAGES, 30 * DAY, print)
    assert {row.file.path for row in removed} == before - paths(any_store)
    assert paths(any_store) == kept | set(not_garbage)
    assert selected(any_store) == {}
    assert damage(any_store) == []


@pytest.mark.parametrize("held", [True, False])
def test_what_a_live_run_holds_stays_whatever_the_limit(any_store, held):
    """Progress and partitions where it works, and what it used; of another stage's key only if that is unknown."""
    raw = add_artifact(any_store, "ingest", "raw", "old", 90)
    add_run(any_store, "old", 90, [raw])
    clean, dedup = key_of("clean"), key_of("dedup")
    record = live(any_store, "busy", f"clean/{clean}" if held else None)
    RunStore(any_store).save(record.model_copy(update={"stages": add_run(any_store, "x", 99, [raw]).stages}))
    root = Folder(any_store)
    files = [f"clean/{clean}/parts/clean/0.json", f"clean/{clean}/busy/work/x", f"ingest/{raw.key}/parts/read/0.json"]
    for path in [*files, f"dedup/{dedup}/parts/sign/0.json", f"shared/compress/{clean}/measurement.json"]:
        root.write(path, b"1")
        age(any_store, path, 90)
    others = set() if not held else {f"dedup/{dedup}/parts/sign/0.json"}
    assert selected(any_store, 0) == {"partitions": {files[2]} | others}


def test_runs_that_unfinished_runs_rerun_are_kept(any_store):
    raw = add_artifact(any_store, "ingest", "raw", "base", 90)
    add_run(any_store, "base", 90, [raw])
    add_run(any_store, "again", 1, [], status="failed", base_run="base")
    assert selected(any_store) == {}
    add_run(any_store, "again", 1, [], base_run="base")
    assert selected(any_store) == {"artifacts": {path for path in paths(any_store) if path.startswith("ingest")}}


def test_another_attempt_with_the_same_bytes_is_kept_for_one_that_is_gone(any_store):
    first = add_artifact(any_store, "ingest", "raw", "first", 90)
    add_artifact(any_store, "ingest", "raw", "second", 90)
    add_run(any_store, "first", 1, [first])
    Folder(any_store).remove(f"ingest/{first.key}/first")
    assert selected(any_store) == {}


def test_what_cannot_be_read_keeps_what_it_may_need(any_store):
    raw = add_artifact(any_store, "ingest", "raw", "old", 90)
    cleaned = add_artifact(any_store, "clean", "clean", "old", 90, [raw])
    add_run(any_store, "old", 90, [raw, cleaned])
    path, folder = f"clean/{cleaned.key}/old/manifest.json", Folder(any_store)
    folder.write(path, folder.read(path).replace(b'"metrics"', b'"colour":1,"metrics"'))
    assert selected(any_store) == {}, "a manifest of a newer version keeps itself and its inputs"
    folder.write("runs/newer.json", b'{"run_record_version": 99}')
    for select in (preview, lambda *arguments: collect(*arguments, print)):
        with pytest.raises(EnvironmentProblem, match=r"newer\.json cannot be read .* removes nothing while"):
            select(any_store, STAGES, 30 * DAY)


def test_a_folder_that_is_no_store_is_refused(any_store):
    Folder(any_store).write(f"ingest/{key_of('x')}/a/b", b"1")
    for select in (preview, lambda *arguments: collect(*arguments, print)):
        with pytest.raises(NotFoundError, match="is no store of Headrace"):
            select(any_store, STAGES, 0)
    assert paths(any_store) == {f"ingest/{key_of('x')}/a/b"}


@st.composite
def histories(draw):
    """Artifacts in an acyclic graph, and runs that used some of them."""
    days = st.sampled_from([1, 90])
    artifacts = []
    for number in range(draw(st.integers(1, 8))):
        inputs = draw(st.sets(st.integers(0, number - 1), max_size=2)) if number else set()
        artifacts.append((draw(st.integers(0, 3)), draw(days), sorted(inputs), draw(st.sets(st.sampled_from("abc")))))
    used = st.sets(st.integers(0, len(artifacts) - 1), max_size=3)
    runs = draw(st.lists(st.tuples(days, st.booleans(), used), max_size=4))
    return artifacts, runs


@settings(max_examples=25)
@given(histories())
def test_what_kept_runs_reach_stays_and_all_else_goes(history):
    store, (artifacts, runs) = f"memory://{uuid.uuid4().hex}", history
    refs = []
    for number, (name, days, inputs, parts) in enumerate(artifacts):
        stage = STAGES[number % len(STAGES)]
        refs.append(
            add_artifact(store, stage, f"k{name}", f"a{number}", days, [refs[i] for i in inputs], sorted(parts))
        )
    add_run(store, "any", 90)
    for number, (days, pinned, used) in enumerate(runs):
        add_run(store, f"run-{number}", days, [refs[i] for i in used])
        if pinned:
            Pins(store).add(f"run-{number}")
    reached = {i for days, pinned, used in runs for i in _last_of_stages(used) if pinned or days < 30}
    pending = [*reached, *(i for i, artifact in enumerate(artifacts) if artifact[1] < 30)]
    needed: set[int] = set()
    while pending:
        number = pending.pop()
        needed.add(number)
        pending += artifacts[number][2]
    collect(store, STAGES, 30 * DAY, print)
    left = {artifact.ref.attempt for stage in STAGES for artifact in ArtifactStore(store).all(stage)}
    assert left == {f"a{number}" for number in needed}
    assert damage(store) == []
    assert {path.split("/")[2] for path in paths(store) if not path.startswith("runs/")} <= left | {"parts"}
    assert preview(store, STAGES, 30 * DAY) == []


def _last_of_stages(used: set[int]) -> list[int]:
    """A record has one artifact per stage."""
    return list({STAGES[number % len(STAGES)]: number for number in used}.values())
