"""Whole training runs in this process, on a corpus that counts up."""

import math
import os
import signal

import numpy as np
import pytest
import torch

from data_schemas.errors import ConfigError, TrainingDivergedError
from infra.progress import SilentListener
from infra.store.filesystem import Folder
from modeling.training.gradients import LocalGradients
from modeling.transformer_config import TransformerConfig, TransformerShape
from stages.common.token_stream import WindowSampler
from stages.pretrain import checkpoint_files, trainer, training_loop
from stages.pretrain.config import EnsembleConfig, PretrainConfig
from stages.pretrain.progress.training_log import TrainingOutcome
from stages.pretrain.training_job import TrainingJob
from stages.stage import StageContext
from tests.stages.common.test_token_stream import tokens_artifact

SHAPE = TransformerShape(layers=1, width=16, heads=2, context_length=8)
STEPS = 120


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    counting = (np.arange(4_000) % 13 + 1).tolist()
    return tokens_artifact(str(tmp_path_factory.mktemp("tokens")), [counting])


def job_for(artifact, work, **fields) -> TrainingJob:
    settings = {
        "model": SHAPE, "workers": 0, "tokens": STEPS * 64, "batch_tokens": 64, "micro_batch": 4, "warmup_share": 0.05,
        "peak_learning_rate": 1e-2, "log_every_steps": 10, "checkpoint_every_steps": 20, "precision": "fp32",
    }  # fmt: skip
    config = PretrainConfig(**settings | fields)
    model_config = TransformerConfig(**config.model.model_dump(), vocabulary_size=32)
    return TrainingJob.from_config(config, model_config, artifact, Folder(str(work)))


def run(job: TrainingJob, records=None) -> TrainingOutcome:
    context = StageContext("test", None, job.work, SilentListener(), records)
    return trainer.train_in_process(job, context)


def weights_of(job: TrainingJob) -> dict[str, torch.Tensor]:
    network = trainer.WorkerNetwork.alone(job.model_config, torch.device("cpu"))
    names = dict(network.module.named_parameters())
    weights = {name: torch.empty(parameter.shape) for name, parameter in names.items()}
    average = {name: torch.empty(parameter.shape) for name, parameter in names.items()}
    checkpoint_files.read_weights(job.checkpoints, job.plan.steps, weights)
    if job.config.ensemble.half_life_share:
        checkpoint_files.read_weights(job.checkpoints, job.plan.steps, average, "average")
        weights |= {f"average.{name}": tensor for name, tensor in average.items()}
    return weights


MANY_THINGS = {
    "first_batch_tokens": 32,
    "ramp_share": 0.3,
    "optimizer": "muon",
    "schedule": "linear",
    "deterministic": True,
    "recompute_activations": True,
    "ensemble": EnsembleConfig(checkpoints=2, half_life_share=0.1),
}


@pytest.mark.parametrize("fields", [{}, MANY_THINGS, {"precision": "fp16", "optimizer": "sgd"}])
def test_a_stopped_run_resumes_bit_for_bit(tokens, tmp_path, monkeypatch, fields):
    whole = job_for(tokens, tmp_path / "whole", **fields)
    expected = run(whole)
    assert expected.log[-1]["loss"] < expected.log[0]["loss"]

    stopped = job_for(tokens, tmp_path / "stopped", **fields)
    read = training_loop._Batches.read

    def stop_at_step_33(batches, rows, step):
        if step == 33:
            os.kill(os.getpid(), signal.SIGTERM)
        return read(batches, rows, step)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt, match=r"checkpoint at step 33 of"):
        patch.setattr(training_loop._Batches, "read", stop_at_step_33)
        patch.setattr("stages.pretrain.stop_request.POLL_SECONDS", 0.0)
        run(stopped)
    outcome = run(stopped)
    assert outcome.starts == [0, 33]
    assert [row["loss"] for row in outcome.log] == [row["loss"] for row in expected.log]
    resumed = weights_of(stopped)
    assert all(torch.equal(resumed[name], tensor) for name, tensor in weights_of(whole).items())


