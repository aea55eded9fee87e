"""Retried flow runs, the forms of deployments, and the files that prepare a Prefect server."""

import json
import signal
from pathlib import Path
from threading import Timer, get_ident
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
import yaml
from prefect.events.schemas.automations import AutomationCore
from prefect.exceptions import TerminationSignal
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.utilities.callables import parameter_schema
from prefect.utilities.schema_tools import ValidationError, validate
from typer.testing import CliRunner

from data_schemas.errors import ConfigError, NotFoundError
from flows.cli import app
from flows.config.run_config import load_run_config
from flows.pipeline import pipeline
from flows.planning.stage_order import stages_until
from flows.prefect_server import accelerator_slots, cancellation, flow_runs
from flows.prefect_server.accelerator_slots import _acquire, accelerator_slot_of_job
from flows.prefect_server.cancellation import RunCancelled, cancelled_named, ends_as_cancelled
from flows.runs.request import RunRequest, rerun_request
from flows.stage_flows import rerun
from infra.store.runs import RunStore
from stages.clean.stage import CleanStage
from stages.registry import STAGES, stages_of
from tests.flows.mini import mini_config, run, run_config, write_corpus
from tests.flows.prefect_server.test_connection import server

CHECKOUT = Path(__file__).parents[3]
NAMES = [stage.name for stage in STAGES]


def fail(*_: Any) -> None:
    raise OSError("the network is gone")


def failed_run(request: RunRequest, monkeypatch: pytest.MonkeyPatch, store: str) -> str:
    """Id of a run that failed in clean."""
    with monkeypatch.context() as patch, pytest.raises(OSError, match="network"):
        patch.setattr(CleanStage, "run", fail)
        run(request)
    return RunStore(store).get("latest").run_id


@pytest.mark.parametrize("fresh", [False, True])
def test_a_retried_flow_run_continues_its_run_whatever_ran_since(tmp_path, monkeypatch, fresh):
    store, config = str(tmp_path / "store"), mini_config(write_corpus(tmp_path / "texts"))
    request = RunRequest(config, store, last_stage="clean", fresh=fresh, flow_run="flow-1")
    failed = failed_run(request, monkeypatch, store)
    run_config(store, config, last_stage="clean", fresh=True, flow_run="flow-2")
    again, _ = run(request)
    assert (again.run_id, again.record.status, again.record.claim) == (failed, "finished", 2)
    assert len(RunStore(store).all()) == 2


def test_a_retried_rerun_of_the_latest_run_reruns_the_run_that_was_the_latest(tmp_path, monkeypatch):
    store, path = str(tmp_path / "store"), write_corpus(tmp_path / "texts")
    base = run_config(store, mini_config(path), last_stage="clean")[0].record
    monkeypatch.setattr(flow_runs, "flow_run_id", lambda: "flow-1")
    assert flow_runs.base_of(store, "latest").run_id == base.run_id
    request = rerun_request(store, base, mini_config(path), "clean")
    failed = failed_run(RunRequest(**vars(request) | {"flow_run": "flow-1"}), monkeypatch, store)
    run_config(store, mini_config(path, "clean.languages=[en]"), last_stage="clean")
    assert flow_runs.base_of(store, "latest").run_id == base.run_id
    earlier = flow_runs.earlier_attempt(store)
    assert earlier is not None and earlier.run_id == failed
    monkeypatch.setattr(flow_runs, "flow_run_id", lambda: "flow-2")
    assert flow_runs.base_of(store, "latest").config["clean"]["languages"] == ["en"]


def test_another_config_does_not_continue_the_run_of_its_flow_run(tmp_path, monkeypatch):
    """Deployed code that was updated between the attempts."""
    store, path = str(tmp_path / "store"), write_corpus(tmp_path / "texts")
    failed = failed_run(RunRequest(mini_config(path), store, last_stage="clean", flow_run="f"), monkeypatch, store)
    other, _ = run(RunRequest(mini_config(path, "clean.languages=[en]"), store, last_stage="clean", flow_run="f"))
    assert other.run_id != failed


def test_a_rerun_ends_where_it_is_told_to(tmp_path):
    store, config = str(tmp_path / "store"), mini_config(write_corpus(tmp_path / "texts"))
    base = run_config(store, config, last_stage="tokenize")[0].record
    assert rerun_request(store, base, config, "clean", until="dedup").last_stage == "dedup"
    assert rerun_request(store, base, config, "clean", only=True, until="clean").last_stage == "clean"
    assert rerun_request(store, base, config, "clean").last_stage == "tokenize"
    for wrong, message in (
        ({"until": "ingest"}, "a rerun of clean cannot end at ingest, which comes before it"),
        ({"until": "dedup", "only": True}, "only clean cannot be rerun together with the stages after it"),
        ({"onwards": True, "only": True}, "only clean cannot be rerun together with the stages after it"),
    ):
        with pytest.raises(ConfigError, match=message):
            rerun_request(store, base, config, "clean", **wrong)  # type: ignore[arg-type]
    with pytest.raises(NotFoundError, match="no stage 'train'; the stages are: ingest, "):
        rerun_request(store, base, config, "clean", until="train")


