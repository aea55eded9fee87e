"""Ends of a stage's task and of a run: what is retried, and what a run survives."""

import errno
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
from prefect.exceptions import TerminationSignal
from prefect.task_engine import TaskRunTimeoutError
from typer.testing import CliRunner

from data_schemas.errors import EnvironmentProblem, StoreUnavailable
from flows import pipeline
from flows.cli import app
from flows.runs.session import RunSession
from flows.stage_tasks import exceeded_time_named, is_worth_retrying, stage_task
from flows.store_location import store_url
from stages.registry import STAGES
from tests.flows.mini import Diary


class PanicException(BaseException):
    """As pyo3 raises for a panic in Rust."""


def error_of_stage(error: BaseException, store: str) -> BaseException:
    def execute(_: Any) -> None:
        raise error

    config = SimpleNamespace(stage_config=lambda _: SimpleNamespace(timeout_seconds=None))
    request = SimpleNamespace(config=config, store_url=store)
    task = stage_task(STAGES[0], SimpleNamespace(request=request, run_id="r", execute=execute))  # type: ignore[arg-type]
    with pytest.raises(BaseException) as info:
        task.fn()
    return info.value


@pytest.mark.parametrize(
    ("error", "raised", "is_retried"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), EnvironmentProblem, False),
        (OSError(errno.EROFS, "Read-only file system"), EnvironmentProblem, False),
        (PanicException("index out of bounds"), RuntimeError, True),
        (ConnectionResetError(errno.ECONNRESET, "reset"), ConnectionResetError, True),
        (KeyboardInterrupt(), KeyboardInterrupt, None),
        (TerminationSignal(15), TerminationSignal, None),
        (TaskRunTimeoutError("1 second"), TaskRunTimeoutError, False),
        (StoreUnavailable("s3://bucket/file: put_object failed 9 times"), StoreUnavailable, True),
    ],
)
def test_what_cannot_heal_is_not_retried_and_only_requests_to_stop_are_interrupts(error, raised, is_retried, tmp_path):
    result = error_of_stage(error, str(tmp_path))
    assert type(result) is raised
    if is_retried is not None:
        assert is_worth_retrying(None, None, SimpleNamespace(data=result)) is is_retried  # type: ignore[arg-type]


def test_a_stage_whose_time_is_over_is_one_sentence_with_what_continues_it():
    config = SimpleNamespace(stage_config=lambda _: SimpleNamespace(timeout_seconds=90.0))
    session: Any = SimpleNamespace(request=SimpleNamespace(config=config))
    with pytest.raises(EnvironmentProblem) as info, exceeded_time_named("pretrain", session):
        raise TaskRunTimeoutError
    assert "pretrain was stopped after pretrain.timeout_seconds, 90 seconds" in str(info.value)
    assert "--set pretrain.timeout_seconds=180" in str(info.value)


@pytest.mark.parametrize("error", [KeyError("bits_per_byte"), OSError(errno.ENOSPC, "No space left on device")])
def test_a_report_that_fails_does_not_fail_a_finished_run(error, monkeypatch, tmp_path):
    def fail(*_: Any) -> None:
        raise error

    class Session:
        """A run whose stages have all finished."""

        closing = RunSession.closing
        request = SimpleNamespace(store_url=str(tmp_path))
        record, run_id, stages = None, "quiet-otter-3f9a", ()

        def __init__(self) -> None:
            self.view = Diary()
            self.ends: list[str] = []

        def close(self, status: str, message: str | None = None) -> None:
            self.ends.append(status)

    monkeypatch.setattr(pipeline, "write_report", fail)
    monkeypatch.setattr(pipeline, "_monitored", lambda _: nullcontext())
    session = Session()
    assert pipeline.run_stages(session) == session.run_id  # type: ignore[arg-type]
    assert session.ends == ["finished"]
    assert "its report could not be written: " in session.view.notes[0]
    assert session.view.notes[0].endswith("headrace report quiet-otter-3f9a")


def test_a_store_that_is_a_file_is_one_sentence_for_every_command(tmp_path):
    (tmp_path / "file").touch()
    for store in (f"{tmp_path}/file", f"{tmp_path}/file/below", f"file://{tmp_path}/file"):
        result = CliRunner().invoke(app, ["runs", "--store", store])
        assert result.exit_code == 2
        assert result.stderr.startswith(f"error: the store {store} cannot be used: {tmp_path}/file is a file")


def test_a_home_that_does_not_exist_is_one_sentence(monkeypatch):
    with pytest.raises(EnvironmentProblem, match="the store ~no-such-user/store cannot be used"):
        store_url("~no-such-user/store")


def test_errors_outside_of_stages_are_one_sentence_too(monkeypatch, tmp_path):
    def fail(*_: Any, **__: Any) -> None:
        raise PanicException from OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("infra.store.filesystem.Folder.names", fail)
    result = CliRunner().invoke(app, ["runs", "--store", str(tmp_path)])
    assert result.exit_code == 2 and "no space left on the filesystem" in result.stderr
    assert "Traceback" not in result.stderr
