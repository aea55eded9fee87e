"""`headrace gc` beside runs, beside itself, and killed."""

import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from data_schemas.errors import EnvironmentProblem
from data_schemas.manifest import ArtifactRef, RunRecord
from flows.commands.pin import unpin_run
from infra.processes import boot_id, pid_namespace
from infra.store import claims
from infra.store.filesystem import Folder
from infra.store.garbage import collection
from infra.store.garbage.collection import collect, preview
from infra.store.garbage.contents import artifact_id
from infra.store.garbage.gate import GarbageGate
from infra.store.garbage.runs_in_store import read_runs
from infra.store.garbage.uploads import abort_uploads, unfinished_uploads
from infra.store.pins import Pins, RemovedArtifacts
from infra.store.runs import RunStore, close
from infra.store.uploads import PART_BYTES
from tests.infra.store.garbage.small_store import DAY, STAGES, add_artifact, add_run, damage, live, paths
from tests.infra.store.run_records import run_record

BEAT_SECONDS = 0.1
GONE = {
    "host": "h", "boot_id": boot_id(), "pid_namespace": pid_namespace(), "pid": 2**22 + 1, "process_started": 1.0,
}  # fmt: skip
"""A process of this machine that has ended."""


@pytest.fixture(autouse=True)
def fast_heartbeats(monkeypatch):
    monkeypatch.setattr(claims, "BEAT_SECONDS", BEAT_SECONDS)


@pytest.fixture
def aged():
    """A store in memory for `with_an_old_run`."""
    store = f"memory://{uuid.uuid4().hex}"
    return store, with_an_old_run(store)


def with_an_old_run(shared_store: str) -> list[ArtifactRef]:
    """A store with an old run of three stages, two partitions each, and a run that is young."""
    refs: list[ArtifactRef] = []
    for stage in ("ingest", "clean", "dedup"):
        refs.append(add_artifact(shared_store, stage, f"of {stage}", "old", 90, refs[-1:], parts=["a", "b"]))
        Folder(shared_store).write(f"{stage}/{refs[-1].key}/parts/phase/0.json", b"{}")
    add_run(shared_store, "old", 90, refs)
    add_run(shared_store, "young", 1, [add_artifact(shared_store, "ingest", "young", "young", 1)])
    return refs


@pytest.mark.parametrize("kind", ["file", pytest.param("s3", marks=pytest.mark.slow)])
def test_a_collection_that_dies_leaves_whole_artifacts_and_the_next_one_ends_it(kind, tmp_path, request):
    root = request.getfixturevalue("s3") if kind == "s3" else f"file://{tmp_path}"
    store = f"{root}/{uuid.uuid4().hex}"
    with_an_old_run(store)
    total = len(preview(store, STAGES, 30 * DAY))
    for files in (1, 4, 7) if store.startswith("file") else (7,):
        command = [sys.executable, "-m", "tests.infra.store.garbage.killed_collection", store, str(files)]
        assert subprocess.run(command, check=False, stdout=subprocess.DEVNULL).returncode == 9
        assert damage(store) == []
    collect(store, STAGES, 30 * DAY, print)
    assert preview(store, STAGES, 30 * DAY) == []
    assert damage(store) == []
    assert total == 15
    assert {path.split("/")[0] for path in paths(store)} == {"runs", "ingest"}
    assert RemovedArtifacts(store).by_run() == {"old": ["ingest", "clean", "dedup"]}
    assert not [name for name in Folder(store).names("gc") if name.endswith(".list")]


@pytest.fixture
def patient(monkeypatch):
    """A beat that the machine's load delays is waited for."""
    monkeypatch.setattr(claims, "MISSED_BEATS", 600)


def test_one_collection_works_at_a_time(aged, patient):
    store, _ = aged
    with GarbageGate(store).claimed(), pytest.raises(EnvironmentProblem, match="another headrace gc is at work"):
        collect(store, STAGES, 30 * DAY, print)
    assert collect(store, STAGES, 30 * DAY, print)


