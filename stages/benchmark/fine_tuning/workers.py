"""Fine-tuning in this process or on Ray Train, with stored results.

- `results_by_seed`: results of the training of every seed, from the store if they exist
- `train_and_predict`: one training, on the number of workers of the settings

A training that was killed starts again; seeds that were finished are not repeated.
"""

import io
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from infra.progress import RelayedListener, SilentListener, relayed
from infra.store.filesystem import Folder
from infra.workers.payload import load_payload, load_tensors, save_payload
from infra.workers.ray_training import TrainingWorkers, Worker, fit, ray_trainer
from modeling.training.data_parallel import ALONE, WorkerRank, max_workers, rows_are_independent
from stages.benchmark.fine_tuning.training import FineTuningJob, Rows, fine_tune, predict, rows_digest
from stages.benchmark.harness.answer_store import AnswerStore, request_key
from stages.benchmark.task import EvaluatedModel, TaskContext

Outputs = list[npt.NDArray[np.float32]]
PROGRESS_UNITS = 1_000
"""Requests that a training counts as in the progress."""
REPORT_EVERY_STEPS = 20
OUTPUTS = "outputs.pt"


def results_by_seed(
    job: FineTuningJob, rows: Rows, decode: Callable[[Outputs], Any], model: EvaluatedModel, context: TaskContext
) -> list[Any]:
    """Predictions for `rows` by the training of each seed, as JSON values from `decode`.

    Args:
        job: job of the first seed; the other seeds count up from it.
        rows: rows of tokens to predict.
        decode: converts the outputs of all rows. Its result is stored, so it must depend on `rows` and outputs alone.
        model: the model to train; its digest names the store.
        context: folder for answers, and the progress callback.
    """
    settings = job.settings
    seeds = range(job.seed, job.seed + settings.seeds)
    names = set(type(settings).model_fields) - {"seeds", "cpus_per_worker"}
    inputs = [settings.model_dump(mode="json", include=names), job.examples.digest(), rows_digest(rows)]
    folder = context.work.child(f"fine_tuned/{model.digest[:16]}") if context.work else None
    with AnswerStore(folder, flush_seconds=0) as store:
        keys = {seed: request_key(inputs, seed) for seed in seeds}
        for index, (seed, key) in enumerate(keys.items()):
            if key not in store:
                advanced = _progress_of_training(context, index, len(seeds))
                store.add({key: decode(train_and_predict(replace(job, seed=seed), rows, context, advanced))})
        return [store[key] for key in keys.values()]


def _progress_of_training(context: TaskContext, index: int, seeds: int) -> Callable[[int, int], None]:
    """Progress callback of one training, reporting to that of all trainings."""

    def advanced(done: int, total: int) -> None:
        context.advanced(PROGRESS_UNITS * index + PROGRESS_UNITS * done // total, PROGRESS_UNITS * seeds)

    return advanced


def train_and_predict(
    job: FineTuningJob, rows: Rows, context: TaskContext, advanced: Callable[[int, int], None]
) -> Outputs:
    """Train, and predict other rows.

    Raises:
        TrainingDivergedError: if the gradient is not finite.
        EnvironmentProblem: if the cluster has no capacity for the workers.
    """
    smallest = min(map(len, job.epoch(0)))
    workers = min(job.settings.workers, max_workers(smallest, rows_are_independent(job.network)))
    if workers == 1:
        return predict(fine_tune(job, ALONE, job.network.final_norm.weight.device, advanced), rows)
    with tempfile.TemporaryDirectory() as temporary:
        shared = context.work is not None and not context.work.is_in_process
        work = context.work.child("fine_tuning_workers") if shared and context.work else Folder(temporary)
        return _on_workers(job, rows, workers, work, advanced)


def _on_workers(
    job: FineTuningJob, rows: Rows, count: int, work: Folder, advanced: Callable[[int, int], None]
) -> Outputs:
    sha256 = save_payload(work, (job, rows))
    kind: str = type(job.settings).model_fields["kind"].default
    resources = TrainingWorkers(f"benchmark.tasks.{kind}", count, count, job.settings.cpus_per_worker)
    trainer = ray_trainer(partial(_on_worker, work, sha256), resources, work)
    with relayed(work, _CallbackListener(advanced)):
        fit(trainer)
    outputs = load_tensors(work, OUTPUTS)
    work.remove()
    return [output.numpy() for output in outputs]


def _on_worker(work: Folder, sha256: str, worker: Worker) -> None:
    job, rows = load_payload(work, sha256, worker.device)
    listener = RelayedListener(work) if worker.rank == 0 else SilentListener()

    def advanced(done: int, total: int) -> None:
        if done % REPORT_EVERY_STEPS == 0:
            listener.advanced("fine-tuning", done, total, "")

    model = fine_tune(job, WorkerRank(worker.rank, worker.count), worker.device, advanced)
    if worker.rank == 0:
        buffer = io.BytesIO()
        torch.save([torch.from_numpy(output) for output in predict(model, rows)], buffer)
        work.write(OUTPUTS, buffer.getvalue())


class _CallbackListener(SilentListener):
    """Passes the progress of rank 0 on to the callback of the driver."""

    def __init__(self, advanced: Callable[[int, int], None]) -> None:
        self._advanced = advanced

    def advanced(self, phase: str, done: float, total: float, note: str) -> None:
        """As in `ProgressListener`."""
        self._advanced(int(done), int(total))


def median_index(values: Sequence[float]) -> int:
    """Index of the median; of an even number of values, of the lower middle one."""
    return sorted(range(len(values)), key=lambda index: values[index])[(len(values) - 1) // 2]


def seeds_note(values: Sequence[float], first_seed: int) -> str:
    """The value of each seed, for the note of a result."""
    return ", ".join(f"seed {seed}: {value:.4f}" for seed, value in enumerate(values, start=first_seed))
