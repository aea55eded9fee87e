"""The run of a Prefect flow run: a retried flow run continues the run that it began, with the inputs that it had.

- `flow_run_id`: id of the current flow run, if a server outlives it
- `earlier_attempt`: the run that an earlier attempt of the current flow run began
- `base_of`: the run that the current flow run reruns
"""

from prefect.runtime import flow_run

from data_schemas.manifest import RunRecord
from flows.prefect_server.connection import api_url
from infra.store.runs import RunStore


def flow_run_id() -> str | None:
    """Id of the current flow run; None on a temporary server, where nothing can be retried."""
    return flow_run.id if api_url() else None


def earlier_attempt(store_url: str) -> RunRecord | None:
    """The run that an earlier attempt of the current flow run began; None in its first attempt."""
    current = flow_run_id()
    return RunStore(store_url).of_flow_run(current) if current else None


def base_of(store_url: str, run: str) -> RunRecord:
    """The run that is rerun: `run`, or in a retry that of the earlier attempt, whatever is the latest run by now.

    Raises:
        NotFoundError: if there is none.
    """
    earlier = earlier_attempt(store_url)
    return RunStore(store_url).get((earlier.base_run if earlier else None) or run)
