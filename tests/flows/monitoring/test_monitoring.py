"""State of a run as others see it: published beside its claim, scraped by Prometheus, logged as JSON lines, watched."""

import io
import json
import socket
import threading
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families

from data_schemas.errors import EnvironmentProblem
from flows.commands import watch as watch_command
from flows.commands.watch import watch
from flows.monitoring.json_lines import JsonLines
from flows.monitoring.prometheus import serve_metrics
from flows.monitoring.run_status import RunStatus, publish, read_status
from flows.monitoring.status_board import StatusBoard
from flows.runs.request import RunRequest
from flows.runs.session import RunSession
from flows.runs.view import SilentView
from infra.store.runs import RunStore
from tests.flows.mini import Diary, mini_config, write_corpus


@pytest.fixture
def session(tmp_path):
    request = RunRequest(mini_config(write_corpus(tmp_path / "corpus")), str(tmp_path / "store"), last_stage="ingest")
    session = RunSession.begin(request, SilentView())
    yield session
    if session.record.status == "running":
        session.close("interrupted")


def board_of(session, view=None) -> StatusBoard:
    session.view = StatusBoard(view or SilentView(), session)
    return session.view


def test_the_state_of_a_real_run_reaches_the_store_and_the_view(session):
    diary = Diary()
    board = board_of(session, diary)
    with board.published():
        board.logged("see https://user:secret@host/path")
        session.execute(session.stages[0])
    status = read_status(session.run_store.folder, session.run_id)
    ingest = status.stages["ingest"]
    assert (ingest.state, status.attempt, list(status.stages)) == ("done", 1, ["ingest"])
    manifest = session.artifacts["ingest"].manifest
    assert ingest.figures["read"]["source_bytes"] == manifest.counts["source_bytes"] > 0
    assert diary.actions == {"ingest": "run"}
    assert "host/path" in status.lines[0] and "secret" not in status.lines[0]


def test_the_newest_attempt_that_can_be_read_is_the_state(session):
    board = board_of(session)
    publish(session.claim, board.status())
    folder = session.run_store.folder.child(f"{session.run_id}.claims")
    newer = board.status().model_copy(update={"attempt": 2, "lines": ["taken over"]})
    folder.write("000002.status", newer.model_dump_json().encode())
    folder.write("000003.status", b"{half")
    assert read_status(session.run_store.folder, session.run_id).lines == ["taken over"]
    assert read_status(session.run_store.folder, "no-such-run") is None


def test_a_store_that_does_not_answer_costs_the_state_and_not_the_run(session, monkeypatch):
    def gone(claim, status):
        raise OSError("no route to host")

    monkeypatch.setattr("flows.monitoring.status_board.publish", gone)
    board = board_of(session)
    with board.published():
        board.logged("still running")
    assert board.status().lines[0].endswith("run: still running")


def scraped(port: int) -> dict[tuple[str, ...], float]:
    text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").read().decode()
    return {
        (sample.name, *(sample.labels[name] for name in sorted(sample.labels))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_prometheus_scrapes_the_figures_of_now(session):
    board = board_of(session)
    with serve_metrics(board.status, "mini", "127.0.0.1", 0) as port:
        listener = board.stage_started("pretrain")
        listener.advanced("train", 3, 10, "step 3 of 10")
        listener.measured("train", {"loss": 4.5, "tokens_per_second": 1000.0, "gradient_norm": 0.5})
        first = scraped(port)
        listener.measured("train", {"loss": 4.25})
        second = scraped(port)
    run = ("1", "mini")
    assert first["headrace_loss", *run, session.run_id, "pretrain"] == 4.5
    assert second["headrace_loss", *run, session.run_id, "pretrain"] == 4.25
    assert second["headrace_tokens_per_second", *run, session.run_id, "pretrain"] == 1000
    assert second["headrace_phase_figure", "1", "mini", "gradient_norm", "train", session.run_id, "pretrain"] == 0.5
    assert second["headrace_phase_done", "1", "mini", "train", session.run_id, "pretrain"] == 3
    states = {key[-1]: value for key, value in second.items() if key[0] == "headrace_stage_state" and "pretrain" in key}
    assert states == {"waiting": 0, "running": 1, "reused": 0, "done": 0}


def test_a_port_that_is_taken_is_one_sentence(session):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with (
            pytest.raises(EnvironmentProblem, match=rf"metrics_port={port} cannot be used on 127\.0\.0\.1.*in use"),
            serve_metrics(board_of(session).status, "mini", "127.0.0.1", port),
        ):
            raise AssertionError("not reached")


def test_json_lines_name_run_attempt_and_stage():
    stream = io.StringIO()
    view = JsonLines(stream)
    view.logged("before the run has a name")
    view.began("quiet-otter", 2)
    listener = view.stage_started("clean")
    for done in range(4):
        listener.advanced("documents", done, 3, f"{done} of 3 partitions\nin two lines")
    listener.measured("documents", {"documents_out": 7.0})
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert lines[0]["run"] is None
    assert {(line["run"], line["attempt"], line["stage"]) for line in lines[1:]} == {("quiet-otter", 2, "clean")}
    # The first and the last of a phase, and what is in between at most every ten seconds.
    assert [line["done"] for line in lines if "done" in line] == [0, 3]
    assert lines[-1]["figures"] == {"documents_out": 7.0}


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(watch_command, "POLL_SECONDS", 0.02)


def test_watching_ends_when_another_process_finishes_the_run(session, quick, capsys):
    board = board_of(session)
    listener = board.stage_started("ingest")
    listener.advanced("files", 1, 2, "1 of 2 partitions")
    publish(session.claim, board.status())
    shown = threading.Event()
    end = threading.Thread(target=lambda: (shown.wait(10), session.close("finished")))
    end.start()
    threading.Timer(0.2, shown.set).start()
    record = watch(session.request.store_url, session.run_id)
    end.join()
    assert record.status == "finished"
    assert "ingest     files: 1 of 2 partitions" in capsys.readouterr().out


def test_watching_a_run_that_failed_says_why(session, quick):
    session.close("failed", "the disk is full")
    with pytest.raises(EnvironmentProblem, match=rf"run {session.run_id} failed: the disk is full"):
        watch(session.request.store_url, session.run_id)


def test_watching_a_silent_process_ends(session, quick, monkeypatch):
    session._stop_heartbeat()
    monkeypatch.setattr(watch_command, "SILENT_SECONDS", 0.1)
    with pytest.raises(EnvironmentProblem, match="has not sent a heartbeat"):
        watch(session.request.store_url, session.run_id)
    assert RunStore(session.request.store_url).get(session.run_id).status == "running"  # watching changes nothing


def test_a_later_version_may_add_fields():
    status = RunStatus.model_validate(
        {"run_id": "a", "attempt": 1, "host": "h", "stages": {}, "written": "2026-11-30T00:00:00Z", "mood": "good"}
    )
    assert status.run_id == "a"
