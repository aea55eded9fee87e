"""Figures of a run for Prometheus, from the process that drives it.

- `serve_metrics`: answers `GET /metrics` while a run lasts

| metric | labels beside run, config, attempt, stage |
|---|---|
| `headrace_stage_state` | state; 1 for the state that the stage is in |
| `headrace_stage_seconds` | wall time so far |
| `headrace_phase_done`, `headrace_phase_total` | phase; units of the phase: partitions, steps, passes |
| `headrace_phase_figure` | phase, figure: counts of partitions such as `documents_in` |
| `headrace_tokens_per_second`, `headrace_loss`, `headrace_checkpoint_seconds` | training, newest values |
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from data_schemas.errors import EnvironmentProblem
from flows.monitoring.run_status import RunStatus

STATES = ("waiting", "running", "reused", "done")
RUN_LABELS = ("run", "config", "attempt", "stage")
TRAINING = {
    "tokens_per_second": "Tokens that training takes per second, over the newest rows of its log.",
    "loss": "Training loss in nats per token, mean since the last row of the log.",
    "checkpoint_seconds": "Seconds that training waited for checkpoints since this attempt began.",
}


@contextmanager
def serve_metrics(status: Callable[[], RunStatus], config_name: str, address: str, port: int) -> Iterator[int]:
    """Answer scrapes on `address:port` while the block runs; yields the port, a free one for 0.

    Raises:
        EnvironmentProblem: if the port cannot be used.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_RunCollector(status, config_name))
    try:
        server, thread = start_http_server(port, address, registry)
    except OSError as error:
        raise EnvironmentProblem(
            f"execution.metrics_port={port} cannot be used on {address}: {error.strerror or error}; "
            "take another port, or 0 for a free one"
        ) from error
    try:
        yield int(server.server_port)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _RunCollector(Collector):
    """Reads the state of the run at each scrape."""

    def __init__(self, status: Callable[[], RunStatus], config_name: str) -> None:
        self._status, self._config_name = status, config_name

    def collect(self) -> Iterator[GaugeMetricFamily]:
        run = self._status()
        labels = {stage: (run.run_id, self._config_name, str(run.attempt), stage) for stage in run.stages}
        state = _family("stage_state", "1 for the state that the stage is in.", "state")
        seconds = _family("stage_seconds", "Wall time of the stage so far.")
        done = _family("phase_done", "Finished units of the current phase.", "phase")
        total = _family("phase_total", "Units of the current phase.", "phase")
        figures = _family("phase_figure", "Figures of a phase, by name.", "phase", "figure")
        training = {name: _family(name, text) for name, text in TRAINING.items()}
        for name, stage in run.stages.items():
            for other in STATES:
                state.add_metric((*labels[name], other), float(stage.state == other))
            seconds.add_metric(labels[name], stage.seconds)
            if stage.phase:
                done.add_metric((*labels[name], stage.phase), stage.done)
                total.add_metric((*labels[name], stage.phase), stage.total)
            for phase, values in stage.figures.items():
                for figure, value in values.items():
                    if figure in training:
                        training[figure].add_metric(labels[name], value)
                    else:
                        figures.add_metric((*labels[name], phase, figure), value)
        yield from (state, seconds, done, total, figures, *training.values())


def _family(name: str, documentation: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"headrace_{name}", documentation, labels=(*RUN_LABELS, *labels))
