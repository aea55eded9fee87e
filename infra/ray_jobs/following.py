"""Following a job until it has ended, whatever breaks on the way.

The state comes from Ray's job API. Its log comes from the store, and neither a log that cannot be read nor a dashboard
that does not answer ends a job: while the dashboard is silent, the heartbeat of the job's claim decides.

- `follow`: waits for the end of a job and passes on what it prints; `WaitForStart`: a line if it does not start
- `JobEnd`: its end
"""

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass

from data_schemas.errors import EnvironmentProblem
from infra.ray_jobs.client import JobState, RayJobs
from infra.ray_jobs.logs import LogReader
from infra.store.filesystem import Folder

START_SECONDS = 10.0
"""Time after which a job that has not started is reported."""
UNREACHABLE_SECONDS = 60.0
"""Silence of dashboard and heartbeat after which a job is given up."""


@dataclass(frozen=True)
class JobEnd:
    """End of a job."""

    status: str
    """STOPPED, SUCCEEDED or FAILED; LOST if neither the cluster nor the job's heartbeat answer."""
    message: str = ""


class Pulse:
    """The heartbeat of a claim, as a follower hears it."""

    def __init__(self, claims: Folder, number: int) -> None:
        """Listen to a claim of `<store>/runs/<run id>.claims`, which need not exist yet."""
        self._claims, self._name = claims, f"{number:06d}.beat"
        self._last: bytes | None = None
        self._heard = time.monotonic()

    def listen(self) -> None:
        """Read the counter once; a store that is out of reach counts as silence."""
        with contextlib.suppress(Exception):
            beat = self._claims.read(self._name)
            if beat != self._last:
                self._last, self._heard = beat, time.monotonic()

    @property
    def silent_seconds(self) -> float:
        """Seconds since the counter changed, or since this object began to listen."""
        return time.monotonic() - self._heard


class WaitForStart:
    """Reports once that a job has not started, with Ray's reason."""

    def __init__(self, report: Callable[[str], None]) -> None:
        self._report, self._began, self._is_reported = report, time.monotonic(), False

    def look(self, state: JobState) -> None:
        """Take note of a state of the job."""
        if state.status == "PENDING" and not self._is_reported and time.monotonic() - self._began >= START_SECONDS:
            self._is_reported = True
            self._report(f"job {state.submission_id} waits: {' '.join(state.message.split()) or 'it has not started'}")


def follow(
    jobs: RayJobs,
    submission_id: str,
    log: LogReader,
    pulse: Pulse,
    report: Callable[[str], None],
    poll_seconds: float,
) -> JobEnd:
    """Wait for the end of a job.

    Args:
        jobs: the cluster.
        submission_id: the job.
        log: its text in the store.
        pulse: the heartbeat of its claim.
        report: receives each line of its text, a line if it does not start, and a line when the dashboard stops to
            answer.
        poll_seconds: time between two questions.
    """
    answered, is_silent = time.monotonic(), False
    start = WaitForStart(report)
    while True:
        problem, state = "", None
        try:
            state = jobs.state(submission_id)
            problem = "" if state else f"the cluster does not know job {submission_id}"
        except EnvironmentProblem as error:
            problem = str(error)
        pulse.listen()
        pass_on(log, report)
        if state is not None:
            answered, is_silent = time.monotonic(), False
            start.look(state)
            if state.has_ended:
                pass_on(log, report)
                return JobEnd(state.status, state.message)
        elif _is_lost(pulse, answered):
            return JobEnd("LOST", problem)
        elif not is_silent:
            is_silent = True
            report(f"{problem}; waits for it, or for the job's heartbeat to stop")
        time.sleep(poll_seconds)


def _is_lost(pulse: Pulse, answered: float) -> bool:
    return min(pulse.silent_seconds, time.monotonic() - answered) >= UNREACHABLE_SECONDS


def pass_on(log: LogReader, report: Callable[[str], None]) -> None:
    """Report what was added to a log, line by line; what cannot be read now is read later."""
    with contextlib.suppress(OSError):
        for text in log.new_text():
            for line in text.splitlines():
                report(line)
