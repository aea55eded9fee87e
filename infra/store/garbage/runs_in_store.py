"""The runs of a store as garbage collection sees them: who is alive, pinned or young, and where an owner works.

- `RunsInStore`: records and facts about them; `read_runs` reads them, or those that changed
"""

from collections.abc import Collection
from dataclasses import dataclass, field

from data_schemas.errors import EnvironmentProblem
from data_schemas.manifest import RunRecord
from infra.store.claims import hold_file
from infra.store.pins import Pins
from infra.store.run_index import IndexRow
from infra.store.runs import RunStore, process_of


@dataclass(frozen=True)
class RunsInStore:
    """Run records by id, and what is known of their owners."""

    records: dict[str, RunRecord]
    versions: dict[str, IndexRow] = field(default_factory=dict)
    pinned: Collection[str] = ()
    live: Collection[str] = ()
    """Runs whose owner may be at work."""
    held: dict[str, str] = field(default_factory=dict)
    """Run id -> `<stage>/<key>` where its last owner works or worked; absent if it is unknown."""
    beats: dict[str, float] = field(default_factory=dict)
    """Run id -> time of the last heartbeat, seconds since 1970, of runs that have no recorded end."""

    def kept(self, now: float, older_than_seconds: float) -> set[str]:
        """Ids of the runs that are pinned, alive or younger than the limit, and the runs that unfinished ones rerun."""
        earlier = self._begun_before(now)
        kept = {
            run_id
            for run_id, record in self.records.items()
            if run_id in self.pinned
            or run_id in self.live
            or now - max(self.last_active(record), earlier[run_id]) < older_than_seconds
        }
        bases = {self.records[run_id].base_run for run_id in kept if self.records[run_id].status != "finished"}
        return kept | {base for base in bases if base in self.records}

    def _begun_before(self, now: float) -> dict[str, float]:
        """Run id -> newest start of the runs before it, by numbers: on a host whose clock is behind, it ended later."""
        newest, times = 0.0, dict.fromkeys(self.records, 0.0)
        for record in sorted(self.records.values(), key=lambda record: record.sequence):
            if record.sequence:
                times[record.run_id], started = newest, record.started.timestamp()
                newest = max(newest, started if started <= now else 0.0)
        return times

    def last_active(self, record: RunRecord) -> float:
        """Time when the run ended, else of its last heartbeat or its start; seconds since 1970."""
        if record.ended:
            return record.ended.timestamp()
        return max(record.started.timestamp(), self.beats.get(record.run_id, 0.0))

    def holders(self, stage: str, key: str, kept: Collection[str]) -> list[str]:
        """Kept runs that may continue in `<stage>/<key>`."""
        return [run_id for run_id in kept if self._may_continue(self.records[run_id], stage, key)]

    def _may_continue(self, record: RunRecord, stage: str, key: str) -> bool:
        if record.status == "finished":
            return False
        held = self.held.get(record.run_id)
        return stage not in record.stages if held is None else held == f"{stage}/{key}"


def read_runs(store_url: str, before: RunsInStore | None = None) -> RunsInStore:
    """Read records, pins, holds and the times of heartbeats.

    Args:
        store_url: the store.
        before: an earlier reading; only records that changed since are read, and count as alive.

    Raises:
        EnvironmentProblem: if a record cannot be read, or that of a pinned run is missing: nobody knows what it needs.
    """
    runs = RunStore(store_url)
    rows, unreadable = runs.index()
    if unreadable:
        raise EnvironmentProblem(
            f"{unreadable[0].problem}; headrace gc removes nothing while it cannot know what a run needs"
        )
    versions, pinned = {row.run_id: row for row in rows}, Pins(store_url).ids()
    if lost := sorted(pinned - versions.keys()):
        raise EnvironmentProblem(
            f"the record of pinned run {lost[0]} is missing in {runs.folder.url}; headrace gc removes nothing, "
            f"as nobody knows what that run needs: put {lost[0]}.json back, or: headrace unpin {lost[0]}"
        )
    known = before.versions if before else {}
    changed = [row for row in rows if known.get(row.run_id) != row]
    records = {run_id: record for run_id, record in (before.records if before else {}).items() if run_id in versions}
    records |= {record.run_id: record for record in runs.newest_first(changed)}
    running = [record for record in records.values() if record.status == "running"]
    gone = [record for record in running if process_of(record).is_gone]
    live = {record.run_id for record in running} - {record.run_id for record in gone} | _handed_over(runs, gone)
    if before:
        live = {run_id for run_id in live if run_id in before.live} | {row.run_id for row in changed}
    unfinished = [record for record in records.values() if record.status != "finished"]
    paths = [f"{record.run_id}.claims/{hold_file(record.claim)}" for record in unfinished]
    holds = zip(unfinished, runs.folder.read_many(paths), strict=True)
    held = {record.run_id: data.decode() for record, data in holds if data is not None}
    return RunsInStore(records, versions, pinned, live, held, _beats(runs, unfinished))


def _handed_over(runs: RunStore, records: list[RunRecord]) -> set[str]:
    """Ids of the runs whose owner has left the next number to a job on a cluster, which may still wait for room."""
    requests = [f"{record.run_id}/jobs/{record.claim + 1:06d}.json" for record in records]
    contents = zip(records, runs.folder.read_many(requests), strict=True)
    return {record.run_id for record, content in contents if content is not None}


def _beats(runs: RunStore, unfinished: list[RunRecord]) -> dict[str, float]:
    times = {}
    for record in unfinished:
        if record.ended is None:
            modified = runs.folder.modified(f"{record.run_id}.claims/{record.claim:06d}.beat")
            if modified is not None:
                times[record.run_id] = modified
    return times
