import json
from pathlib import Path

import pytest

from data_schemas.stage_costs import StageCosts
from flows.planning import store_rates
from flows.planning.planner import Planner
from flows.planning.store_rates import StoreRates, sources_sentence
from flows.runs.request import RunRequest
from flows.runs.session import RunSession
from infra.rates.machine import machine_key
from infra.rates.machine_rates import keep
from infra.rates.rates import Rate
from infra.store.artifacts import ArtifactStore
from infra.store.cost_records import CostRecords
from infra.store.runs import RunStore
from stages.clean.stage import CleanStage
from tests.flows.mini import digests, mini_config, run_config, write_corpus
from tests.infra.rates.test_machine_rates import rates as machine_rates_with

LAST = "clean"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


@pytest.fixture
def store(tmp_path):
    return str(tmp_path / "store")


@pytest.fixture
def path(tmp_path):
    return write_corpus(tmp_path / "texts")


def records(store) -> dict[str, StageCosts]:
    """Records by stage, of the newest run first."""
    found: dict[str, StageCosts] = {}
    for costs in CostRecords(store).newest():
        found.setdefault(costs.stage, costs)
    return found


def plan(store, config, forced=(), last=LAST):
    planner = Planner(ArtifactStore(store), RunStore(store), config, None, None)
    return {row.stage.name: row for row in planner.plan(forced, last)}


def test_each_stage_that_runs_has_its_plan_and_its_measured_costs(store, path):
    session, _ = run_config(store, mini_config(path), last_stage=LAST)
    found = records(store)
    assert found.keys() == {"ingest", "clean"}
    for stage, costs in found.items():
        manifest = session.artifacts[stage].manifest
        assert (costs.run_id, costs.key, costs.machine) == (session.run_id, manifest.key, machine_key())
        assert costs.planned == manifest.estimate and costs.planned.work and manifest.incomplete == ()
        assert costs.measured is not None
        assert costs.measured.written_bytes == manifest.total_bytes
        assert costs.measured.seconds == pytest.approx(manifest.seconds, abs=1.0)
    planned = CostRecords(store).run_plan(session.run_id).planned
    assert planned.keys() == {"ingest", "clean"} and planned["ingest"] == found["ingest"].planned
    cached, _ = run_config(store, mini_config(path), last_stage=LAST)
    assert CostRecords(store).run_plan(cached.run_id) is None
    assert not Path(store, "runs", cached.run_id).exists(), "a run in which nothing runs writes no plan"
    assert len(list(CostRecords(store).newest())) == 2, "stages that are reused have no costs"


def test_what_was_measured_is_planned_from_then_on_and_changes_no_key(store, path):
    config = mini_config(path)
    before = plan(store, config)
    session, _ = run_config(store, config, last_stage=LAST)
    after = plan(store, config, forced=("ingest",))
    assert {work.source for work in before["ingest"].estimate.work} == {"table"}
    assert {work.source for work in after["ingest"].estimate.work} == {"learned"}
    measured = records(store)["ingest"].measured
    assert after["ingest"].estimate.seconds == pytest.approx(measured.seconds, rel=1e-6)
    assert after["ingest"].key == before["ingest"].key == session.artifacts["ingest"].ref.key
    forced, _ = run_config(store, config, last_stage=LAST)
    assert digests(store, forced.run_id) == digests(store, session.run_id)


def test_a_plan_is_registered_before_its_stage_and_survives_a_kill(store, path, monkeypatch):
    class Killed(BaseException):
        pass

    def killed(self, config, inputs, out, context):
        [registered] = [costs for costs in CostRecords(store).newest() if costs.stage == "clean"]
        assert registered.measured is None and registered.planned.seconds > 0
        raise Killed

    with monkeypatch.context() as dying:
        dying.setattr(CleanStage, "run", killed)
        session = RunSession.begin(RunRequest(mini_config(path), store, last_stage=LAST))
        with pytest.raises(Killed), session.closing():
            for stage in session.stages:
                session.execute(stage)
    registered = records(store)["clean"]
    assert registered.measured is None
    keep(machine_rates_with(rates=(Rate(kind="clean", amount=1.0, per_second=1.0),)))  # plans are others by now
    again, _ = run_config(store, mini_config(path), last_stage=LAST)
    assert again.run_id == session.run_id
    costs, manifest = records(store)["clean"], again.artifacts["clean"].manifest
    assert costs.planned == registered.planned == manifest.estimate, "the plan from before the kill"
    assert costs.measured.incomplete == manifest.incomplete == ("an earlier try had begun it",)
    learned = StoreRates(store).rates.learned
    assert {rate.kind.split()[0] for rate in learned} == {"ingest"}, "nothing of clean"


