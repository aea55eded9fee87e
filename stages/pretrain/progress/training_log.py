"""The log of a training run: what rank 0 writes as it goes, and what it says afterwards.

- `LogRow`: one interval of steps; `Event`: a step skipped, a rewind
- `TrainingLog`: as rank 0 keeps it
- `TrainingOutcome`: as the stage reads it
"""

import json
import statistics
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from infra.store.filesystem import Folder

LOG = "log.json"
TIMINGS = ("seconds", "seconds_by_section")
"""Fields of a row that differ from run to run; they stay out of the artifact's files."""


@dataclass(frozen=True)
class LogRow:
    """One row of the training log."""

    step: int
    tokens: int
    loss: float
    """Mean over the global batch and the steps since the last row, nats per token."""
    learning_rate: float
    gradient_norm: float
    seconds: float
    """Since this process began to train."""
    seconds_by_section: dict[str, float] | None = None
    """Of rank 0 since the last row, by section of `StepClock`."""
    experts: dict[str, Any] | None = None
    """How evenly rank 0 used its experts in the last micro-batch, by layer; None for networks without."""

    def as_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class Event:
    """Something that a run should not have to do."""

    step: int
    kind: str
    """overflow, skipped, rewound, or damaged checkpoint."""
    detail: str


@dataclass(frozen=True)
class TrainingOutcome:
    """What training left besides its last checkpoint."""

    log: list[dict[str, Any]]
    starts: list[int]
    """First step of each process group that trained: one entry more than there were interruptions."""
    events: list[dict[str, Any]]
    """Steps skipped, rewinds and the like, in the order in which they happened."""
    samples: list[dict[str, Any]]
    """{"step", "texts"}: what the network wrote on the way."""
    device_flops: float
    """That all workers' devices can do a second, at most."""

    @classmethod
    def read(cls, work: Folder) -> "TrainingOutcome":
        """From the log that rank 0 kept."""
        found = read_log(work)
        return cls(found["rows"], found["starts"], found["events"], found["samples"], found["device_flops"])

    @property
    def training_seconds(self) -> float:
        """Seconds of all logged intervals; what was trained twice because of an interruption counts once."""
        return sum(seconds for _, _, seconds in self._intervals())

    @property
    def tokens_per_second(self) -> float:
        """Median over the log's intervals."""
        return statistics.median(row["tokens_per_second"] for row in self.throughput())

    def throughput(self) -> list[dict[str, float]]:
        """Tokens per second over each interval of the log."""
        return [
            {"step": step, "tokens_per_second": tokens / max(seconds, 1e-9)}
            for step, tokens, seconds in self._intervals()
        ]

    def shares(self) -> dict[str, float]:
        """Share of the training time by section of `StepClock`; the rest is what no section covers."""
        sections: dict[str, float] = {}
        for row in self.log:
            for name, seconds in row.get("seconds_by_section", {}).items():
                sections[name] = sections.get(name, 0.0) + seconds
        total = max(self.training_seconds, sum(sections.values()), 1e-9)
        return {name: seconds / total for name, seconds in sections.items()}

    def _intervals(self) -> list[tuple[int, float, float]]:
        """(step, tokens, seconds) up to each row, from the row before it or from the start of its process group."""
        intervals = []
        last_step, last_tokens, last_seconds = 0, 0.0, 0.0
        for row in self.log:
            start = max(step for step in self.starts if step < row["step"])
            if last_step < start:  # its first rows of that group are lost: those steps at the row's own pace
                last_tokens += (row["tokens"] - last_tokens) * (start - last_step) / (row["step"] - last_step)
            if last_step <= start:
                last_step, last_seconds = start, 0.0
            intervals.append((row["step"], row["tokens"] - last_tokens, row["seconds"] - last_seconds))
            last_step, last_tokens, last_seconds = row["step"], row["tokens"], row["seconds"]
        return intervals


class TrainingLog:
    """Rows in one small file that is rewritten as a whole; a resumed run drops what came after its checkpoint."""

    def __init__(self, work: Folder, first_step: int, device_flops: float = 0.0) -> None:
        """Continue the log of the run at `first_step`.

        Args:
            work: the run's folder.
            first_step: of the checkpoint that it goes on from, or 0.
            device_flops: that all workers' devices can do a second, at most.
        """
        self._work, self._device_flops = work, device_flops
        before = read_log(work)
        self._rows, self._events, self._samples = before["rows"], before["events"], before["samples"]
        self._starts = [*before["starts"], first_step]
        self.forget_after(first_step)

    def append(self, row: LogRow) -> None:
        """Add a row."""
        self._rows.append(row.as_json())
        self._write()

    def record(self, event: Event) -> None:
        """Add an event; those of steps that are taken again stay."""
        self._events.append(asdict(event))
        self._write()

    def forget_after(self, step: int) -> None:
        """Drop the rows of later steps: they will be taken again."""
        self._rows = [row for row in self._rows if row["step"] <= step]
        self._samples = [sample for sample in self._samples if sample["step"] <= step]
        self._write()

    def sample(self, step: int, texts: list[str]) -> None:
        """Add texts that the network wrote after a step."""
        self._samples.append({"step": step, "texts": texts})
        self._write()

    def _write(self) -> None:
        log = {
            "rows": self._rows,
            "starts": self._starts,
            "events": self._events,
            "samples": self._samples,
            "device_flops": self._device_flops,
        }
        self._work.write(LOG, json.dumps(log).encode())


def read_log(work: Folder) -> dict[str, Any]:
    """The log so far: rows, starts, events, samples, device_flops."""
    found: dict[str, Any] = {}
    with suppress(FileNotFoundError):
        found = json.loads(work.read(LOG))
    return {"rows": [], "starts": [], "events": [], "samples": [], "device_flops": 0.0} | found
