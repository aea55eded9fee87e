"""Garbage collection of a store, as `headrace gc` does it; the protocol is in `gate.py`.

- `preview`: what would be removed now; changes nothing
- `collect`: removes it
"""

import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import islice

from infra.store.artifact_writer import MANIFEST
from infra.store.claims import Claim
from infra.store.filesystem import REQUESTS_AT_ONCE, Folder
from infra.store.garbage.contents import StoreContents, artifact_id, check_store, read_contents
from infra.store.garbage.gate import GarbageGate
from infra.store.garbage.runs_in_store import RunsInStore, read_runs
from infra.store.garbage.selection import Garbage, select_garbage
from infra.store.garbage.uploads import abort_uploads
from infra.store.pins import RemovedArtifacts
from infra.store.runs import RunStore, close

REMOVED_AT_ONCE = 1000
"""Files between two checks of the claim; S3's limit for one deleting request."""


def preview(store_url: str, stages: Sequence[str], older_than_seconds: float) -> list[Garbage]:
    """Select what `collect` would remove; runs whose owner is on another host count as alive.

    Raises:
        NotFoundError: if there is no store.
        EnvironmentProblem: if a run's record cannot be read.
    """
    contents = read_contents(Folder(store_url), stages)
    left = GarbageGate(store_url).listed()
    return select_garbage(contents, read_runs(store_url), time.time(), older_than_seconds, left)


def collect(
    store_url: str, stages: Sequence[str], older_than_seconds: float, report: Callable[[str], None]
) -> list[Garbage]:
    """Remove what no run needs; safe beside runs and other calls, and after being killed.

    Args:
        store_url: the store.
        stages: names of the stages whose artifacts are considered.
        older_than_seconds: age limit, see `select_garbage`.
        report: receives a line before each wait.

    Returns:
        What was removed.

    Raises:
        NotFoundError: if there is no store.
        EnvironmentProblem: if a run's record cannot be read, or another process removes garbage.
    """
    check_store(Folder(store_url))  # before anything is written
    gate = GarbageGate(store_url)
    with gate.claimed() as claim:
        now = gate.time_now(claim)
        _close_silent(store_url, older_than_seconds, now, report)
        contents, left = read_contents(Folder(store_url), stages), gate.listed()
        runs = read_runs(store_url)
        selected = select_garbage(contents, runs, now, older_than_seconds, left)
        gate.publish(claim, {row.name for row in selected if row.name})
        now_needed = read_runs(store_url, before=runs)
        still = set(select_garbage(contents, now_needed, now, older_than_seconds, left))
        removed = sorted((row for row in selected if row in still), key=_order)
        _record_removed(store_url, contents, now_needed, removed)
        _remove(contents.root, claim, removed)
    return removed


def _close_silent(store_url: str, older_than_seconds: float, now: float, report: Callable[[str], None]) -> None:
    """Take over runs older than the limit whose owner is silent, so that one that wakes up is fenced."""
    runs, store = read_runs(store_url), RunStore(store_url)
    old = [run for run in runs.live if now - runs.last_active(runs.records[run]) >= older_than_seconds]

    def take_over(run_id: str) -> None:
        adopted = store.adopt(run_id, lambda line: None)
        if adopted:
            closed = close(adopted[0], "interrupted", "its process was silent; closed by headrace gc")
            ended = datetime.fromtimestamp(runs.last_active(runs.records[run_id]), UTC)
            store.save(closed.model_copy(update={"ended": ended}))

    old = [run for run in old if run not in runs.pinned]
    if old:
        report(f"waits for the heartbeats of {len(old)} runs that have not ended: {', '.join(sorted(old)[:5])}")
        with ThreadPoolExecutor(REQUESTS_AT_ONCE) as pool:
            list(pool.map(take_over, old))


def _record_removed(store_url: str, contents: StoreContents, runs: RunsInStore, removed: Iterable[Garbage]) -> None:
    """Write, for each run, the stages whose artifacts are about to be gone, or went earlier and did not come back."""
    going = {row.name for row in removed if row.kind == "artifacts"}
    store, earlier, stages = RemovedArtifacts(store_url), RemovedArtifacts(store_url).by_run(), {}
    for run_id, record in runs.records.items():
        before = earlier.get(run_id, [])
        ids = {stage: artifact_id(outcome.artifact) for stage, outcome in record.stages.items()}
        gone = [
            stage
            for stage, artifact in ids.items()
            if artifact in going or (stage in before and artifact not in contents.manifests)
        ]
        if gone:
            stages[run_id] = gone
    if stages != earlier:
        store.write(stages)


def _remove(root: Folder, claim: Claim, rows: Iterable[Garbage]) -> None:
    files = (row.file for row in rows)
    while batch := list(islice(files, REMOVED_AT_ONCE)):
        claim.check()
        abort_uploads(root, [file for file in batch if file.upload])
        root.remove_files([file.path for file in batch if not file.upload])


def _order(row: Garbage) -> tuple[bool, bool, str]:
    """Manifests first, then the markers of partitions, passes and checkpoints, then what they list."""
    path = row.file.path
    return not path.endswith(f"/{MANIFEST}"), not path.endswith(".json"), path
