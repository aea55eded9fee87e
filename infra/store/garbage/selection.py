"""The part of a store that no run needs: a function of its listing, its runs, the time and the age limit.

Kept are all artifacts of runs that are pinned, alive or younger than the limit, with their inputs and the inputs of
these; artifacts that are younger themselves, with theirs; and partitions and progress from which unfinished runs among
them continue. What this version cannot read keeps its whole key.

- `Garbage`: a file to remove, of a kind, with the name that a run waits for
- `select_garbage`: all of it
"""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, get_args

from data_schemas.manifest import ArtifactRef
from infra.store.artifact_writer import MANIFEST
from infra.store.garbage.contents import PARTS, TEMPORARY, StoreContents, artifact_id
from infra.store.garbage.runs_in_store import RunsInStore
from infra.store.listings import StoredFile

Kind = Literal["artifacts", "partitions", "progress", "superseded", "shared passes", "temporary"]
KINDS: tuple[Kind, ...] = get_args(Kind)
DAY_SECONDS = 86_400.0
"""Age from which a file of a write that has not ended belongs to no process any more."""


@dataclass(frozen=True)
class Garbage:
    """A file that nothing needs."""

    kind: Kind
    name: str
    """The name on which a run waits that wants it while it is removed; empty if no run can."""
    file: StoredFile


@dataclass(frozen=True)
class _Needed:
    artifacts: set[str]
    """Ids."""
    untouchable: set[str]
    """`<stage>/<key>` of which something was not listed or cannot be read."""


def select_garbage(
    contents: StoreContents,
    runs: RunsInStore,
    now: float,
    older_than_seconds: float,
    left: Collection[str] = (),
) -> list[Garbage]:
    """Select the files that no kept run needs.

    Args:
        contents: the listing.
        runs: the runs; may be newer than the listing.
        now: seconds since 1970.
        older_than_seconds: age limit of runs, artifacts and progress without a record.
        left: names whose removal another gc began, of which there may be a rest, whatever its age.
    """
    kept = runs.kept(now, older_than_seconds)
    needed = _needed(contents, runs, kept, now - older_than_seconds)
    temporary_seconds = DAY_SECONDS if runs.live else min(DAY_SECONDS, older_than_seconds)
    garbage = [
        Garbage("temporary", "", file) for file in contents.temporary if _is_older(file, now - temporary_seconds)
    ]
    for key, files in contents.keys.items():
        if key not in needed.untouchable:
            listed = [file for file in files if not _is_temporary(file)]
            garbage += _Key(contents, runs, kept, needed, now - older_than_seconds, left, key).garbage(listed)
    for folder, files in contents.shared.items():
        stage = folder.split("/")[1]
        in_use = any(
            stage not in runs.records[run_id].stages or runs.held.get(run_id, "").startswith(f"{stage}/")
            for run_id in runs.live
        )
        if not in_use and all(_is_older(file, now - older_than_seconds) for file in files):
            garbage += [Garbage("shared passes", f"shared/{stage}", file) for file in files if not _is_temporary(file)]
    return garbage


