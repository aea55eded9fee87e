import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from data_schemas.errors import FencedError
from flows.commands.lineage import find_artifact, lineage_json, lineage_tree
from flows.commands.show import print_runs, run_json, run_page, runs_json
from flows.commands.summary import print_summary
from flows.commands.verify import verify_store
from flows.runs.earlier import continuation
from flows.runs.request import RunRequest
from flows.runs.session import RunSession
from infra.store import claims
from infra.store.artifacts import ArtifactStore
from infra.store.records import report_once
from infra.store.runs import RunStore, close
from tests.flows.mini import Diary, digests, mini_config, run_config, write_corpus

BEAT_SECONDS = 0.2


@contextmanager
def process(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A process of `paused_owner.py`; killed at the end."""
    command = [sys.executable, "-m", "tests.flows.paused_owner", *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as started:
        try:
            yield started
        finally:
            started.kill()


def wake(owner: subprocess.Popen[str]) -> None:
    owner.stdin.write("go\n")
    owner.stdin.flush()


def test_a_run_that_is_alive_is_reported_and_not_adopted(tmp_path, monkeypatch):
    request = RunRequest(mini_config(write_corpus(tmp_path / "texts")), str(tmp_path / "store"))
    monkeypatch.setattr(claims, "BEAT_SECONDS", BEAT_SECONDS)
    monkeypatch.setattr(claims, "MISSED_BEATS", 600)  # a beat that the machine's load delays is waited for
    first, diary = RunSession.begin(request), Diary()
    assert continuation(RunStore(request.store_url), request).endswith(
        "is silent for 3 heartbeats, else starts another"
    )
    second = RunSession.begin(request, diary)
    assert second.run_id != first.run_id
    assert f"run {first.run_id} of the same config is still alive on" in diary.notes[1]
    for session in (first, second):
        session.close("failed")
    assert continuation(RunStore(request.store_url), request) == f"continues run {second.run_id}"
    assert RunSession.begin(request).run_id == second.run_id


def test_a_session_that_is_dropped_stops_beating(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "BEAT_SECONDS", BEAT_SECONDS)
    request = RunRequest(mini_config(write_corpus(tmp_path / "texts")), str(tmp_path / "store"))
    first = RunSession.begin(request).run_id
    for thread in threading.enumerate():
        if thread.name == f"heartbeat-{first}":
            thread.join(60)
    assert RunSession.begin(request).run_id == first


def test_of_two_processes_at_once_one_continues_the_run(tmp_path):
    corpus, store = write_corpus(tmp_path / "texts"), str(tmp_path / "store")
    left = RunSession.begin(RunRequest(mini_config(corpus), store, last_stage="pretrain"))
    left.close("interrupted")
    with process("begin", store, corpus) as one, process("begin", store, corpus) as other:
        for started in (one, other):
            assert started.stdout.readline() == "ready\n"
        for started in (one, other):
            wake(started)
        begun = [json.loads(started.stdout.readline()) for started in (one, other)]
    continued, another = sorted(begun, key=lambda begin: begin[0] != left.run_id)
    assert continued[0] == left.run_id
    assert another[0] != left.run_id
    assert f"continues run {left.run_id}" in continued[1]
    assert any(f"run {left.run_id} of the same config is still alive on" in note for note in another[1])


def test_a_paused_owner_commits_nothing_once_it_was_taken_over(tmp_path, monkeypatch):
    """SIGSTOP in the middle of a checkpoint, taken over, SIGCONT: no marker, no manifest, no record is written."""
    corpus, store = write_corpus(tmp_path / "texts"), str(tmp_path / "store")
    request = RunRequest(mini_config(corpus), store, last_stage="pretrain")
    with process("train", store, corpus) as owner:
        run_id, _ = json.loads(owner.stdout.readline())
        assert owner.stdout.readline() == "paused here\n"
        owner.send_signal(signal.SIGSTOP)
        session = RunSession.begin(request)
        assert (session.run_id, session.claim.number) == (run_id, 2)
        work = next((tmp_path / "store" / "pretrain").glob(f"*/{run_id}/work/train"))
        assert [path.name for path in work.glob("*/complete.json")] == ["complete.json"]
        owner.send_signal(signal.SIGCONT)
        wake(owner)
        ended = json.loads(owner.stdout.readline())
    assert ended[0] == "checkpoint refused"
    assert ended[1].startswith(f"run {run_id} was taken over by ")
    assert ended[2:] == ["manifest refused", "record refused"]
    assert [path.parent.name for path in work.glob("*/complete.json")] == ["step-00000004"]
    assert not ArtifactStore(store).committed("clean", "f" * 64)
    assert RunStore(store).get(run_id) == session.record

    for stage in session.stages:
        session.execute(stage)
    session.close("finished")
    assert session.artifacts["pretrain"].manifest.metrics["starts"] == [0, 4]
    undisturbed, _ = run_config(str(tmp_path / "other"), mini_config(corpus), last_stage="pretrain")
    assert digests(store, run_id) == digests(str(tmp_path / "other"), undisturbed.run_id)
    assert verify_store(store, None)


def test_owners_of_a_run_write_files_of_different_names(tmp_path):
    """A paused owner that wakes up in the middle of a file does not write into the file of the new owner."""
    request = RunRequest(mini_config(write_corpus(tmp_path / "texts")), str(tmp_path / "store"), last_stage="ingest")
    first = RunSession.begin(request)
    [ingest] = first.stages
    late = first.store.writer("ingest", "a" * 64, first.run_id, ingest.output, first.claim)
    with late.create("funnel.parquet") as file:
        file.write(b"of the first")
        first.close("failed")
        second = RunSession.begin(request)
        out = second.store.writer("ingest", "a" * 64, second.run_id, ingest.output, second.claim)
        out.write("funnel.parquet", b"of the second")
        file.write(b", woken up")
    assert out.files["funnel.parquet"].part == f"{first.run_id}/owner-2/funnel.parquet"
    assert out.folder.read(out.files["funnel.parquet"].part) == b"of the second"
    with pytest.raises(FencedError, match=f"run {first.run_id} was taken over"):
        late.write("rejects.parquet", b"")
    outcome = second.execute(ingest)
    second.close("finished")
    assert outcome.artifact.attempt == first.run_id
    assert verify_store(request.store_url, None)


def test_records_and_manifests_of_a_newer_version_end_no_command(tmp_path, capsys, caplog):
    path, store = write_corpus(tmp_path / "texts"), str(tmp_path / "store")
    good, _ = run_config(store, mini_config(path), last_stage="clean")
    newer, _ = run_config(store, mini_config(path, "clean.personal_data=null"), last_stage="clean")
    runs = RunStore(store)
    fields = newer.record.model_dump(mode="json") | {"headrace_version": "9.1.0", "colour": "red"}
    runs.folder.write(f"{newer.run_id}.json", json.dumps(fields).encode())
    manifest = newer.artifacts["clean"].manifest.model_dump(mode="json")
    manifest |= {"colour": "red", "packages": {"headrace": "9.1.0"}}
    newer.artifacts["clean"].folder.write(f"{newer.run_id}/manifest.json", json.dumps(manifest).encode())

    report_once.cache_clear()
    latest = runs.get("latest")
    assert latest.run_id == good.run_id
    assert "written by Headrace 9.1.0" in caplog.text
    print_runs(run_page(store, None, None))
    print_summary(store, latest)
    assert "unreadable" in capsys.readouterr().out
    rows = {row["run_id"]: row for row in runs_json(run_page(store, None, None))["runs"]}
    assert rows[newer.run_id]["status"] == "unreadable"
    assert rows[newer.run_id]["written_by"] == "Headrace 9.1.0"
    assert verify_store(store, None)
    assert capsys.readouterr().out.count("not checked: ") == 1
    assert run_json(store, latest)["stages"]

    # The same manifest, used by a run whose record can be read.
    runs.save(close(newer.record, "finished"))
    lineage_tree(store, find_artifact(store, f"{good.run_id}:clean"))
    assert [row["stage"] for row in run_json(store, runs.get(newer.run_id))["stages"]] == ["ingest"]
    print_summary(store, runs.get(newer.run_id))
    again, diary = run_config(store, mini_config(path, "clean.personal_data=null"), last_stage="clean")
    assert diary.actions == {"ingest": "reuse", "clean": "run"}
    assert lineage_json(store, again.artifacts["clean"])
    again.artifacts["clean"].folder.write(f"{again.run_id}/manifest.json", b'{"manifest_version": 2, "sta')
    assert not verify_store(store, None)
    assert "manifest.json is damaged (" in capsys.readouterr().out
