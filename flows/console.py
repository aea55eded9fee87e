"""Progress of a run on the terminal: a live table of stages with bars, or plain lines in a log.

- `console`: the output of all commands
- `run_view`: the live view on a terminal, else plain lines
- `plan_table`, `amount`: what `plan` and `show` print; `plain_table`: a table of any command
- `TimeLeft`, `with_time_left`, `duration`: how long a phase will still take
"""

import os
import sys
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from data_schemas.errors import ConfigError
from data_schemas.manifest import StageOutcome
from flows.monitoring.json_lines import JsonLines
from flows.planning.planner import PlannedStage
from flows.runs.view import RunView
from infra.progress import ProgressListener

# A log has no width of its own; 160 columns keep ids whole. Names of configs, tasks and files may look like markup.
console = Console(
    highlight=False, markup=False, emoji=False, soft_wrap=True, width=None if sys.stdout.isatty() else 160
)
PLAIN_LINE_EVERY_SECONDS = 10.0
RECENT_ADVANCES = 20


class PlainView:
    """A line when a stage starts, one every few seconds while it runs, one when it ends."""

    def __init__(self) -> None:
        self._begun = time.monotonic()

    def logged(self, message: str) -> None:
        """A line about the run."""
        self.line("run", message)

    def stage_started(self, stage: str) -> ProgressListener:
        """A line that the stage starts."""
        self.line(stage, "starts")
        return _PlainListener(self, stage)

    def stage_finished(self, stage: str, outcome: StageOutcome) -> None:
        """A line with the outcome of the stage."""
        done = "reused" if outcome.action == "reuse" else f"done in {duration(outcome.seconds)}"
        self.line(stage, f"{done} ({outcome.why}) -> {outcome.artifact.label}")

    def line(self, stage: str, message: str) -> None:
        """One line with the time since the run began."""
        console.print(f"[{time.monotonic() - self._begun:6.1f}s] {stage:<10} {message}")


class _PlainListener:
    def __init__(self, view: PlainView, stage: str) -> None:
        self._view, self._stage = view, stage
        self._last: dict[str, float] = {}
        self._time_left = TimeLeft()

    def advanced(self, phase: str, done: float, total: float, note: str) -> None:
        self._time_left.advanced(phase, done, total)
        now = time.monotonic()
        if done >= total or now - self._last.get(phase, 0.0) >= PLAIN_LINE_EVERY_SECONDS:
            self._last[phase] = now
            self._view.line(self._stage, f"{phase}: {with_time_left(note, self._time_left)}")

    def logged(self, message: str) -> None:
        self._view.line(self._stage, message)

    def measured(self, phase: str, figures: Mapping[str, float]) -> None:
        pass  # the line of the phase names them


class LiveView:
    """A table of all stages, redrawn four times a second."""

    def __init__(self, stages: Sequence[str]) -> None:
        self._table = StageTable(stages)
        self.live = Live(get_renderable=self._table.render, console=console, refresh_per_second=4)

    def logged(self, message: str) -> None:
        """A line above the table."""
        self.live.console.print(message)

    def stage_started(self, stage: str) -> ProgressListener:
        """Marks the stage's row as running."""
        row = self._table.row(stage)
        row.begun = time.monotonic()
        row.state = "running"
        return row

    def stage_finished(self, stage: str, outcome: StageOutcome) -> None:
        """Marks the stage's row as done."""
        row = self._table.row(stage)
        row.state = "reused" if outcome.action == "reuse" else "done"
        row.seconds = outcome.seconds if outcome.action == "run" else 0.0
        row.note = outcome.why


class StageTable:
    """A row per stage: state, bar, seconds, time left, note."""

    def __init__(self, stages: Sequence[str]) -> None:
        self._rows = {stage: StageRow() for stage in stages}

    def row(self, stage: str) -> "StageRow":
        """The row of a stage, to change."""
        return self._rows.setdefault(stage, StageRow())

    def render(self) -> Table:
        """The table now."""
        table = Table.grid(padding=(0, 2))
        for stage, row in self._rows.items():
            note = Text(row.note, style="dim", no_wrap=True, overflow="ellipsis")
            table.add_row(row.mark(), Text(stage, style="bold"), row.bar(), row.clock(), row.left(), note)
        return table