def test_all_data_are_read_once_and_in_order(tokens, tmp_path, monkeypatch):
    read = []
    rows = WindowSampler.rows

    def note(sampler, first, count):
        read.append((first, count))
        return rows(sampler, first, count)

    monkeypatch.setattr(WindowSampler, "rows", note)
    job = job_for(tokens, tmp_path, first_batch_tokens=32, ramp_share=0.3)
    run(job)
    position = 0
    for first, count in read:
        assert first == position
        position += count
    assert position * SHAPE.context_length == job.plan.tokens


def garbage_from(first: int, last: int, monkeypatch) -> None:
    """Rows of these positions hold noise."""
    rows = WindowSampler.rows

    def spoilt(sampler, start, count):
        clean = rows(sampler, start, count)
        if first <= start < last:
            return np.random.default_rng(start).integers(14, 32, clean.shape)
        return clean

    monkeypatch.setattr(WindowSampler, "rows", spoilt)


def test_data_that_spoil_the_loss_are_skipped(tokens, tmp_path, monkeypatch):
    """From step 71 on the data are noise; the loss stays high, training rewinds and continues after the noise."""
    garbage_from(70 * 8, 86 * 8, monkeypatch)
    job = job_for(tokens, tmp_path)
    outcome = run(job)
    [event] = [event for event in outcome.events if event["kind"] == "rewound"]
    assert event["step"] == 86
    assert "to step 60" in event["detail"], "step 80 had learned from the noise"
    assert [row["step"] for row in outcome.log] == list(range(10, STEPS + 1, 10))
    clean = run(job_for(tokens, tmp_path / "clean", seed=0))
    assert outcome.log[-1]["loss"] < 2 * clean.log[-1]["loss"] + 0.1


class Killed(Exception):
    pass


@pytest.mark.parametrize("on_spike", ["rewind", "skip"])
def test_a_run_killed_around_a_spike_resumes_bit_for_bit(tokens, tmp_path, monkeypatch, on_spike):
    """Within the noise, just before the rewind, and after it: same steps skipped, same rewind, same weights."""
    garbage_from(70 * 8, 86 * 8, monkeypatch)
    fields = {"on_spike": on_spike, "spike_factor": 3.0, "log_every_steps": 5, "checkpoint_every_steps": 5}
    expected_job = job_for(tokens, tmp_path / "whole", **fields)
    expected = run(expected_job)
    assert expected.events, "the noise is noticed"
    step_once = training_loop.PretrainingLoop._step
    for kill_at in (72, 84, 93):
        job, calls = job_for(tokens, tmp_path / f"{kill_at}", **fields), iter(range(1, 10_000))

        def step_or_die(loop, kill_at=kill_at, calls=calls):
            if next(calls) == kill_at:
                raise Killed
            return step_once(loop)

        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(training_loop.PretrainingLoop, "_step", step_or_die)
            run(job)
        outcome = run(job)
        marker = checkpoint_files.verified_marker(job.checkpoints, checkpoint_files.checkpoint_name(STEPS))
        expected_marker = checkpoint_files.verified_marker(
            expected_job.checkpoints, checkpoint_files.checkpoint_name(STEPS)
        )
        assert (marker.rows, marker.rewinds) == (expected_marker.rows, expected_marker.rewinds)
        assert marker.spikes == expected_marker.spikes
        assert [row["loss"] for row in outcome.log] == [row["loss"] for row in expected.log]
        resumed = weights_of(job)
        assert all(torch.equal(resumed[name], tensor) for name, tensor in weights_of(expected_job).items())


def test_a_run_stopped_around_a_spike_rewinds_to_where_it_would_have(tokens, tmp_path, monkeypatch):
    """A stop saves a checkpoint that the undisturbed run has not; it is no target of a rewind and displaces none."""
    garbage_from(70 * 8, 86 * 8, monkeypatch)
    monkeypatch.setattr("stages.pretrain.stop_request.POLL_SECONDS", 0.0)
    fields = {"spike_factor": 3.0, "log_every_steps": 5, "checkpoint_every_steps": 5}
    expected_job, job = (job_for(tokens, tmp_path / name, **fields) for name in ("whole", "stopped"))
    expected, read = run(expected_job), training_loop._Batches.read

    def stop(batches, rows, step):
        if step == 83:
            os.kill(os.getpid(), signal.SIGTERM)
        return read(batches, rows, step)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(training_loop._Batches, "read", stop)
        run(job)
    assert run(job).events == expected.events
    assert checkpoint_files.complete_steps(job.checkpoints) == checkpoint_files.complete_steps(expected_job.checkpoints)
    resumed = weights_of(job)
    assert all(torch.equal(resumed[name], tensor) for name, tensor in weights_of(expected_job).items())