@pytest.mark.parametrize(("flow", "field"), [(pipeline, "until"), (rerun, "stage"), (rerun, "until")])
def test_forms_list_the_stages(flow, field):
    schema = parameter_schema(flow).model_dump()
    assert json.dumps(NAMES) in json.dumps(schema["properties"][field])


@pytest.mark.parametrize("path", sorted(str(path) for path in (CHECKOUT / "configs").glob("*.yaml")))
def test_configs_are_parameters_that_the_server_accepts_and_the_flow_reads(path):
    """As the server checks them, by the schema of the deployment."""
    done = CliRunner().invoke(app, ["params", path, "--until", "clean"])
    values = json.loads(done.output)
    validate(values, parameter_schema(pipeline).model_dump(), raise_on_error=True)
    assert pipeline.validate_parameters(values)["config"] == load_run_config(path)
    values["config"]["ingest"]["pth"] = "x"
    with pytest.raises(ValidationError, match="'pth' was unexpected"):
        validate(values, parameter_schema(pipeline).model_dump(), raise_on_error=True)


@pytest.mark.parametrize(("is_cancelled", "end"), [(True, RunCancelled), (False, KeyboardInterrupt)])
def test_an_interrupt_is_a_cancellation_if_the_server_says_so(monkeypatch, is_cancelled, end):
    monkeypatch.setattr(cancellation, "_is_cancelled", lambda _: is_cancelled)
    with pytest.raises(KeyboardInterrupt) as info, cancelled_named(), ends_as_cancelled():
        raise KeyboardInterrupt
    assert type(info.value) is end
    monkeypatch.setattr(cancellation, "_is_cancelled", lambda _: False)
    with pytest.raises(TerminationSignal), cancelled_named(), ends_as_cancelled():
        raise TerminationSignal(15)  # of another origin; nothing of the first is left


def test_a_wait_for_the_accelerator_ends_with_the_run_and_without_a_limit_there_is_none():
    reports: list[int] = []

    def report_and_interrupt() -> None:
        reports.append(1)
        Timer(0.2, signal.pthread_kill, (get_ident(), signal.SIGINT)).start()  # most likely while it sleeps

    interrupts = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with (
            server(423, "{}") as url,
            temporary_settings({PREFECT_API_URL: url}),
            pytest.raises(KeyboardInterrupt),
        ):
            _acquire("limit", str(uuid4()), report_and_interrupt)
    finally:
        signal.signal(signal.SIGINT, interrupts)
    assert reports == [1]
    with server(200, json.dumps({"lease_id": str(uuid4()), "limits": []})) as url, temporary_settings(
        {PREFECT_API_URL: url}
    ):  # fmt: skip
        assert _acquire("limit", str(uuid4()), pytest.fail) is None


def test_a_run_of_one_job_holds_a_slot_if_it_computes_and_one_in_progress_is_not_kept_waiting(monkeypatch):
    monkeypatch.setattr(accelerator_slots, "flow_run_id", lambda: str(uuid4()))
    asked: list[bool] = []
    monkeypatch.setattr(accelerator_slots, "_acquire", lambda *arguments: asked.append(arguments[3]))

    def hold(last: str, action: str, **more: Any) -> None:
        stages = stages_until(stages_of({}), last)
        session: Any = SimpleNamespace(
            stages=stages,
            request=SimpleNamespace(planned=stages),
            decide=lambda _: SimpleNamespace(action=action),
            **more,
        )  # fmt: skip
        with accelerator_slot_of_job(session):
            pass

    hold("tokenize", "run")
    hold("benchmark", "reuse")
    assert not asked
    hold("pretrain", "run")
    hold("benchmark", "run", following="a job of a submitter that was killed")
    assert asked == [True, False]
    with server(423, "{}") as url, temporary_settings({PREFECT_API_URL: url}):
        assert _acquire("limit", str(uuid4()), pytest.fail, False) is None


def test_credentials_become_no_parameters(tmp_path):
    (tmp_path / "mini.yaml").write_text("ingest: {path: 'https://me:s3cret@host/texts.jsonl'}")
    done = CliRunner().invoke(app, ["params", str(tmp_path / "mini.yaml")])
    assert done.exit_code == 2 and "s3cret" not in done.output and "which Prefect would store" in done.output


def test_the_files_of_a_server_are_valid_and_what_acts_by_itself_is_off():
    automations = yaml.safe_load((CHECKOUT / "infra/deployment/prefect-automations.yaml").read_text())["automations"]
    assert [AutomationCore.model_validate(automation).enabled for automation in automations] == [True, False]
    crashed = automations[0]
    deployed = yaml.safe_load((CHECKOUT / "prefect.yaml").read_text())
    seconds = int(deployed["definitions"]["work_pool"]["job_variables"]["env"]["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"])
    assert 3 * seconds < crashed["trigger"]["within"] < 4 * seconds, "three missing heartbeats"
    schedules = [schedule for deployment in deployed["deployments"] for schedule in deployment.get("schedules", [])]
    assert schedules and not any(schedule["active"] for schedule in schedules)
    assert {deployment["name"] for deployment in deployed["deployments"]} == {"pipeline", "rerun", *NAMES}
