"""Training log: written by rank 0 during training, read by the stage afterwards.

- `LogRow`: a row, for an interval of steps; `Event`: a skipped step, a rewind
- `TrainingLog`: the log of rank 0; `LogReader`: the log so far, also while it grows
- `TrainingOutcome`: the complete log, as the stage reads it
"""

import json
import statistics
import time
from bisect import bisect_right
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any

from infra.store.filesystem import Folder
from stages.pretrain.progress.log_files import Record, RecordReader, RecordWriter

LEGACY_LOG = "log.json"
"""The whole log of an unfinished run that an earlier version began."""
TIMINGS = ("seconds", "seconds_by_section")
"""Fields of a row that differ from run to run; excluded from the artifact's files."""


@dataclass(frozen=True)
class LogRow:
    """A row of the training log."""

    step: int
    tokens: int
    loss: float
    """Mean over the global batch and the steps since the last row, nats per token."""
    learning_rate: float
    gradient_norm: float
    seconds: float
    """Seconds since this process started training."""
    seconds_by_section: dict[str, float] | None = None
    """Seconds of rank 0 since the last row, by section of `StepClock`."""
    experts: dict[str, Any] | None = None
    """Load balance of rank 0's experts in the last micro-batch, by layer; None for networks without experts."""

    def as_json(self) -> dict[str, Any]:
        """The row as a JSON object, without None."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class Event:
    """An irregularity of a run."""

    step: int
    kind: str
    """overflow, skipped, rewound, damaged checkpoint, or damaged log."""
    detail: str


@dataclass(frozen=True)
class TrainingOutcome:
    """Log of a finished training run."""

    log: list[dict[str, Any]]
    starts: list[int]
    """First step of each process group that trained; one entry more than interruptions."""
    events: list[dict[str, Any]]
    """Events in chronological order."""
    samples: list[dict[str, Any]]
    """{"step", "texts"}: texts sampled during training."""
    device_flops: float
    """Peak FLOPs per second of all workers' devices."""
    began: list[float] = field(default_factory=list)
    """Unix time of each start's first step."""

    @classmethod
    def read(cls, work: Folder) -> "TrainingOutcome":
        """Read the log that rank 0 wrote."""
        log = read_log(work)
        return cls(log.rows, log.starts, log.events, log.samples, log.device_flops, log.began)

    def startup_seconds(self, started: float) -> float | None:
        """Seconds from `started`, a Unix time, to the first step after it; None if there was none."""
        return next((began - started for began in self.began if began >= started), None)

    @property
    def training_seconds(self) -> float:
        """Seconds of all logged intervals; steps repeated after an interruption count once."""
        return sum(seconds for _, _, seconds in self._intervals())

    @property
    def tokens_per_second(self) -> float:
        """Median tokens per second over the log's intervals."""
        return statistics.median(row["tokens_per_second"] for row in self.throughput())

    def throughput(self) -> list[dict[str, float]]:
        """Tokens per second in each interval of the log."""
        return [
            {"step": step, "tokens_per_second": tokens / max(seconds, 1e-9)}
            for step, tokens, seconds in self._intervals()
        ]

    def shares(self) -> dict[str, float]:
        """Share of the training time by section of `StepClock`; the remainder is outside all sections."""
        sections: dict[str, float] = {}
        for row in self.log:
            for name, seconds in row.get("seconds_by_section", {}).items():
                sections[name] = sections.get(name, 0.0) + seconds
        total = max(self.training_seconds, sum(sections.values()), 1e-9)
        return {name: seconds / total for name, seconds in sections.items()}

    def _intervals(self) -> list[tuple[int, float, float]]:
        """(step, tokens, seconds) of each row since the previous row or the start of its process group."""
        intervals = []
        last_step, last_tokens, last_seconds = 0, 0.0, 0.0
        for row in self.log:
            start = max(step for step in self.starts if step < row["step"])
            if last_step < start:  # rows of this group are missing: use the row's own rate
                last_tokens += (row["tokens"] - last_tokens) * (start - last_step) / (row["step"] - last_step)
            if last_step <= start:
                last_step, last_seconds = start, 0.0
            intervals.append((row["step"], row["tokens"] - last_tokens, row["seconds"] - last_seconds))
            last_step, last_tokens, last_seconds = row["step"], row["tokens"], row["seconds"]
        return intervals


