"""Pinned runs, whose artifacts `headrace gc` keeps, and the artifacts that it removed.

- `Pins`: a file per pinned run, `<store>/runs/pins/<run id>`
- `RemovedArtifacts`: the stages of each run whose artifacts are gone, `<store>/gc/removed.json`
"""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from infra.store.filesystem import Folder
from infra.store.records import readable_fields


class Pins:
    """The pinned runs of one store."""

    def __init__(self, store_url: str) -> None:
        self._folder = Folder(store_url).child("runs/pins")

    def ids(self) -> set[str]:
        """Ids of the pinned runs; one request."""
        return {name for name in self._folder.names() if not name.startswith(".")}

    def add(self, run_id: str) -> None:
        """Pin a run."""
        self._folder.write(run_id, datetime.now(UTC).isoformat().encode())

    def remove(self, run_id: str) -> None:
        """Unpin a run, if it is pinned."""
        self._folder.remove(run_id)


class RemovedArtifacts:
    """Stages of runs whose artifacts `headrace gc` removed; written by the one process that has the claim on it."""

    PATH = "removed.json"

    def __init__(self, store_url: str) -> None:
        self._folder = Folder(store_url).child("gc")

    def by_run(self) -> dict[str, list[str]]:
        """Run id -> names of stages; empty if nothing was removed, or the list is damaged."""
        [data] = self._folder.read_many([self.PATH])
        stages = {} if data is None else readable_fields(data)
        return {run: list(map(str, names)) for run, names in stages.items() if isinstance(names, list)}

    def write(self, stages: Mapping[str, Sequence[str]]) -> None:
        """Replace the list."""
        self._folder.write(self.PATH, json.dumps({run: list(names) for run, names in sorted(stages.items())}).encode())
