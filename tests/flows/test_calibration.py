import os
from datetime import UTC, datetime

import pytest

from flows import calibration
from flows.calibration import DEMO, MAX_STEPS, MIN_STEPS, calibrate, calibration_config
from infra.rates.machine import machine, machine_key
from infra.rates.machine_rates import MachineRates, keep, machine_rates
from infra.rates.rates import Rate
from tests.flows.mini import mini_config


def rates(products: float = 3e11, **changes) -> MachineRates:
    return MachineRates(
        key=machine_key(), machine=machine(), measured=datetime(2026, 11, 30, tzinfo=UTC),
        products={"fp32": products, "bf16": products / 2}, memory=1e10, **changes,
    )  # fmt: skip


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.parametrize(("products", "steps"), [(1e6, MIN_STEPS), (1e18, MAX_STEPS)])
def test_the_steps_fit_into_seconds_on_slow_and_fast_machines(products, steps):
    config = calibration_config(None, rates(products)).stage_config("pretrain")
    assert config.tokens == steps * config.batch_tokens
    assert (config.workers, config.optimizer, config.model.width) == (2, "muon", 128), "the demo's"


def test_the_demo_is_measured_as_it_is_configured():
    from flows.config.run_config import load_run_config

    demo = load_run_config("configs/demo.yaml")
    theirs = calibration._trainable(demo, rates(), pytest.fail)
    assert theirs.vocabulary == DEMO.vocabulary
    assert {name: getattr(theirs.config, name) for name in ("model", "workers", "optimizer", "batch_tokens")} == {
        name: getattr(DEMO.config, name) for name in ("model", "workers", "optimizer", "batch_tokens")
    }


def test_a_network_that_this_machine_cannot_train_is_replaced_with_a_line():
    lines = []
    huge = mini_config("x", "pretrain.model.width=8192", "pretrain.model.layers=96", "pretrain.model.heads=64")
    assert calibration._trainable(huge, rates(), lines.append) == DEMO
    assert len(lines) == 1
    slow = mini_config("x", "pretrain.batch_tokens=524288", "pretrain.micro_batch=64")
    assert calibration._trainable(slow, rates(1e6), lines.append) == DEMO
    assert calibration._trainable(mini_config("x"), rates(), pytest.fail).config.model.width == 16
    many = mini_config("x", "pretrain.workers=64", "pretrain.batch_tokens=16384")
    assert calibration._trainable(many, rates(), lines.append) == DEMO
    assert "needs 64 processors" in lines[-1]


def test_a_cluster_is_not_measured_as_this_machine(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    seen = []
    monkeypatch.setattr(calibration, "measured_now", rates)
    monkeypatch.setattr(calibration, "_stage_rates", lambda *_: seen.append(os.environ.get("RAY_ADDRESS")) or [])
    calibrate(None, lambda line: None)
    assert seen == [None] and os.environ["RAY_ADDRESS"] == "head:6379"


def test_rates_of_other_work_are_kept():
    keep(rates(rates=(Rate(kind="a", amount=1, per_second=1), Rate(kind="train", variant="x", amount=1, per_second=2))))
    merged = calibration._with_earlier([Rate(kind="train", variant="x", amount=1, per_second=3)])
    assert [(rate.kind, rate.per_second) for rate in merged] == [("train", 3.0), ("a", 1.0)]


def test_without_ray_the_data_stages_are_measured_in_this_process(monkeypatch):
    def data_rates(store, base, engine):
        if engine == "ray":
            raise OSError("no room")
        return [Rate(kind="clean", amount=1, per_second=2)]

    monkeypatch.setattr(calibration, "_run", lambda *_: None)
    monkeypatch.setattr(calibration, "_data_rates", data_rates)
    monkeypatch.setattr(calibration, "_training_rates", lambda *_: 1 / 0)
    lines: list[str] = []
    assert [rate.kind for rate in calibration._stage_rates(None, rates(), lines.append)] == ["clean"]
    assert "the data stages in engine ray could not be measured: no room" in lines
    assert "training could not be measured: division by zero" in lines


@pytest.mark.slow
def test_a_machine_is_calibrated_and_a_failure_to_train_costs_only_that(monkeypatch):
    lines: list[str] = []
    config = mini_config("x", "tokenize.vocabulary_size=512")  # in this process
    measured = calibrate(config, lines.append)
    assert measured == machine_rates()
    kinds = {rate.kind for rate in measured.rates}
    assert {"ingest", "clean", "dedup", "tokenize train", "tokenize encode", "train fp32"} <= kinds
    assert {"profile processes", "profile coverage", "profile sample"} <= kinds
    assert {"ingest start", "clean start", "dedup start", "tokenize start"} <= kinds
    [train] = [rate for rate in measured.rates if rate.kind == "train fp32"]
    assert train.variant.startswith("adamw, 0 workers")
    monkeypatch.setattr(calibration, "measured_now", lambda: rates())
    monkeypatch.setattr(calibration, "_training_rates", lambda *_: 1 / 0)
    monkeypatch.setattr(calibration, "_run", lambda *_: None)
    monkeypatch.setattr(calibration, "_data_rates", lambda *_: [])
    assert {rate.kind for rate in calibrate(config, lines.append).rates} == kinds, "those of before"
    assert lines[-1].startswith("training could not be measured: ")
