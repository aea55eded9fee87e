"""State of a run as its process publishes it every few seconds, for processes elsewhere.

- `RunStatus`, `StageStatus`: the state
- `publish`, `read_status`: its file beside the claim, `<store>/runs/<run id>.claims/<fencing number>.status`
"""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from infra.store.claims import Claim
from infra.store.filesystem import Folder


class StageStatus(BaseModel):
    """State of one stage; later versions may add fields."""

    model_config = ConfigDict(extra="ignore")

    state: Literal["waiting", "running", "reused", "done"] = "waiting"
    why: str = ""
    phase: str = ""
    done: float = 0.0
    total: float = 0.0
    """Units of the phase."""
    note: str = ""
    seconds: float = 0.0
    """Wall time so far."""
    figures: dict[str, dict[str, float]] = {}
    """Phase -> name -> figure."""


class RunStatus(BaseModel):
    """State of a run; later versions may add fields."""

    model_config = ConfigDict(extra="ignore")

    run_id: str
    attempt: int
    """Fencing number of the process that published it."""
    host: str
    stages: dict[str, StageStatus]
    lines: list[str] = []
    """Newest lines of the log."""
    links: dict[str, str] = {}
    """Name -> URL of a page about the run, such as `ray` and `prefect`."""
    written: datetime
    """By the clock of the publishing host; for people to read."""


def publish(claim: Claim, status: RunStatus) -> None:
    """Write the state; each attempt has a file of its own, so the fence need not be checked."""
    claim.folder.write(_name(claim.number), status.model_dump_json().encode())


def read_status(runs: Folder, run_id: str) -> RunStatus | None:
    """The newest state that a process of the run published; None if there is none, or it cannot be read."""
    folder = runs.child(f"{run_id}.claims")
    names = sorted(name for name in folder.names() if name.endswith(".status"))
    for name in reversed(names):
        try:
            return RunStatus.model_validate_json(folder.read(name))
        except (FileNotFoundError, ValidationError):
            continue
    return None


def _name(number: int) -> str:
    return f"{number:06d}.status"