@contextmanager
def in_thread(function: Callable[[], None]) -> Iterator[None]:
    """Run a function beside the block; its error is raised at the end."""
    errors: list[BaseException] = []

    def guarded() -> None:
        try:
            function()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=guarded)
    thread.start()
    yield
    thread.join(60)
    assert not thread.is_alive()
    if errors:
        raise errors[0]


def use(store: str, record: RunRecord, used: RunRecord) -> RunRecord:
    """What a run does before it relies on artifacts: pins them where gc sees it."""
    record = record.model_copy(update={"stages": used.stages})
    RunStore(store).save(record)
    return record


@pytest.mark.parametrize("way", ["pins artifacts", "reruns", "is pinned", "holds a key"])
def test_what_a_run_begins_to_need_after_the_selection_stays(aged, way, monkeypatch):
    store, refs = aged
    runs, publish = RunStore(store), GarbageGate.publish
    used = runs.get("old")

    def publish_late(gate: GarbageGate, *arguments: object) -> None:
        if way == "pins artifacts":
            use(store, live(store, "new"), used)
        elif way == "reruns":
            runs.start(run_record("new").model_copy(update={"base_run": "old"}))
        elif way == "is pinned":
            Pins(store).add("old")
        else:
            live(store, "new", f"clean/{refs[1].key}")
        publish(gate, *arguments)

    monkeypatch.setattr(GarbageGate, "publish", publish_late)
    before = paths(store)
    removed = collect(store, STAGES, 30 * DAY, print)
    names = {row.name for row in removed}
    if way == "holds a key":
        assert f"clean/{refs[1].key}/parts" not in names
        assert artifact_id(refs[0]) in names
    else:
        assert not names & {artifact_id(ref) for ref in refs}
        assert {path for path in before if path.endswith(("own", "manifest.json"))} <= paths(store)
    assert damage(store) == []


def test_a_run_that_comes_too_late_waits_and_sees_what_is_left(aged, patient, monkeypatch):
    store, refs = aged
    begun, remove, waited = threading.Event(), collection._remove, []

    def remove_after_the_run_begins(*arguments: object) -> None:
        assert begun.wait(60)
        remove(*arguments)

    monkeypatch.setattr(collection, "_remove", remove_after_the_run_begins)
    published, publish = threading.Event(), GarbageGate.publish

    def publish_and_tell(*arguments: object) -> None:
        publish(*arguments)
        published.set()

    monkeypatch.setattr(GarbageGate, "publish", publish_and_tell)
    monkeypatch.setattr(collection, "_record_removed", lambda *arguments: second_reading.set())
    second_reading = threading.Event()
    with in_thread(lambda: collect(store, STAGES, 30 * DAY, print)):
        assert second_reading.wait(60)
        use(store, live(store, "late"), RunStore(store).get("old"))
        gate = GarbageGate(store)
        assert gate.wait(lambda name: name == artifact_id(refs[2]), lambda line: (waited.append(line), begun.set()))
        assert not Folder(store).exists(f"{artifact_id(refs[2])}/manifest.json")
    assert waited[0].startswith("waits for headrace gc on ")
    assert damage(store) == []


def test_a_run_takes_over_from_a_collection_that_is_silent_and_that_one_removes_nothing_more(aged, monkeypatch):
    store, refs = aged
    monkeypatch.setattr(claims.Heartbeat, "start", lambda self: None)

    def meanwhile(*arguments: object) -> None:
        assert GarbageGate(store).wait(lambda name: name == artifact_id(refs[0]), print)

    monkeypatch.setattr(collection, "_record_removed", meanwhile)
    before = paths(store)
    with pytest.raises(EnvironmentProblem, match="was silent for too long"):
        collect(store, STAGES, 30 * DAY, print)
    assert paths(store) == before
    assert not GarbageGate(store).wait(lambda name: True, print), "no list is left"


