"""Event files for TensorBoard: curves and texts of a training run while it goes on.

- `TensorBoardLog`: writes them
- `row_scalars`: a row of the training log as curves

The files carry times of day, so they belong to the run's work folder and never to an artifact. To look at them:
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
    """Scalars and texts by step, in a local folder; a folder that cannot be written costs one warning and no more.

    Every start of a run has an event file of its own. TensorBoard reads them by name, which begins with the time, and
    drops what an earlier file says of steps that a later one begins again with.

    Writes directly: tensorboardX's own `SummaryWriter` hands events to a thread over a queue of ten, and when a full
    disk ends that thread, the next events wait for ever, and training with them.
    """

    def __init__(self, folder: Path | Folder, purge_step: int) -> None:
        """Begin an event file.

        Args:
            folder: made where it is missing; only local ones are written.
            purge_step: the first step that this process trains: what is there of it and of later ones no longer counts.
        """
        self._folder = folder
        self._writer: EventsWriter | None = None
        self._attempt(lambda: self._begin(purge_step))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Add a point to each named curve."""
        self._add(step, (build_summary.scalar(name, float(value)) for name, value in values.items()))

    def text(self, step: int, name: str, text: str) -> None:
        """Add a text, shown as it is, line by line; for sample texts and the config."""
        indented = "".join(f"    {line}\n" for line in text.splitlines())  # Markdown for: leave it as it is
        self._add(step, [build_summary.text(name, indented)])

    def flush(self) -> None:
        """Let readers see what was added."""
        self._attempt(lambda: self._writer and self._writer.flush())

    def close(self) -> None:
        """Flush and end the file; what is added later is ignored."""
        self._attempt(lambda: self._writer and self._writer.close())
        self._writer = None

    def _begin(self, purge_step: int) -> None:
        folder = _local(self._folder)
        folder.mkdir(parents=True, exist_ok=True)
        # The name's time is in seconds: of two files of one second, the second would overwrite the first.
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

    def _attempt(self, work: Callable[[], object]) -> None:
        """Do it; the first time that it cannot be done is the last."""
        try:
            work()
        except OSError as error:
            self._writer = None
            logger.warning("no TensorBoard log in %s from here on, training goes on: %s", _shown(self._folder), error)


def row_scalars(
    row: Mapping[str, Any], tokens_per_second: float | None = None, model_flops_share: float | None = None
) -> dict[str, float]:
    """A row of the training log as curves, grouped by TensorBoard at the first slash.

    Args:
        row: of the log, as JSON.
        tokens_per_second: left out where it is not known yet.
        model_flops_share: model FLOPs per second over what the devices can do (PaLM, 2204.02311, appendix B).

    Returns:
        `train/loss` and so on, `speed/...`, `seconds/SECTION` since the last row, `experts/NAME/layer_I` and, for the
        shares of each expert, `experts/expert_share/layer_I/expert_J`; layers count those with experts, from 0.
    """
    values = {f"train/{name}": row[name] for name in ("loss", "learning_rate", "gradient_norm")}
    speeds = {"tokens_per_second": tokens_per_second, "model_flops_share": model_flops_share}
    values |= {f"speed/{name}": value for name, value in speeds.items() if value is not None}
    values |= {f"seconds/{name}": value for name, value in row.get("seconds_by_section", {}).items()}
    for name, layers in row.get("experts", {}).items():
        for layer, value in enumerate(layers):
            if isinstance(value, list):
                values |= {f"experts/{name}/layer_{layer}/expert_{number}": one for number, one in enumerate(value)}
            else:
                values[f"experts/{name}/layer_{layer}"] = value
    return values


def _local(folder: Path | Folder) -> Path:
    if isinstance(folder, Path):
        return folder
    if not folder.is_local:
        raise OSError("event files are only written to a local folder")
    return folder.local_path()


def _shown(folder: Path | Folder) -> str:
    return str(folder) if isinstance(folder, Path) else folder.url
