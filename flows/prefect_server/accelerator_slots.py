"""One accelerator for one stage at a time: Prefect's global concurrency limit `headrace-accelerator`.

    prefect global-concurrency-limit create headrace-accelerator --limit 1

A run on a Prefect server holds a slot while it trains, compresses or benchmarks, and waits for it with a line in its
log. A killed run's slot is free a minute later: it is leased, and the lease ends with its heartbeat. Without such a
limit, and on a temporary server, nothing waits. HEADRACE_ACCELERATOR names another limit for the workers of a machine.

- `accelerator_slot`: context in which a stage holds a slot; `accelerator_slot_of_job`: the same for a job of all stages
"""

import contextlib
import contextvars
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import ConcurrencyLeaseHolder
from prefect.exceptions import PrefectHTTPStatusError

from flows.prefect_server.flow_runs import flow_run_id
from flows.runs.session import RunSession
from stages.stage import Stage

NAME = "HEADRACE_ACCELERATOR"
LIMIT = "headrace-accelerator"
STAGES = ("pretrain", "compress", "benchmark")
LEASE_SECONDS = 60.0
"""The shortest that Prefect admits."""
POLL_SECONDS = 5.0
IS_TAKEN = 423

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def accelerator_slot(stage: Stage, session: RunSession) -> Iterator[None]:
    """Hold a slot while a stage computes on an accelerator; do nothing if it is reused."""
    with _slot(stage.name, session) if _will_run(stage, session) else contextlib.nullcontext():
        yield


@contextlib.contextmanager
def accelerator_slot_of_job(session: RunSession) -> Iterator[None]:
    """Hold a slot while one job executes all stages, if one of them computes on an accelerator.

    The job cannot wait for a slot between two stages: it has no connection to the Prefect server.
    """
    computing = [stage for stage in session.stages if _will_run(stage, session)]
    with _slot("the run's job", session) if computing else contextlib.nullcontext():
        yield


@contextlib.contextmanager
def _slot(work: str, session: RunSession) -> Iterator[None]:
    """Hold a slot; a job that is in progress already, of a submitter that was killed, is not kept waiting for one."""
    flow_run = flow_run_id()
    if flow_run is None:
        yield
        return
    name = os.environ.get(NAME) or LIMIT
    may_wait = getattr(session, "following", None) is None
    lease = _acquire(name, flow_run, lambda: session.view.logged(_waits(work, name)), may_wait)
    if lease is None:
        yield
        return
    ended = threading.Event()
    context = contextvars.copy_context()  # the settings of this thread
    threading.Thread(target=context.run, args=(_renew, lease, ended), name="accelerator slot", daemon=True).start()
    try:
        yield
    finally:
        ended.set()
        with contextlib.suppress(Exception), get_client(sync_client=True) as client:
            client.release_concurrency_slots_with_lease(lease)


def _will_run(stage: Stage, session: RunSession) -> bool:
    if flow_run_id() is None or stage.name not in STAGES or stage not in session.request.planned:
        return False
    try:
        return session.decide(stage).action == "run"
    except Exception:
        return True  # the stage's task decides again and reports it


def _acquire(name: str, flow_run: str, report_waiting: Callable[[], None], may_wait: bool = True) -> UUID | None:
    """Lease of a slot, waited for in this thread, so that an interrupt ends it.

    None if there is no such limit, or if all slots are taken and this may not wait.

    Prefect's own `concurrency` waits in a thread that keeps an interrupted process from ending.
    """
    owner = ConcurrencyLeaseHolder(type="flow_run", id=UUID(flow_run))
    with get_client(sync_client=True) as client:
        while True:
            try:
                answer = client.increment_concurrency_slots_with_lease(
                    [name], 1, "concurrency", lease_duration=LEASE_SECONDS, holder=owner
                )
            except PrefectHTTPStatusError as error:
                if error.response.status_code != IS_TAKEN:
                    raise
                if not may_wait:
                    return None
                report_waiting()
                report_waiting = _nothing
                time.sleep(POLL_SECONDS)
            else:
                lease = answer.json()
                return UUID(lease["lease_id"]) if lease["limits"] else None


def _nothing() -> None:
    pass


def _waits(work: str, name: str) -> str:
    return (
        f"{work} waits for a slot of the concurrency limit {name}, which other runs have; "
        f"see: prefect global-concurrency-limit inspect {name}"
    )


def _renew(lease: UUID, ended: threading.Event) -> None:
    with get_client(sync_client=True) as client:
        while not ended.wait(LEASE_SECONDS / 3):
            try:
                client.renew_concurrency_lease(lease_id=lease, lease_duration=LEASE_SECONDS)
            except Exception as error:
                logger.warning("the slot of the accelerator was not renewed, so that others may take it: %s", error)
