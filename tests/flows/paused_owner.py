"""A process that owns a run, for tests: `python -m tests.flows.paused_owner COMMAND STORE CORPUS`.

- `begin`: begins or continues the run, prints its id and what was reported, and lives until its input ends
- `train`: begins the run, trains until a checkpoint is half written, and is then paused by the test; when it wakes up,
  it tries to commit the checkpoint, a manifest and the record, and prints what each attempt ended with
"""

import json
import sys
from pathlib import Path

from data_schemas.errors import FencedError
from flows.runs.request import RunRequest
from flows.runs.session import RunSession
from infra.store import claims
from tests.flows.mini import Diary, mini_config

BEAT_SECONDS = 0.2


def main(command: str, store: str, corpus: str) -> None:
    """Execute one command."""
    claims.BEAT_SECONDS = BEAT_SECONDS
    if command == "begin":
        claims.MISSED_BEATS = 600  # a beat that the machine's load delays is waited for
    request = RunRequest(mini_config(corpus), store, last_stage="pretrain")
    diary = Diary()
    if command == "begin":
        print("ready", flush=True)
        sys.stdin.readline()
    session = RunSession.begin(request, diary)
    print(json.dumps([session.run_id, diary.notes]), flush=True)
    if command == "begin":
        sys.stdin.readline()
        return
    for stage in session.stages[:-1]:
        session.execute(stage)
    train(session, Path(store))


def train(session: RunSession, store: Path) -> None:
    """Train; the process is paused where a marker is written."""
    from infra.store.artifact_writer import ArtifactWriter
    from stages.pretrain import checkpoints

    mark_complete, commit, ended = checkpoints.mark_complete, ArtifactWriter.commit, []

    def pause() -> None:
        print("paused here", flush=True)
        sys.stdin.readline()

    def paused_mark(folder: claims.FencedFolder, marker: checkpoints.Marker) -> None:
        if marker.step < 8:
            mark_complete(folder, marker)
            return
        pause()
        try:
            mark_complete(folder, marker)
        except FencedError:
            ended.append("checkpoint refused")
            raise

    checkpoints.mark_complete = paused_mark
    try:
        session.execute(session.stages[-1])
    except FencedError as error:
        ended.append(str(error))
    out = session.store.writer("clean", "f" * 64, session.run_id, session.stages[1].output, session.claim)
    manifest = session.artifacts["clean"].manifest
    out.files = {entry.path: entry for entry in manifest.files}
    try:
        commit(out, manifest)
    except FencedError:
        ended.append("manifest refused")
    try:
        session.close("finished")
    except FencedError:
        ended.append("record refused")
    session.close("failed", "as the flow does")
    print(json.dumps(ended), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