class StageRow:
    """State of one stage; a listener for its progress."""

    def __init__(self) -> None:
        self.state = "waiting"
        self.note = ""
        self.begun = 0.0
        self.seconds = 0.0
        self.share = 0.0
        self.time_left = TimeLeft()

    def advanced(self, phase: str, done: float, total: float, note: str) -> None:
        """As in `ProgressListener`."""
        self.time_left.advanced(phase, done, total)
        self.share = done / total if total else 1.0
        self.note = f"{phase}: {note}"

    def logged(self, message: str) -> None:
        """As in `ProgressListener`."""
        self.note = message

    def measured(self, phase: str, figures: Mapping[str, float]) -> None:
        """Ignore; the note of the phase names them."""

    def mark(self) -> Text:
        """A symbol of the state."""
        marks = {"waiting": ("·", "dim"), "running": ("▸", "cyan"), "reused": ("=", "green"), "done": ("✓", "green")}
        symbol, style = marks[self.state]
        return Text(symbol, style=style)

    def bar(self) -> ProgressBar:
        """Share of the current phase that is done."""
        share = {"waiting": 0.0, "running": self.share}.get(self.state, 1.0)
        return ProgressBar(total=1.0, completed=share, width=24)

    def clock(self) -> Text:
        """Wall time of the stage so far."""
        seconds = time.monotonic() - self.begun if self.state == "running" else self.seconds
        return Text("" if self.state in ("waiting", "reused") else duration(seconds), justify="right")

    def left(self) -> Text:
        """Time left of the current phase, if there is an estimate."""
        seconds = self.time_left.seconds if self.state == "running" else None
        return Text("" if seconds is None else f"{duration(seconds)} left", justify="right")


@contextmanager
def run_view(stages: Sequence[str]) -> Iterator[RunView]:
    """The live view on a terminal, plain lines elsewhere; JSON lines where `HEADRACE_LOG=json`.

    Raises:
        ConfigError: if `HEADRACE_LOG` is something else.
    """
    log = os.environ.get("HEADRACE_LOG", "")
    if log not in ("", "json"):
        raise ConfigError(f"HEADRACE_LOG is {log!r}; accepted is json, or leave it unset for lines to read")
    if log:
        yield JsonLines()
        return
    if not (console.is_terminal and sys.stdout.isatty()):
        yield PlainView()
        return
    view = LiveView(stages)
    with view.live:
        yield view


def plain_table(titles: Iterable[str], words: Collection[str]) -> Table:
    """A table without lines; columns of numbers, which are all but those of `words`, are aligned to the right."""
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for title in titles:
        table.add_column(title, justify="left" if title in words else "right")
    return table


def plan_table(planned: Sequence[PlannedStage]) -> Table:
    """Action, reason and estimated cost of each stage."""
    table = plain_table(("stage", "action", "time", "memory", "FLOPs", "why"), words=("stage", "action", "why"))
    for row in planned:
        runs = row.action == "run"
        cost = row.estimate
        table.add_row(
            row.stage.name,
            Text(row.action, style="yellow" if runs else "green"),
            duration(cost.seconds) if runs else "",
            amount(cost.peak_memory_bytes, "B") if runs else "",
            amount(cost.flops) if cost.flops else "",
            Text(row.why),
        )
    return table


def amount(number: float, unit: str = "") -> str:
    """`1.2 GB`: three digits and a decimal prefix."""
    for prefix in ("", "k", "M", "G", "T", "P", "E"):
        if abs(number) < 999.5:  # a number that rounds to 1000 takes the next prefix
            return f"{number:.3g} {prefix}{unit}".rstrip()
        number /= 1000
    return f"{number:.3g} Z{unit}"


class TimeLeft:
    """Estimates the seconds left of a stage's current phase from the pace of its latest steps.

    The pace excludes everything before a phase's first advance: startup has another pace, and a resumed phase starts
    with the work done before.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Start without an estimate; `clock` returns seconds."""
        self._clock = clock
        self._phase: str | None = None
        self._total = 0.0
        self._advances: deque[tuple[float, float]] = deque(maxlen=RECENT_ADVANCES)

    def advanced(self, phase: str, done: float, total: float) -> None:
        """Record that `done` of `total` units of a phase are finished."""
        if phase != self._phase or (self._advances and done < self._advances[-1][1]):
            self._advances.clear()
            self._phase = phase
        self._total = total
        if done > (self._advances[-1][1] if self._advances else 0.0):
            self._advances.append((self._clock(), done))

    @property
    def seconds(self) -> float | None:
        """Seconds left; None before the phase has advanced twice and after its end."""
        if len(self._advances) < 2:
            return None
        (first_time, first_done), (last_time, last_done) = self._advances[0], self._advances[-1]
        if last_done >= self._total or last_time <= first_time:
            return None
        left = (self._total - last_done) * (last_time - first_time) / (last_done - first_done)
        return max(0.0, left - (self._clock() - last_time))


def with_time_left(note: str, time_left: TimeLeft) -> str:
    """The note, followed by the time left of the phase if there is an estimate."""
    seconds = time_left.seconds
    return note if seconds is None else f"{note}, {duration(seconds)} left"


def duration(seconds: float) -> str:
    """`7.3s` below a minute, `2m 05s` below two hours, `3h 20m` beyond."""
    if seconds < 60:
        return f"{seconds:.1f}s"
    minutes = int(seconds // 60)
    return f"{minutes}m {int(seconds % 60):02d}s" if minutes < 120 else f"{minutes // 60}h {minutes % 60:02d}m"
