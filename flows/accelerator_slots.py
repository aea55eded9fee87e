"""One accelerator for one stage at a time: Prefect's global concurrency limit `headrace-accelerator`.

    prefect global-concurrency-limit create headrace-accelerator --limit 1

A run on a Prefect server holds a slot while it trains, compresses or benchmarks, and waits for it with a line in its
log. A killed run's slot is free a minute later: it is leased, and the lease ends with its heartbeat. Without such a
limit, and on a temporary server, nothing waits. HEADRACE_ACCELERATOR names another limit for the workers of a machine.

- `accelerator_slot`: context in which a stage holds a slot
"""

import contextlib
import os
from collections.abc import Iterator
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import ConcurrencyLeaseHolder
from prefect.client.schemas.responses import GlobalConcurrencyLimitResponse
from prefect.concurrency.sync import concurrency
from prefect.exceptions import ObjectNotFound

from flows.flow_runs import flow_run_id
from flows.run_session import RunSession
from stages.stage import Stage

NAME = "HEADRACE_ACCELERATOR"
LIMIT = "headrace-accelerator"
STAGES = ("pretrain", "compress", "benchmark")
LEASE_SECONDS = 60.0
"""The shortest that Prefect admits."""


@contextlib.contextmanager
def accelerator_slot(stage: Stage, session: RunSession) -> Iterator[None]:
    """Hold a slot while a stage computes on an accelerator; do nothing if it is reused."""
    holder = flow_run_id()
    if holder is None or stage.name not in STAGES or not _will_run(stage, session):
        yield
        return
    name = os.environ.get(NAME) or LIMIT
    limit = _limit(name)
    if limit is None or not limit.active:
        yield
        return
    if limit.active_slots >= limit.limit:
        session.view.logged(
            f"{stage.name} waits for a slot of the concurrency limit {name}: {limit.active_slots} of {limit.limit} are "
            f"taken; see: prefect global-concurrency-limit inspect {name}"
        )
    owner = ConcurrencyLeaseHolder(type="flow_run", id=UUID(holder))
    with concurrency(name, lease_duration=LEASE_SECONDS, holder=owner):
        yield


def _limit(name: str) -> GlobalConcurrencyLimitResponse | None:
    with get_client(sync_client=True) as client:
        try:
            return client.read_global_concurrency_limit_by_name(name)
        except ObjectNotFound:
            return None


def _will_run(stage: Stage, session: RunSession) -> bool:
    if stage not in session.request.planned:
        return False
    try:
        return session.decide(stage).action == "run"
    except Exception:
        return True  # the stage's task decides again and reports it