def test_an_old_run_whose_process_is_silent_is_fenced_before_its_files_go(aged):
    store, _ = aged
    record = live(store, "paused", "clean/x")
    old = add_run(store, "any", 90)
    RunStore(store).save(record.model_copy(update={"started": old.started}))
    RunStore(store).folder.remove("paused.claims/000001.beat")
    work = f"clean/{'c' * 64}/paused/work/x"
    Folder(store).write(work, b"1")
    lines: list[str] = []
    assert any(row.file.path == work for row in collect(store, STAGES, 30 * DAY, lines.append))
    assert lines == ["waits for the heartbeats of 1 runs that have not ended: paused"]
    assert (RunStore(store).get("paused").status, RunStore(store).get("paused").claim) == ("interrupted", 2)


def test_a_removed_artifact_that_was_made_again_is_not_listed_as_removed(aged):
    store, refs = aged
    collect(store, STAGES, 30 * DAY, print)
    assert RemovedArtifacts(store).by_run() == {"old": ["ingest", "clean", "dedup"]}
    add_artifact(store, "ingest", "of ingest", "old", 1, parts=["a", "b"])
    Folder(store).write(f"ingest/{refs[0].key}/parts/phase/0.json", b"{}")
    RunStore(store).save(close(run_record("other"), "finished"))
    collect(store, STAGES, 30 * DAY, print)
    assert RemovedArtifacts(store).by_run() == {"old": ["clean", "dedup"]}


def test_nothing_goes_while_the_record_of_a_pinned_run_is_missing(aged, capsys):
    store, _ = aged
    Pins(store).add("old")
    RunStore(store).folder.remove("old.json")
    for look in (lambda: preview(store, STAGES, 30 * DAY), lambda: collect(store, STAGES, 30 * DAY, print)):
        with pytest.raises(EnvironmentProblem, match=r"record of pinned run old is missing .* headrace unpin old"):
            look()
    unpin_run(store, "old")
    assert "unpinned old" in capsys.readouterr().out
    assert preview(store, STAGES, 30 * DAY)


def test_a_run_that_was_left_to_a_job_which_waits_for_room_is_alive(aged):
    """Its submitter has ended, and the job has not yet taken the run."""
    store, refs = aged
    ended = add_run(store, "waits", 90, refs, status="running", ended=None, **GONE)
    assert collect(store, STAGES, 30 * DAY, print)
    with_an_old_run(store)
    add_run(store, "waits", 90, refs, status="running", ended=None, **GONE)
    Folder(store).write(f"runs/waits/jobs/{ended.claim + 1:06d}.json", b"{}")
    assert read_runs(store).live == {"waits"}
    assert {row.kind for row in preview(store, STAGES, 30 * DAY)} == {"partitions"}, "what is part of no artifact"


def test_damaged_lists_stop_no_run_and_no_collection(aged):
    """As in a store that was copied while a collection worked."""
    store, _ = aged
    collect(store, STAGES, 30 * DAY, print)
    Folder(store).write("gc/removed.json", b"")
    Folder(store).write("gc/000001.list", b"\x1f\x8bcut off")
    assert RemovedArtifacts(store).by_run() == {}
    assert GarbageGate(store).wait(lambda name: False, print), "whatever is being removed is waited for"
    assert Folder(store).names("gc").count("000001.list") == 0
    Folder(store).write("gc/000002.list", b"")
    assert collect(store, STAGES, 0, print)
    assert not GarbageGate(store).wait(lambda name: True, print)


@pytest.mark.slow
def test_uploads_that_did_not_end_are_aborted(s3):
    """S3 keeps the parts of an upload that a killed process began, and shows them in no listing of files."""
    store, other = f"{s3}/{uuid.uuid4().hex}/a", Folder(f"{s3}/elsewhere")
    add_run(store, "any", 90)
    for folder in (Folder(store).child("clean/x"), Folder(store).child("notes"), other):
        folder.create("large").write(b"0" * (PART_BYTES + 1))  # the first part is sent, and the rest never
    assert [upload.path for upload in unfinished_uploads(other)] == ["large"]
    [aborted] = collect(store, STAGES, 30 * DAY, print)  # this server says that all uploads began in 2010
    assert (aborted.kind, aborted.file.path) == ("temporary", "clean/x/large")
    assert [upload.path for upload in unfinished_uploads(Folder(store))] == ["notes/large"]
    assert len(unfinished_uploads(other)) == 1
    abort_uploads(other, unfinished_uploads(other))
