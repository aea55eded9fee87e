"""`headrace pin` and `headrace unpin`."""

from flows.console import console
from infra.store.pins import Pins
from infra.store.runs import RunStore


def pin_run(store_url: str, run_id: str) -> None:
    """Pin a run; prints a line.

    Raises:
        NotFoundError: if there is no such run.
    """
    record = RunStore(store_url).get(run_id)
    Pins(store_url).add(record.run_id)
    console.print(f"pinned {record.run_id} ({record.config_name}): headrace gc keeps what it needs", markup=False)


def unpin_run(store_url: str, run_id: str) -> None:
    """Unpin a run; prints a line.

    Raises:
        NotFoundError: if there is no such run.
    """
    record, pins = RunStore(store_url).get(run_id), Pins(store_url)
    was_pinned = record.run_id in pins.ids()
    pins.remove(record.run_id)
    console.print(f"{'unpinned' if was_pinned else 'was not pinned:'} {record.run_id}", markup=False)
