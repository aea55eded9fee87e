"""Monitor a training run from the driver by polling the log that rank 0 writes.

Rows go to the progress bar and to TensorBoard, events to the log of the run.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from infra.progress import ProgressListener, repeated
from infra.store.filesystem import Folder
from modeling.evaluation.config_counts import flops_per_token
from stages.pretrain.progress.loss_forecast import forecast_final_loss
from stages.pretrain.progress.progress_text import progress_text, recent_tokens_per_second
from stages.pretrain.progress.tensorboard import TensorBoardLog, row_scalars
from stages.pretrain.progress.training_log import read_log
from stages.pretrain.training_job import TrainingJob


@contextmanager
def monitored(job: TrainingJob, listener: ProgressListener, records: Folder | None) -> Iterator[None]:
    """Poll the log while the block runs.

    Args:
        job: job that is trained.
        listener: receives progress and events.
        records: folder whose `tensorboard` receives event files; None: none are written.
    """
    monitor = _Monitor(job, listener, records.child("tensorboard") if records and records.is_local else None)
    listener.advanced("train", 0, job.plan.steps, f"0 of {job.plan.steps} steps")
    try:
        with repeated(monitor.poll):
            yield
    finally:
        monitor.close()


class _Monitor:
    def __init__(self, job: TrainingJob, listener: ProgressListener, curves: Folder | None) -> None:
        self._job, self._listener, self._curves = job, listener, curves
        self._log = read_log(job.work)
        self._starts, self._events = len(self._log.starts), len(self._log.events)
        self._last_step = 0
        """Step of the last row that was reported."""
        self._tensorboard: TensorBoardLog | None = None
        self._checkpoint_seconds = 0.0

    def poll(self) -> None:
        """Report new rows and events of the log."""
        log = self._log
        log.update()
        if len(log.starts) <= self._starts:
            return  # no worker has started since this monitor
        for event in log.events[self._events :]:
            self._listener.logged(f"training, step {event['step']}: {event['kind']}, {event['detail']}")
        self._events = len(log.events)
        newest = log.rows[-1]["step"] if log.rows else 0
        if self._curves and self._tensorboard is None:
            self._open(log.starts[-1])
        elif newest < self._last_step:
            self._open(newest)
        rows = log.rows_after(self._last_step)
        if rows:
            self._report(rows)

    def close(self) -> None:
        """Close the event file."""
        if self._tensorboard:
            self._tensorboard.close()

    def _open(self, step: int) -> None:
        """Open an event file for the rows after `step`: at the first poll, and after a rewind to `step`."""
        self.close()
        self._last_step = step
        if self._curves:
            self._tensorboard = TensorBoardLog(self._curves, step + 1)
            if step == 0:
                config = self._job.config.model_dump(mode="json")
                self._tensorboard.text(0, "config", json.dumps(config, indent=2))

    def _report(self, rows: list[dict[str, Any]]) -> None:
        speed = recent_tokens_per_second(self._log.rows)
        if self._tensorboard:
            for row in rows:
                self._tensorboard.scalars(row["step"], row_scalars(row, speed, self._flops_share(speed)))
            for sample in self._log.samples:
                if sample["step"] > self._last_step:
                    self._tensorboard.text(sample["step"], "samples", "\n---\n".join(sample["texts"]))
            self._tensorboard.flush()
        self._last_step = rows[-1]["step"]
        steps = self._job.plan.steps
        self._listener.measured("train", self._figures(rows, speed))
        forecast = (
            forecast_final_loss(self._log.rows, steps, self._job.learning_rate) if self._last_step < steps else None
        )
        self._listener.advanced("train", self._last_step, steps, progress_text(rows[-1], steps, speed, forecast))

    def _figures(self, rows: list[dict[str, Any]], speed: float | None) -> dict[str, float]:
        """Newest loss and throughput; seconds that rank 0 waited for checkpoints since training began."""
        self._checkpoint_seconds += sum(row.get("seconds_by_section", {}).get("checkpoint", 0.0) for row in rows)
        figures = {name: float(rows[-1][name]) for name in ("step", "tokens", "loss", "gradient_norm", "learning_rate")}
        figures["checkpoint_seconds"] = self._checkpoint_seconds
        return figures | ({} if speed is None else {"tokens_per_second": speed})

    def _flops_share(self, tokens_per_second: float | None) -> float | None:
        """Model FLOPs utilization (PaLM, 2204.02311, appendix B)."""
        if tokens_per_second is None or not self._log.device_flops:
            return None
        config = self._job.model_config
        return float(3.0 * flops_per_token(config, config.context_length) * tokens_per_second / self._log.device_flops)
