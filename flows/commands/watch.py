"""`headrace watch`: a run of any process that writes to the store, as its own terminal shows it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.live import Live

from data_schemas.errors import EnvironmentProblem
from data_schemas.manifest import RunRecord
from flows.console import PLAIN_LINE_EVERY_SECONDS, StageTable, console, duration
from flows.monitoring.run_status import RunStatus, read_status
from flows.planning.stage_order import stages_until
from flows.runs.artifacts import status as state_of
from infra.store.claims import BEAT_SECONDS, MISSED_BEATS, RunClaims
from infra.store.runs import RunStore, process_of
from stages.registry import stages_of

POLL_SECONDS = 2.0
SILENT_SECONDS = MISSED_BEATS * BEAT_SECONDS


def watch(store_url: str, run_id: str) -> RunRecord:
    """Show a run until it ends; Ctrl-C ends the watching, never the run.

    Returns:
        The record of the finished run.

    Raises:
        EnvironmentProblem: if the run failed or was interrupted, or its process is gone or silent.
    """
    runs = RunStore(store_url)
    record = runs.get(run_id)
    pulse = _Pulse(runs, record.run_id)
    with _screen(record) as screen:
        while state_of(record) == "running" and not pulse.is_silent():
            if status := read_status(runs.folder, record.run_id):
                screen.show(status)
            time.sleep(POLL_SECONDS)
            record = runs.get(record.run_id)
        if status := read_status(runs.folder, record.run_id):
            screen.show(status)
    if record.status == "finished":
        return record
    raise EnvironmentProblem(_end(record))


def _end(record: RunRecord) -> str:
    again = "the command that began it continues it"
    if record.status != "running":
        return f"run {': '.join(filter(None, (f'{record.run_id} {record.status}', record.message)))}; {again}"
    process = process_of(record)
    state = "has ended" if process.is_gone else f"has not sent a heartbeat for {SILENT_SECONDS:g} s"
    return f"the process of run {record.run_id} ({process}) {state}; {again}"


class _Pulse:
    """Heartbeat of whatever process owns the run."""

    def __init__(self, runs: RunStore, run_id: str) -> None:
        self._claims = RunClaims(runs.folder.child(f"{run_id}.claims"), run_id)
        self._last: tuple[int, bytes | None] | None = None
        self._since = time.monotonic()

    def is_silent(self) -> bool:
        """Whether neither owner nor beat changed for three beats; False for versions without claims."""
        number = self._claims.highest()
        beat = (number, self._claims.beat(number))
        if beat != self._last:
            self._last, self._since = beat, time.monotonic()
        return number > 0 and time.monotonic() - self._since > SILENT_SECONDS


class _Screen(Protocol):
    def show(self, status: RunStatus) -> None:
        """Show the state of the run now."""


class _Table:
    """The table of stages, below the lines of the run's log."""

    def __init__(self, record: RunRecord) -> None:
        self.table = StageTable([stage.name for stage in stages_until(stages_of(record.config), record.last_stage)])
        self.live = Live(get_renderable=self.table.render, console=console, refresh_per_second=4)
        self._lines = _NewLines()

    def show(self, status: RunStatus) -> None:
        for line in self._lines.of(status):
            self.live.console.print(line)
        for name, stage in status.stages.items():
            row = self.table.row(name)
            row.state, row.begun, row.seconds = stage.state, time.monotonic() - stage.seconds, stage.seconds
            row.note = stage.why
            if stage.state == "running" and stage.phase:
                row.advanced(stage.phase, stage.done, stage.total, stage.note)


class _Plain:
    """Lines of the run's log, one when a stage ends, and one every few seconds about the stage that runs."""

    def __init__(self) -> None:
        self._lines, self._next, self._last = _NewLines(), 0.0, ""
        self._ended: set[str] = set()

    def show(self, status: RunStatus) -> None:
        for line in self._lines.of(status):
            console.print(line)
        for name, stage in status.stages.items():
            if stage.state in ("reused", "done") and name not in self._ended:
                self._ended.add(name)
                done = "reused" if stage.state == "reused" else f"done in {duration(stage.seconds)}"
                console.print(f"{name:<10} {done} ({stage.why})")
            line = f"{name:<10} {stage.phase}: {stage.note}"
            if stage.state == "running" and stage.phase and line != self._last and time.monotonic() >= self._next:
                console.print(f"[{duration(stage.seconds)}] {line}")
                self._last, self._next = line, time.monotonic() + PLAIN_LINE_EVERY_SECONDS


class _NewLines:
    """Lines that were not shown yet."""

    def __init__(self) -> None:
        self._shown: list[str] = []

    def of(self, status: RunStatus) -> list[str]:
        new = [line for line in status.lines if line not in self._shown]
        self._shown = status.lines
        return new


@contextmanager
def _screen(record: RunRecord) -> Iterator[_Screen]:
    if not console.is_terminal:
        yield _Plain()
        return
    screen = _Table(record)
    with screen.live:
        yield screen
