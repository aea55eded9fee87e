"""Pretraining loop in plain torch; uses this worker's part of the network and callbacks, and is independent of Ray."""

import math
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch

from data_schemas.errors import TrainingDivergedError
from modeling.experts.router import load_statistics
from modeling.training.step import StepResult, diverged, training_step
from stages.common.token_stream import WindowSampler
from stages.pretrain.batch_plan import BatchPlan
from stages.pretrain.loss_spikes import PATIENCE, SpikeDetector, Verdict
from stages.pretrain.progress.training_log import Event, LogRow
from stages.pretrain.training_job import TrainingJob
from stages.pretrain.training_state import TrainingState

MAX_REWINDS = 3


@dataclass(frozen=True)
class Callbacks:
    """Callbacks of the loop; called on every worker."""

    log: Callable[[LogRow], None]
    sample: Callable[[], None]
    event: Callable[[Event], None]
    checkpoint: Callable[[], None]
    """Save the state."""
    rewind: Callable[[int], bool]
    """Restore the newest checkpoint before a step and remove later ones; False if there is none."""
    stop_requested: Callable[[], bool] = lambda: False


class TrainingStopped(Exception):
    """Training stopped on request, with a checkpoint saved."""


class PretrainingLoop:
    """Trains from the state's step to the last step."""

    def __init__(
        self,
        state: TrainingState,
        sampler: WindowSampler,
        job: TrainingJob,
        plan: BatchPlan,
        callbacks: Callbacks,
    ) -> None:
        """Create the loop.

        Args:
            state: state to train, at its position in schedule and data.
            sampler: rows (context_length + 1) int64 by position.
            job: config and learning rate schedule.
            plan: batch plan for the current number of workers.
            callbacks: see `Callbacks`.
        """
        config = job.config
        self.state, self.job, self.config, self.plan, self.callbacks = state, job, config, plan, callbacks
        self.clock = state.network.gradients.clock
        self.spikes = SpikeDetector(config.on_spike, config.spike_factor, state.spikes)
        self.ensemble_steps = frozenset(config.ensemble.steps(plan.steps))
        self.batches = _Batches(sampler, plan, state.network.batch_rank)
        self._verdict, self._stopping = Verdict.TAKE, False

    def run(self) -> None:
        """Train.

        Raises:
            TrainingDivergedError: if gradients are non-finite or stay outliers beyond what `on_spike` allows.
            TrainingStopped: if a stop was requested.
        """
        config, self._started = self.config, time.perf_counter()
        while self.state.step < self.plan.steps:
            result = self._step()
            if self._verdict is Verdict.REWIND:
                self._rewind(result)
                continue
            if self._verdict is Verdict.DIVERGED:
                raise self._diverged(result)
            step = self.state.step
            if step % config.log_every_steps == 0 or step == self.plan.steps:
                self._log(result)
            if config.sample_every_steps and step % config.sample_every_steps == 0:
                self.callbacks.sample()
            due = step % self.plan.checkpoint_every_steps == 0 or step in self.ensemble_steps
            if due or step == self.plan.steps or self._stopping:
                with self.clock.section("checkpoint"):
                    self.callbacks.checkpoint()
            if self._stopping and step < self.plan.steps:
                raise TrainingStopped

    def _step(self) -> StepResult:
        state, config = self.state, self.config
        step = state.step + 1
        with self.clock.section("data"):
            micro_batches = self.batches.read(state.rows, step)
        self._verdict = Verdict.TAKE
        result = training_step(
            state.network.module,
            state.optimizer,
            micro_batches,
            self.job.learning_rate(step),
            config.clip_norm,
            self.plan.precision,
            config.z_loss,
            state.network.gradients,
            state.loss_scale,
            self._judge,
        )
        if self._verdict in (Verdict.REWIND, Verdict.DIVERGED):
            return result
        state.step, state.rows = step, state.rows + self.plan.rows_of(step)
        if result.skipped:
            kind = "overflow" if self._verdict is Verdict.TAKE else "skipped"
            detail = f"loss {result.loss:.4g}, gradient norm {result.gradient_norm:.4g}"
            self.callbacks.event(Event(step, kind, detail))
        elif state.average is not None:
            state.average.update(state.network.module)
        return result

    def _judge(self, loss: float, gradient_norm: float) -> bool:
        with self.clock.section("communication"):
            mean, stop = self.state.network.all_reduce(loss, self.callbacks.stop_requested())
        if math.isfinite(mean):
            self.state.losses.append(mean)
        self._stopping = stop
        self._verdict = self.spikes.judge(mean, gradient_norm)
        return self._verdict is Verdict.TAKE

    def _rewind(self, result: StepResult) -> None:
        """Restore the checkpoint before the loss was high and continue with the next data; skip the data in between."""
        step, rows = self.state.step, self.state.rows + self.plan.rows_of(self.state.step + 1)
        rewinds = self.state.rewinds + 1
        if rewinds > MAX_REWINDS or not self.callbacks.rewind(step + 2 - PATIENCE):
            raise self._diverged(result)
        skipped = rows - self.state.rows
        self.state.rows, self.state.rewinds = rows, rewinds
        self.state.spikes.clear()
        self.state.losses.clear()
        detail = f"to step {self.state.step}, loss {result.loss:.4g}; {skipped} rows of the data are skipped"
        self.callbacks.event(Event(step + 1, "rewound", detail))

    def _diverged(self, result: StepResult) -> TrainingDivergedError:
        step = self.state.step + 1
        return diverged(
            self.state.network.module,
            step,
            result.loss,
            result.gradient_norm,
            self.job.learning_rate(step),
            self.config.clip_norm,
        )

    def _log(self, result: StepResult) -> None:
        step = self.state.step
        reports = [report for network in self.state.network.networks for report in network.routing_reports]
        self.callbacks.log(
            LogRow(
                step=step,
                tokens=self.plan.rows_before(step + 1) * self.plan.context_length,
                loss=statistics.fmean(self.state.losses or [result.loss]),
                learning_rate=self.job.learning_rate(step),
                gradient_norm=result.gradient_norm,
                seconds=time.perf_counter() - self._started,
                seconds_by_section=self.clock.take(),
                experts=load_statistics(reports) if reports else None,
            )
        )
        self.state.losses.clear()