def test_partitions_of_an_earlier_run_make_a_stage_incomplete(store, path):
    session, _ = run_config(store, mini_config(path), last_stage="clean")
    manifest = session.artifacts["clean"]
    manifest.folder.remove_files([f"{session.run_id}/manifest.json"])
    run_config(store, mini_config(path), last_stage="clean")
    measured = records(store)["clean"].measured
    assert measured.incomplete == ("an earlier run had begun it", "partitions of clean were finished before")
    assert records(store)["ingest"].run_id == session.run_id


def test_what_a_cluster_computed_is_not_learned_as_this_machines(store, path, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    run_config(store, mini_config(path, "execution.engine=inline"), last_stage="ingest")
    assert records(store)["ingest"].machine == machine_key(), "inline, this process computes"
    from flows.runs import stage_costs

    [row] = plan(store, mini_config(path), forced=("ingest",), last="ingest").values()
    for engine, machine in (("ray", ""), ("processes", machine_key())):
        execution = mini_config(path, f"execution.engine={engine}").execution
        assert stage_costs._machine(row, execution) == machine
    execution = mini_config(path, "execution.engine=ray").execution
    for address in ("local", ""):
        monkeypatch.setenv("RAY_ADDRESS", address)
        assert stage_costs._machine(row, execution) == machine_key()


def test_costs_of_other_machines_and_damaged_records_are_left_out(store, path):
    run_config(store, mini_config(path), last_stage=LAST)
    folder = Path(store, "runs", "costs")
    for file in folder.glob("*-ingest-*"):
        file.write_text(json.dumps(json.loads(file.read_text()) | {"machine": "another"}))
    assert {rate.kind.split()[0] for rate in StoreRates(store).rates.learned} == {"clean"}
    for file in folder.glob("*-clean-*"):
        file.write_text(file.read_text()[:-9])
    (folder / "99999999-x.json").write_text("[]")
    (folder / ".temporary").write_text("")
    assert StoreRates(store).rates.learned == ()
    assert plan(store, mini_config(path), forced=("ingest",))["ingest"].estimate.seconds > 0


def test_rates_are_not_read_for_a_plan_in_which_everything_is_reused(store, path, monkeypatch):
    run_config(store, mini_config(path), last_stage=LAST)
    monkeypatch.setattr(store_rates, "CostRecords", None)
    monkeypatch.setattr(StoreRates, "__init__", lambda self, url: None)
    monkeypatch.setattr(StoreRates, "rates", property(lambda self: pytest.fail("rates were read")))
    assert {row.action for row in plan(store, mini_config(path)).values()} == {"reuse"}


def test_the_sources_of_a_plan_in_words(store, path):
    keep(machine_rates_with(rates=(Rate(kind="clean", amount=1.0, per_second=1.0),)))
    rows = plan(store, mini_config(path))
    estimates = [(name, row.estimate) for name, row in rows.items()]
    assert sources_sentence(estimates) == (
        "rates: measured by headrace calibrate (clean), of the code, for another machine (ingest); measure this "
        "machine: headrace calibrate"
    )
    assert sources_sentence(estimates[1:]) == "rates: measured by headrace calibrate"
    assert sources_sentence([]) == ""


def test_the_plan_of_the_benchmark_holds_what_a_scaling_law_predicts(store, path, monkeypatch):
    from flows.scaling import forecast
    from flows.scaling.fit import Forecast

    asked = []
    monkeypatch.setattr(
        forecast, "stored_forecast", lambda url, config: asked.append(config.name) or Forecast(1.5, 1.4, 1.6)
    )
    assert plan(store, mini_config(path), last=None)["benchmark"].estimate.bits_per_byte is None and not asked
    ArtifactStore(store).root.write("scaling/family/fit.json", b"{}")
    rows = plan(store, mini_config(path), last=None)
    assert {name: row.estimate.bits_per_byte for name, row in rows.items() if row.estimate.bits_per_byte} == {
        "benchmark": 1.5
    }
    assert asked == ["mini"]
