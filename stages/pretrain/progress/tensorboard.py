"""TensorBoard event files: curves and texts of a running training run.

- `TensorBoardLog`: writes event files
- `row_scalars`: scalars of a row of the training log

The files contain wall-clock times, so they are stored in the run's folders and never in an artifact. To view them:
`pip install tensorboard; tensorboard --logdir FOLDER`.
"""

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from tensorboardX import summary as build_summary  # type: ignore[import-untyped]
from tensorboardX.event_file_writer import EventsWriter  # type: ignore[import-untyped]
from tensorboardX.proto.event_pb2 import Event, SessionLog  # type: ignore[import-untyped]

from infra.store.filesystem import Folder

logger = logging.getLogger(__name__)

EVENTS = "events"


class TensorBoardLog:
    """Scalars and texts by step, in a local folder; if it cannot be written, a single warning is logged.

    Each start of a run has its own event file. TensorBoard reads them in the order of their names, which begin with the
    time, and drops the steps of earlier files that a later file repeats.

    Events are written directly: tensorboardX's `SummaryWriter` passes them to a thread through a queue of ten, and if a
    full disk ends that thread, the next events, and training with them, block forever.
    """

    def __init__(self, folder: Path | Folder, purge_step: int) -> None:
        """Open an event file.

        Args:
            folder: created if missing; must be local.
            purge_step: first step that this process trains; earlier events of this and later steps are dropped.
        """
        self._folder = folder
        self._writer: EventsWriter | None = None
        self._attempt(lambda: self._open(purge_step))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Add a point to each named curve."""
        self._add(step, (build_summary.scalar(name, float(value)) for name, value in values.items()))

    def text(self, step: int, name: str, text: str) -> None:
        """Add a text, displayed verbatim; for sampled texts and the config."""
        indented = "".join(f"    {line}\n" for line in text.splitlines())  # a Markdown code block
        self._add(step, [build_summary.text(name, indented)])

    def flush(self) -> None:
        """Make added events visible to readers."""
        self._attempt(lambda: self._writer and self._writer.flush())

    def close(self) -> None:
        """Flush and close the file; events added later are ignored."""
        self._attempt(lambda: self._writer and self._writer.close())
        self._writer = None

    def _open(self, purge_step: int) -> None:
        folder = _local(self._folder)
        folder.mkdir(parents=True, exist_ok=True)
        # File names have a resolution of one second; the number keeps files of the same second apart.
        number = len(list(folder.glob(f"{EVENTS}.out.tfevents.*")))
        self._writer = EventsWriter(str(folder / EVENTS), f".{number:06d}")
        start = SessionLog(status=SessionLog.START)
        self._writer.write_event(Event(wall_time=time.time(), step=purge_step, session_log=start))
        self._writer.flush()

    def _add(self, step: int, summaries: Iterable[Any]) -> None:
        def write() -> None:
            assert self._writer is not None
            for summary in summaries:
                self._writer.write_event(Event(wall_time=time.time(), step=step, summary=summary))

        if self._writer is not None:
            self._attempt(write)

    def _attempt(self, write: Callable[[], object]) -> None:
        """Call `write`; the first OSError ends the log."""
        try:
            write()
        except OSError as error:
            self._writer = None
            logger.warning("TensorBoard log in %s stopped, training continues: %s", _display_name(self._folder), error)


def row_scalars(
    row: Mapping[str, Any], tokens_per_second: float | None = None, model_flops_share: float | None = None
) -> dict[str, float]:
    """Scalars of a row of the training log by tag; TensorBoard groups tags by the part before the first slash.

    Args:
        row: row of the log, as JSON.
        tokens_per_second: throughput; None if unknown yet.
        model_flops_share: model FLOPs utilization (PaLM, 2204.02311, appendix B); None if unknown yet.

    Returns:
        `train/loss` etc., `speed/...`, `seconds/SECTION` since the last row, `experts/NAME/layer_I` and, for the share
        of each expert, `experts/expert_share/layer_I/expert_J`; layers with experts are numbered from 0.
    """
    values = {f"train/{name}": row[name] for name in ("loss", "learning_rate", "gradient_norm")}
    speeds = {"tokens_per_second": tokens_per_second, "model_flops_share": model_flops_share}
    values |= {f"speed/{name}": value for name, value in speeds.items() if value is not None}
    values |= {f"seconds/{name}": value for name, value in row.get("seconds_by_section", {}).items()}
    for name, layers in row.get("experts", {}).items():
        for layer, value in enumerate(layers):
            if isinstance(value, list):
                values |= {f"experts/{name}/layer_{layer}/expert_{expert}": share for expert, share in enumerate(value)}
            else:
                values[f"experts/{name}/layer_{layer}"] = value
    return values


def _local(folder: Path | Folder) -> Path:
    if isinstance(folder, Path):
        return folder
    if not folder.is_local:
        raise OSError("event files are only written to a local folder")
    return folder.local_path()


def _display_name(folder: Path | Folder) -> str:
    return str(folder) if isinstance(folder, Path) else folder.url
