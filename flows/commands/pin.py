"""`headrace pin` and `headrace unpin`."""

from flows.console import console
from infra.store.artifacts import ArtifactStore
from infra.store.garbage.contents import artifact_id
from infra.store.garbage.gate import GarbageGate
from infra.store.pins import Pins
from infra.store.runs import RunStore


def pin_run(store_url: str, run_id: str) -> None:
    """Pin a run; prints a line.

    Raises:
        NotFoundError: if there is no such run.
    """
    record = RunStore(store_url).get(run_id)
    Pins(store_url).add(record.run_id)
    refs = {stage: outcome.artifact for stage, outcome in record.stages.items()}
    used = {artifact_id(ref) for ref in refs.values()}
    GarbageGate(store_url).wait(lambda name: name in used, console.print)
    gone = ", ".join(stage for stage, ref in refs.items() if not ArtifactStore(store_url).has(ref))
    note = f"; gone already: {gone}" if gone else ""
    console.print(f"pinned {record.run_id} ({record.config_name}): headrace gc keeps what it needs{note}")


def unpin_run(store_url: str, run_id: str) -> None:
    """Unpin a run, also if its record is missing; prints a line.

    Raises:
        NotFoundError: if there is no such run, and none of that id is pinned.
    """
    pins = Pins(store_url)
    pinned = pins.ids()
    if run_id not in pinned:  # else its record may be missing, or damaged
        run_id = RunStore(store_url).get(run_id).run_id
    pins.remove(run_id)
    console.print(f"{'unpinned' if run_id in pinned else 'was not pinned:'} {run_id}")
