"""Messages between a submitter and its jobs, in the store: `runs/<run id>/jobs/<fencing number>.json`.

A run is handed to a job by its owner: the owner writes a request for the next fencing number and submits the job, and
the job takes that number. From then on it owns the run, and the submitter can write nothing. Whoever else takes the
number first, the job ends without having written anything.

- `JobRequest`: the request; `JobResult`: its end, by the job itself
- `JobFolder`: requests and results of one run
- `submission_id`: the id of a job on the cluster
"""

import re
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from infra.store.filesystem import Folder

_REQUEST = re.compile(r"(\d{6})\.json")
METADATA = "headrace_run"
"""Key of a job's metadata with the id of the run."""
PYTHON = "headrace_python"
"""Key of a job's metadata with the command that starts Python on the nodes."""


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class JobRequest(_Message):
    """A job that was, or is about to be, submitted for a run."""

    run_id: str
    number: int
    """Fencing number that the job takes."""
    stage: str | None
    """The stage that it executes; None for all."""
    address: str
    """URL of the cluster, without credentials."""
    versions: dict[str, str]
    """Versions of the submitter, which the nodes must have too."""
    run: dict[str, Any]
    """The run's request, for the layer above."""

    @property
    def submission_id(self) -> str:
        """Id of the job on the cluster; the same for the same run and number, so that it can be found."""
        return submission_id(self.run_id, self.number, self.stage)


class JobResult(_Message):
    """End of a job; absent if it was killed."""

    status: Literal["finished", "failed", "interrupted"]
    error: str = ""
    """Name of the error's class."""
    message: str = ""


class JobFolder:
    """Requests and results of the jobs of one run."""

    def __init__(self, runs: Folder, run_id: str) -> None:
        """Open `<store>/runs/<run id>/jobs`, which need not exist."""
        self._folder = runs.child(f"{run_id}/jobs")

    def write(self, request: JobRequest) -> None:
        """Save a request."""
        self._folder.write(f"{request.number:06d}.json", request.model_dump_json(indent=1).encode())

    def request(self, number: int) -> JobRequest | None:
        """The request for a fencing number; None if there is none that this version can read."""
        data = self._folder.read_many([f"{number:06d}.json"])[0]
        try:
            return None if data is None else JobRequest.model_validate_json(data)
        except ValidationError:
            return None

    def all(self) -> list[JobRequest]:
        """All requests, by their numbers."""
        numbers = [int(match[1]) for name in self._folder.names() if (match := _REQUEST.fullmatch(name))]
        return [request for number in sorted(numbers) if (request := self.request(number))]

    def write_result(self, number: int, result: JobResult) -> None:
        """Save how a job ended."""
        self._folder.write(f"{number:06d}.result.json", result.model_dump_json(indent=1).encode())

    def result(self, number: int) -> JobResult | None:
        """Result of a job; None if it wrote nothing that this version can read."""
        data = self._folder.read_many([f"{number:06d}.result.json"])[0]
        try:
            return None if data is None else JobResult.model_validate_json(data)
        except ValidationError:
            return None


def submission_id(run_id: str, number: int, stage: str | None) -> str:
    """Id of a job on the cluster."""
    return f"headrace-{run_id}-{number}-{stage or 'run'}"