class LogReader:
    """The log so far; `update` reads what was added since."""

    rows: list[dict[str, Any]]
    """`LogRow.as_json`, in the order of steps."""
    events: list[dict[str, Any]]
    samples: list[dict[str, Any]]
    starts: list[int]
    device_flops: float
    began: list[float]
    """As in `TrainingOutcome`."""

    def __init__(self, work: Folder) -> None:
        """Open the log of a run, which may not exist yet."""
        self._work, self._records = work, RecordReader(work)
        self._clear()
        self._read_legacy()

    def update(self) -> None:
        """Read new records; after another start of the workers, all."""
        is_new, records = self._records.read()
        if is_new:
            self._clear()
        for record in records:
            try:
                self._apply(record)
            except (KeyError, TypeError, ValueError):  # altered on the disk, or of a later version
                self._damaged += 1

    @property
    def damaged_lines(self) -> int:
        """Lines that could not be read and were left out."""
        return self._records.damaged + self._damaged

    def rows_after(self, step: int) -> list[dict[str, Any]]:
        """Rows of later steps."""
        return self.rows[bisect_right(self.rows, step, key=lambda row: row["step"]) :]

    def truncate(self, step: int) -> None:
        """Drop the rows and samples of later steps."""
        self.rows = [row for row in self.rows if row["step"] <= step]
        self.samples = [sample for sample in self.samples if sample["step"] <= step]

    def records(self) -> list[Record]:
        """The log as records."""
        start = {"starts": self.starts, "device_flops": self.device_flops, "began": self.began}
        kinds = {"event": self.events, "row": self.rows, "sample": self.samples}
        return [{"start": start}] + [{kind: item} for kind, items in kinds.items() for item in items]

    def _clear(self) -> None:
        self.rows, self.events, self.samples, self.starts, self.device_flops = [], [], [], [], 0.0
        self._damaged, self.began = 0, []

    def _apply(self, record: Record) -> None:
        """Apply a record.

        Raises:
            KeyError: or TypeError, ValueError: if it lacks what its kind has, or is of no known kind.
        """
        [(kind, content)] = record.items()
        if kind == "start":
            self.starts, self.device_flops = [int(step) for step in content["starts"]], float(content["device_flops"])
            self.began = [float(second) for second in content.get("began", ())]
        elif kind == "cut":
            self.truncate(int(content))
        else:
            items = {"row": self.rows, "event": self.events, "sample": self.samples}[kind]
            items.append({**content, "step": int(content["step"])})

    def _read_legacy(self) -> None:
        with suppress(FileNotFoundError):
            vars(self).update(json.loads(self._work.read(LEGACY_LOG)))


def read_log(work: Folder) -> LogReader:
    """The log so far: rows, starts, events, samples, device_flops."""
    log = LogReader(work)
    log.update()
    return log


class TrainingLog:
    """Log to which rank 0 adds; a resumed run drops the rows after its checkpoint."""

    def __init__(self, work: Folder, first_step: int, device_flops: float = 0.0) -> None:
        """Continue the log of the run at `first_step`.

        Args:
            work: the run's work folder.
            first_step: step of the checkpoint to resume from, or 0.
            device_flops: peak FLOPs per second of all workers' devices.
        """
        log = read_log(work)
        log.truncate(first_step)
        log.starts, log.device_flops = [*log.starts, first_step], device_flops
        log.began = [*log.began, time.time()]
        self._records = RecordWriter(work, log.records())
        if log.damaged_lines:
            detail = f"{log.damaged_lines} lines could not be read and are left out"
            self.record(Event(first_step, "damaged log", detail))

    def append(self, row: LogRow) -> None:
        """Add a row."""
        self._records.append({"row": row.as_json()})

    def record(self, event: Event) -> None:
        """Add an event; events of steps that are repeated stay."""
        self._records.append({"event": asdict(event)})

    def truncate(self, step: int) -> None:
        """Drop the rows and samples of later steps, which will be repeated."""
        self._records.append({"cut": step})

    def sample(self, step: int, texts: list[str]) -> None:
        """Add texts sampled after a step."""
        self._records.append({"sample": {"step": step, "texts": texts}})

    def sync(self) -> None:
        """Make sure that the rows so far survive a power failure; called before a checkpoint that counts on them."""
        self._records.sync()