def poisoned(step_to_poison: int, monkeypatch, steps: int = 1) -> None:
    accumulate = LocalGradients.accumulate
    calls = iter(range(1, 10_000))

    def spoilt(gradients, model, *arguments):
        loss = accumulate(gradients, model, *arguments)
        if step_to_poison <= next(calls) < step_to_poison + steps:
            next(model.parameters()).grad.fill_(math.nan)
        return loss

    monkeypatch.setattr(LocalGradients, "accumulate", spoilt)


def test_a_gradient_that_is_not_finite_changes_nothing(tokens, tmp_path, monkeypatch):
    poisoned(50, monkeypatch)
    outcome = run(job_for(tokens, tmp_path))
    assert [(event["step"], event["kind"]) for event in outcome.events] == [(50, "skipped")]
    assert math.isfinite(outcome.log[-1]["loss"])


@pytest.mark.parametrize(("on_spike", "step"), [("stop", 50), ("skip", 65)])
def test_a_run_that_cannot_continue_reports_why(tokens, tmp_path, monkeypatch, on_spike, step):
    poisoned(50, monkeypatch, steps=1_000)
    with pytest.raises(TrainingDivergedError, match=rf"diverged at step {step}: .* lower the peak learning rate"):
        run(job_for(tokens, tmp_path, on_spike=on_spike))


def test_the_number_of_rewinds_is_limited(tokens, tmp_path, monkeypatch):
    poisoned(50, monkeypatch, steps=1_000)
    with pytest.raises(TrainingDivergedError):
        run(job_for(tokens, tmp_path))
    events = TrainingOutcome.read(Folder(str(tmp_path))).events
    assert sum(event["kind"] == "rewound" for event in events) == training_loop.MAX_REWINDS


def test_a_changed_network_is_refused_before_it_trains(tokens, tmp_path):
    run(job_for(tokens, tmp_path, tokens=20 * 64))
    with pytest.raises(ConfigError, match=r"of a run with pretrain.model.layers 1, but this run has 2"):
        run(job_for(tokens, tmp_path, model=SHAPE.model_copy(update={"layers": 2})))


@pytest.mark.parametrize(("precision", "products"), [("fp32", "highest"), ("bf16", "highest"), ("tf32", "high")])
def test_float32_products_are_in_tf32_only_on_request(tokens, tmp_path, monkeypatch, precision, products):
    """The setting while it trains, whatever it was before; torch ignores it on this processor."""
    seen = []
    take_step = training_loop.PretrainingLoop._step

    def noted(loop):
        seen.append(torch.get_float32_matmul_precision())
        return take_step(loop)

    monkeypatch.setattr(training_loop.PretrainingLoop, "_step", noted)
    monkeypatch.setattr(trainer, "_refuse_missing_tf32", lambda plan, device: None)
    torch.set_float32_matmul_precision("medium")
    try:
        run(job_for(tokens, tmp_path, precision=precision, tokens=20 * 64))
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")
    assert set(seen) == {products}


@pytest.mark.parametrize(("major", "refused"), [(None, "the processor that trains"), (7, "Tesla V100"), (8, None)])
def test_tf32_is_refused_on_devices_without_it(tokens, tmp_path, monkeypatch, major, refused):
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda device: (major, 0))
    monkeypatch.setattr("torch.cuda.get_device_name", lambda device: "Tesla V100")
    plan, device = job_for(tokens, tmp_path, precision="tf32").plan, torch.device("cuda" if major else "cpu")
    if refused is None:
        trainer._refuse_missing_tf32(plan, device)
    else:
        with pytest.raises(ConfigError, match=rf"^pretrain.precision is tf32, which {refused} does not have; use auto"):
            trainer._refuse_missing_tf32(plan, device)


def test_curves_and_events_are_kept_for_tensorboard(tokens, tmp_path):
    run(job_for(tokens, tmp_path / "work"), Folder(str(tmp_path / "records")))
    assert len(list((tmp_path / "records" / "tensorboard").iterdir())) == 1
