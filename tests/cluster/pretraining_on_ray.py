"""Pretraining whose workers wait for the test at one step; called in the driver of a cluster."""

from functools import partial
from typing import Any
from unittest.mock import patch

from infra.progress import SilentListener
from infra.workers.ray_training import Worker
from stages.pretrain import trainer, training_loop
from stages.pretrain.progress.training_log import TrainingOutcome
from stages.pretrain.training_job import TrainingJob
from stages.stage import StageContext
from tests.cluster.stages_on_ray import Gate

STEP = 25
"""Step before which the workers wait."""


def train(job: TrainingJob, gate: Gate) -> TrainingOutcome:
    """Train on the cluster's workers."""
    context = StageContext("test", None, job.work, SilentListener(), None)  # type: ignore[arg-type]
    with patch.object(trainer, "_train_on_worker", partial(_waiting, gate)):
        return trainer.train_on_ray(job, context)


def _waiting(gate: Gate, job: TrainingJob, worker: Worker) -> None:
    gate.pass_through(f"start-of-{worker.count}", None)
    read = training_loop._Batches.read

    def wait_before_step(batches: Any, rows: Any, step: int) -> Any:
        if step == STEP:
            gate.pass_through(gate.phase, None)
        return read(batches, rows, step)

    with patch.object(training_loop._Batches, "read", wait_before_step):
        trainer._train_on_worker(job, worker)
