"""The log of a run as JSON lines, for collectors of logs (`HEADRACE_LOG=json`).

Each line has `time`, `level`, `run`, `attempt`, `stage`, `message`; lines about progress also `phase`, `done`, `total`,
lines about figures `phase` and `figures`.

- `JsonLines`: a view that writes them
"""

import json
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TextIO

from data_schemas.manifest import StageOutcome
from data_schemas.public_urls import public_text
from infra.progress import ProgressListener

LINE_EVERY_SECONDS = 10.0
"""Between two lines about the progress of one phase."""


class JsonLines:
    """Writes a JSON object per line to a stream, standard output by default."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout
        self._run: dict[str, Any] = {"run": None, "attempt": None}

    def began(self, run_id: str, attempt: int) -> None:
        """The run that all later lines are about."""
        self._run = {"run": run_id, "attempt": attempt}

    def logged(self, message: str) -> None:
        """A line about the run as a whole."""
        self.line(None, message)

    def stage_started(self, stage: str) -> ProgressListener:
        """A line that the stage starts; returns the listener for its own lines."""
        self.line(stage, "starts")
        return _StageLines(self, stage)

    def stage_finished(self, stage: str, outcome: StageOutcome) -> None:
        """A line with the outcome of the stage."""
        artifact = outcome.artifact.label
        self.line(stage, outcome.why, action=outcome.action, artifact=artifact, seconds=round(outcome.seconds, 3))

    def line(self, stage: str | None, message: str, **fields: Any) -> None:
        """Write one line; a message may hold what a user typed, URLs without their secrets."""
        head = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "level": "info", **self._run}
        record = {**head, "stage": stage, "message": public_text(message), **fields}
        self._stream.write(json.dumps(record, ensure_ascii=False) + "\n")
        self._stream.flush()


@dataclass
class _StageLines:
    lines: JsonLines
    stage: str
    last: dict[str, float] = field(default_factory=dict)
    """Kind of line and phase -> time of the last one."""

    def advanced(self, phase: str, done: float, total: float, note: str) -> None:
        if done >= total or self._is_due(f"progress of {phase}"):
            self.lines.line(self.stage, note, phase=phase, done=done, total=total)

    def logged(self, message: str) -> None:
        self.lines.line(self.stage, message)

    def measured(self, phase: str, figures: Mapping[str, float]) -> None:
        if figures and self._is_due(f"figures of {phase}"):
            self.lines.line(self.stage, f"figures of {phase}", phase=phase, figures=dict(figures))

    def _is_due(self, kind: str) -> bool:
        now = time.monotonic()
        if now - self.last.get(kind, -LINE_EVERY_SECONDS) < LINE_EVERY_SECONDS:
            return False
        self.last[kind] = now
        return True
