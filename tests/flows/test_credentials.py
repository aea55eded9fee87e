"""Credentials in URLs, the environment and storage options reach nothing that a run writes."""

import gc
import http.server
import logging
import os
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import fsspec
import pytest
import yaml

from data_schemas.errors import EnvironmentProblem, HeadraceError, NotFoundError
from flows.commands.show import print_runs, run_json, run_page, runs_json
from flows.commands.summary import print_summary
from flows.config.run_config import public_config
from flows.report.build import write_report
from flows.runs.request import RunRequest
from flows.runs.session import RunSession
from infra.named_errors import named_errors
from infra.store.filesystem import Folder
from infra.store.runs import RunStore
from tests.flows.mini import Diary, mini_config, mini_values, run_config, write_corpus
from tests.infra.store.s3_server import BUCKET, forget_clients, s3_server

SECRET = "pl4nted-s3cret"


@pytest.fixture
def served(tmp_path) -> Iterator[str]:
    """URL with a password of a corpus on a server."""
    write_corpus(tmp_path / "texts")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path / "texts")))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://user:{SECRET}@127.0.0.1:{server.server_port}/part-0.jsonl.gz?token={SECRET}"
    server.shutdown()
    server.server_close()


def written(folder: Folder) -> bytes:
    """All that is below a folder."""
    return b"".join(folder.read(file.path) for name in folder.names() for file in folder.files(name))


def test_a_run_with_passwords_in_its_urls_writes_them_nowhere(served, capsys, caplog):
    caplog.set_level(logging.DEBUG, "infra")
    store = f"memory://user:{SECRET}@host/store"
    diary, config = Diary(), mini_config(served)
    session = RunSession.begin(RunRequest(config, store, last_stage="clean"), diary)
    for stage in session.stages:
        session.execute(stage)
    session.close("finished")
    write_report(store, session.record)
    report = run_json(store, session.record)
    print_runs(run_page(store, None, None))
    print_summary(store, session.record)
    outputs = capsys.readouterr()
    texts = [*diary.notes, outputs.out, outputs.err, caplog.text, str(report), str(runs_json(run_page(store, 1, None)))]
    assert SECRET not in "".join(texts)
    assert "store memory://host/store" in diary.notes[0]
    content = written(Folder(store))
    assert b"part-0.jsonl.gz" in content, "the source is named"
    assert SECRET.encode() not in content
    assert SECRET not in public_config(config).model_dump_json()
    with pytest.raises(NotFoundError, match=r"no run 'x' in memory://host/store") as error:
        RunStore(store).get("x")
    assert SECRET not in str(error.value)


@pytest.mark.slow
def test_keys_of_an_object_store_are_written_nowhere(tmp_path, monkeypatch, caplog):
    pytest.importorskip("moto")
    pytest.importorskip("s3fs")
    caplog.set_level(logging.INFO)
    with s3_server() as environment:
        for name, value in (environment | {"AWS_SECRET_ACCESS_KEY": SECRET, "FSSPEC_S3_SECRET": SECRET}).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setitem(fsspec.config.conf, "s3", {"secret": SECRET, "key": f"key-{SECRET}"})
        forget_clients()
        store, diary = f"s3://{BUCKET}/store", Diary()
        config = mini_config(write_corpus(tmp_path / "texts"))
        session, diary = run_config(store, config, last_stage="clean")
        assert SECRET in Folder(store).filesystem.storage_options["secret"], "it is in use"
        write_report(store, session.record)
        content = written(Folder(store))
        assert SECRET not in "".join(diary.notes) + caplog.text
        with pytest.raises(EnvironmentProblem) as error, named_errors(f"s3://{BUCKET}-absent/store"):
            Folder(f"s3://{BUCKET}-absent/store").read("x")
        assert SECRET not in "".join(traceback.format_exception(error.value))
    gc.collect()
    assert session.run_id.encode() in content
    assert SECRET.encode() not in content


@pytest.mark.parametrize(
    "error",
    [
        OSError(f"cannot reach sftp://user:{SECRET}@host/store"),
        PermissionError(f"sftp://user:{SECRET}@host/store"),
        EnvironmentProblem(f"the store sftp://user:{SECRET}@host/store cannot be used"),
        HeadraceError("it failed"),
        SystemError(f"https://host/file?X-Amz-Signature={SECRET}"),
    ],
)
def test_tracebacks_of_errors_of_storage_hold_no_password(error):
    with pytest.raises(Exception) as raised, named_errors(f"sftp://user:{SECRET}@host/store"):
        try:
            raise ValueError(f"ftp://me:{SECRET}@host")
        except ValueError as cause:
            raise error from cause
    assert SECRET not in "".join(traceback.format_exception(raised.value))
    assert "host" in str(raised.value) or str(raised.value) == "it failed"


@pytest.mark.slow
def test_the_flow_engine_keeps_no_password(tmp_path, served):
    """Prefect's database, its logs at their most verbose, the store and the output of a run, and of one that fails."""
    store, home = tmp_path / "store", tmp_path / "prefect"
    environment = {
        **os.environ, "PREFECT_HOME": str(home), "HEADRACE_HOME": str(store), "AWS_SECRET_ACCESS_KEY": SECRET,
        "PREFECT_LOGGING_LEVEL": "DEBUG", "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    }  # fmt: skip
    environment.pop("PREFECT_API_URL", None)
    headrace = str(Path(sys.executable).with_name("headrace"))
    for path, expected in ((served, 0), (served.replace("part-0", "absent"), 2)):
        (tmp_path / "mini.yaml").write_text(yaml.safe_dump(mini_values(path)))
        command = [headrace, "run", "mini.yaml", "--until", "clean"]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == expected, done.stderr
        assert SECRET not in done.stdout + done.stderr
    files = [file for folder in (store, home) for file in folder.rglob("*") if file.is_file()]
    assert any(file.suffix == ".db" for file in files)
    assert [str(file) for file in files if SECRET.encode() in file.read_bytes()] == []