@dataclass(frozen=True)
class _Key:
    """The garbage of one `<stage>/<key>`."""

    contents: StoreContents
    runs: RunsInStore
    kept: set[str]
    needed: _Needed
    limit: float
    """Time of the age limit, seconds since 1970."""
    left: Collection[str]
    key: str

    def garbage(self, files: Iterable[StoredFile]) -> Iterator[Garbage]:
        by_attempt: dict[str, list[StoredFile]] = {}
        for file in files:
            by_attempt.setdefault(file.path.split("/")[2], []).append(file)
        parts = by_attempt.pop(PARTS, [])
        for attempt, own in by_attempt.items():
            yield from self._of_attempt(attempt, own)
        yield from self._of_parts(parts, list(by_attempt))

    def _of_attempt(self, attempt: str, files: list[StoredFile]) -> Iterator[Garbage]:
        artifact = f"{self.key}/{attempt}"
        if artifact in self.needed.artifacts:
            if attempt not in self.runs.live:
                lists = self.contents.manifests[artifact].file_lists
                own = {f"{artifact}/{name}" for name in (MANIFEST, *(listed.name for listed in lists))}
                referenced = self._referenced([artifact]) | own
                for file in files:
                    if file.path not in referenced:
                        is_work = file.path.startswith(f"{artifact}/work/")
                        yield Garbage("progress" if is_work else "superseded", f"{artifact}/work", file)
        elif artifact in self.contents.manifests:
            yield from (Garbage("artifacts", artifact, file) for file in files)
        elif not self._may_commit(attempt, files):
            yield from (Garbage("progress", artifact, file) for file in files)

    def _may_commit(self, attempt: str, files: list[StoredFile]) -> bool:
        """Whether an attempt without a manifest may still be continued."""
        record = self.runs.records.get(attempt)
        if record is None:
            return f"{self.key}/{attempt}" not in self.left and any(not _is_older(file, self.limit) for file in files)
        return attempt in self.runs.live or (attempt in self.kept and record.status != "finished")

    def _of_parts(self, files: list[StoredFile], attempts: list[str]) -> Iterator[Garbage]:
        stage, key = self.key.split("/")
        if not files or self.runs.holders(stage, key, self.kept):
            return
        artifacts = [f"{self.key}/{attempt}" for attempt in attempts]
        committed = [artifact for artifact in artifacts if artifact in self.contents.manifests]
        needed = [artifact for artifact in committed if artifact in self.needed.artifacts]
        abandoned = any(held == self.key for run, held in self.runs.held.items() if run not in self.kept)
        abandoned = abandoned or f"{self.key}/{PARTS}" in self.left
        if not committed and not abandoned and any(not _is_older(file, self.limit) for file in files):
            return
        kept, removed = self._referenced(needed), self._referenced(committed)
        for file in files:
            if file.path not in kept:
                kind: Kind = "artifacts" if file.path in removed else "partitions"
                yield Garbage(kind, f"{self.key}/{PARTS}", file)

    def _referenced(self, artifacts: Iterable[str]) -> set[str]:
        return {
            f"{self.key}/{entry.part or f'{manifest.attempt}/{entry.path}'}"
            for manifest in (self.contents.manifests[artifact] for artifact in artifacts)
            for entry in manifest.files
        }


def _needed(contents: StoreContents, runs: RunsInStore, kept: set[str], limit: float) -> _Needed:
    """The closure of what kept runs used, and of young artifacts, under inputs."""
    pending = [outcome.artifact for run in kept for outcome in runs.records[run].stages.values()]
    pending += [
        manifest.ref
        for manifest in contents.manifests.values()
        if manifest.attempt in kept or manifest.ended.timestamp() > limit
    ]
    needed = _Needed(set(), {_key(artifact) for artifact in contents.unreadable})
    for references in list(contents.unreadable.values()):
        pending += references
    visited: set[str] = set()
    while pending:
        ref = pending.pop()
        artifact = artifact_id(ref)
        if artifact not in visited:
            visited.add(artifact)
            pending += _reach(contents, ref, needed)
    return needed


def _reach(contents: StoreContents, ref: ArtifactRef, needed: _Needed) -> list[ArtifactRef]:
    """Mark an artifact as needed; returns its inputs. If it is gone, other attempts with its bytes serve for it."""
    artifact = artifact_id(ref)
    if artifact in contents.manifests:
        needed.artifacts.add(artifact)
        return list(contents.manifests[artifact].inputs.values())
    loaded = contents.load(artifact)
    if loaded is not None or artifact in contents.unreadable:
        needed.untouchable.add(_key(artifact))
        return list(loaded.inputs.values()) if loaded else contents.unreadable[artifact]
    return [
        manifest.ref
        for other, manifest in contents.manifests.items()
        if _key(other) == _key(artifact) and manifest.digest == ref.digest
    ]


def _key(artifact: str) -> str:
    return artifact.rpartition("/")[0]


def _is_temporary(file: StoredFile) -> bool:
    return TEMPORARY.fullmatch(file.path.rsplit("/", 1)[-1]) is not None


def _is_older(file: StoredFile, limit: float) -> bool:
    """Whether a file was last written at or before a time; False if the filesystem does not say."""
    return file.modified is not None and file.modified <= limit