class _Batches:
    """Prefetches the rows of the next step during the current step."""

    def __init__(self, sampler: WindowSampler, plan: BatchPlan, batch_rank: int) -> None:
        self.sampler, self.plan, self.batch_rank = sampler, plan, batch_rank
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="batches")
        self._prefetched: tuple[tuple[int, int], Future[list[torch.Tensor]]] | None = None

    def read(self, rows: int, step: int) -> list[torch.Tensor]:
        """This worker's micro-batches of a step whose global batch begins at row `rows`."""
        prefetched, self._prefetched = self._prefetched, None
        if prefetched and prefetched[0] != (rows, step):  # after a rewind
            prefetched = None
        batches = prefetched[1].result() if prefetched else self._read(rows, step)
        if step < self.plan.steps:
            following = (rows + self.plan.rows_of(step), step + 1)
            self._prefetched = (following, self._reader.submit(self._read, *following))
        return batches

    def _read(self, rows: int, step: int) -> list[torch.Tensor]:
        return list(micro_batches(self.sampler, self.plan, self.batch_rank, rows, step))


def micro_batches(
    sampler: WindowSampler, plan: BatchPlan, batch_rank: int, rows: int, step: int
) -> Iterator[torch.Tensor]:
    """Micro-batches of a worker's share of a global batch, each (micro_batch, context_length + 1) int64.

    A global batch has the same rows for every number of workers.

    Args:
        sampler: rows by position.
        plan: batch plan.
        batch_rank: index of the worker's share.
        rows: position of the first row of the global batch.
        step: step of the global batch, which determines its size.
    """
    share = plan.rows_of(step) // plan.layout.batch_ranks
    first = rows + batch_rank * share
    for start in range(first, first + share, plan.micro_batch):
        yield torch.from_numpy(sampler.rows(start, plan.micro_batch))
