"""Fine-tuning in this process or on Ray Train, by one code path; what is finished is kept.

- `results_by_seed`: of every seed's training, from the store where it is there
- `train_and_predict`: one training, on as many workers as the settings say

A training that was killed begins again; its seeds before it do not.
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
from infra.workers.payload import load_payload, save_payload
from infra.workers.ray_training import TrainingWorkers, Worker, fit, ray_trainer
from modeling.training.data_parallel import ALONE, WorkerRank, most_shares, rows_are_apart
from stages.benchmark.fine_tuning.training import FineTuningJob, Rows, fine_tune, predict, rows_digest
from stages.benchmark.harness.answer_store import AnswerStore, request_key
from stages.benchmark.task import EvaluatedModel, TaskContext

Outputs = list[npt.NDArray[np.float32]]
STEPS_SHOWN = 1_000
"""A training counts as so many requests in the progress."""
TOLD_EVERY_STEPS = 20
OUTPUTS = "outputs.pt"


def results_by_seed(
    job: FineTuningJob, asked: Rows, read: Callable[[Outputs], Any], model: EvaluatedModel, context: TaskContext
) -> list[Any]:
    """What each seed's training says of `asked`, as `read` makes JSON of it.

    Args:
        job: of the first seed; the others count up from it.
        asked: rows of tokens.
        read: given the outputs of each row. What it gives is kept, so it must follow from `asked` and the outputs.
        model: what is trained; its digest names the store.
        context: place for progress.
    """
    settings = job.settings
    seeds = range(job.seed, job.seed + settings.seeds)
    names = set(type(settings).model_fields) - {"seeds", "cpus_per_worker"}
    what = [settings.model_dump(mode="json", include=names), job.examples.digest(), rows_digest(asked)]
    folder = context.work.child(f"fine_tuned/{model.digest[:16]}") if context.work else None
    with AnswerStore(folder, flush_seconds=0) as store:
        keys = {seed: request_key(what, seed) for seed in seeds}
        for place, (seed, key) in enumerate(keys.items()):
            if key not in store:
                outputs = train_and_predict(replace(job, seed=seed), asked, context, _told(context, place, len(seeds)))
                store.add({key: read(outputs)})
        return [store[key] for key in keys.values()]


def _told(context: TaskContext, place: int, seeds: int) -> Callable[[int, int], None]:
    def advanced(done: int, total: int) -> None:
        context.advanced(STEPS_SHOWN * place + STEPS_SHOWN * done // total, STEPS_SHOWN * seeds)

    return advanced


def train_and_predict(
    job: FineTuningJob, asked: Rows, context: TaskContext, advanced: Callable[[int, int], None]
) -> Outputs:
    """Train, and ask about other rows.

    Raises:
        TrainingDivergedError: where the gradient is not finite.
        EnvironmentProblem: where the cluster has no room for the workers.
    """
    smallest = min(map(len, job.epoch(0)))
    workers = min(job.settings.workers, most_shares(smallest, rows_are_apart(job.network)))
    if workers == 1:
        return predict(fine_tune(job, ALONE, job.network.final_norm.weight.device, advanced), asked)
    with tempfile.TemporaryDirectory() as temporary:
        usable = context.work is not None and not context.work.is_in_process
        work = context.work.child("fine_tuning_workers") if usable and context.work else Folder(temporary)
        return _on_workers(job, asked, workers, work, advanced)


def _on_workers(
    job: FineTuningJob, asked: Rows, count: int, work: Folder, advanced: Callable[[int, int], None]
) -> Outputs:
    save_payload(work, (job, asked))
    kind: str = type(job.settings).model_fields["kind"].default
    needs = TrainingWorkers(f"benchmark.tasks.{kind}", count, count, job.settings.cpus_per_worker)
    trainer = ray_trainer(partial(_on_worker, work), needs, work)
    with relayed(work, _Heard(advanced)):
        fit(trainer)
    outputs = torch.load(io.BytesIO(work.read(OUTPUTS)), weights_only=True)
    work.remove()
    return [one.numpy() for one in outputs]


def _on_worker(work: Folder, worker: Worker) -> None:
    job, asked = load_payload(work, worker.device)
    listener = RelayedListener(work) if worker.rank == 0 else SilentListener()

    def advanced(done: int, total: int) -> None:
        if done % TOLD_EVERY_STEPS == 0:
            listener.advanced("fine-tuning", done, total, "")

    model = fine_tune(job, WorkerRank(worker.rank, worker.count), worker.device, advanced)
    if worker.rank == 0:
        buffer = io.BytesIO()
        torch.save([torch.from_numpy(one) for one in predict(model, asked)], buffer)
        work.write(OUTPUTS, buffer.getvalue())


class _Heard(SilentListener):
    """Tells the driver's function what rank 0 said."""

    def __init__(self, advanced: Callable[[int, int], None]) -> None:
        self._advanced = advanced

    def advanced(self, phase: str, done: float, total: float, note: str) -> None:
        """As in `ProgressListener`."""
        self._advanced(int(done), int(total))


def median_index(values: Sequence[float]) -> int:
    """Which value is the median; of an even number the lower one in the middle."""
    return sorted(range(len(values)), key=lambda place: values[place])[(len(values) - 1) // 2]


def seeds_note(values: Sequence[float], first_seed: int) -> str:
    """Each seed's value."""
    return ", ".join(f"seed {seed}: {value:.4f}" for seed, value in enumerate(values, start=first_seed))
