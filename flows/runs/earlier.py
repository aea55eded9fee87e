"""Runs of a request that exist, and the record of a new one.

- `new_record`: record of a run that begins
- `newest_run`: the newest of the same request
- `of_flow_run`, `unfinished_run`: the run that a request continues; `take_over`: that run or another, owned
- `check_not_left_to_job`: refuses a request whose run a job has; `continuation`: a line about the run
"""

from collections.abc import Callable
from datetime import UTC, datetime

from data_schemas.manifest import RunRecord
from data_schemas.public_urls import PUBLIC
from flows.runs.request import RunRequest
from infra.ray_jobs.in_progress import check_no_job_has, jobs_without_result
from infra.store import runs
from infra.store.claims import MISSED_BEATS, Claim
from infra.store.runs import RunStore

Report = Callable[[str], None]


def new_record(request: RunRequest, precision: dict[str, str]) -> RunRecord:
    """The record of a run that begins now."""
    return RunRecord(
        run_id=runs.new_run_id(),
        config_name=request.config.name,
        config=request.config.model_dump(mode="json", context=PUBLIC),
        config_digest=request.config_digest,
        status="running",
        base_run=request.base.run_id if request.base else None,
        forced=request.forced,
        precision=precision,
        last_stage=request.last_stage,
        host="",
        pid=0,
        process_started=0,
        started=datetime.now(UTC),
    )


def of_flow_run(store: RunStore, request: RunRequest) -> RunRecord | None:
    """The unfinished run that an earlier attempt of the same flow run began, even if newer runs exist."""
    record = store.of_flow_run(request.flow_run) if request.flow_run else None
    is_same = record is not None and record.config_digest == request.config_digest
    return record if is_same and record is not None and record.status != "finished" else None


def newest_run(store: RunStore, request: RunRequest) -> RunRecord | None:
    """The newest run of the same request."""
    base_id, same = (request.base.run_id if request.base else None), (request.config_digest, request.forced)
    rows = [row for row in store.index()[0] if (row.config_digest, row.forced) == same]
    newest = [row for row in rows if base_id in (row.base_run, row.run_id)][:1]
    return next(store.newest_first(newest), None)


def unfinished_run(store: RunStore, request: RunRequest) -> RunRecord | None:
    """The newest run of the same request, if it is unfinished; a process may still work on it."""
    record = newest_run(store, request)
    return None if record is None or record.status == "finished" else record


def take_over(
    store: RunStore, request: RunRequest, unfinished: RunRecord | None, precision: dict[str, str], report: Report
) -> tuple[RunRecord, Claim]:
    """Continue an unfinished run if its owner is gone, else start another one."""
    owned = store.adopt(unfinished.run_id, report) if unfinished else None
    if owned:
        report(f"continues run {owned[0].run_id}")
    return owned or store.start(new_record(request, precision))


def check_not_left_to_job(request: RunRequest) -> None:
    """Refuse a request whose run a job on a cluster has, before a flow engine starts.

    Raises:
        EnvironmentProblem: if one has it.
    """
    store = RunStore(request.store_url)
    if request.config.execution.submit == "none" and not request.fresh:
        check_no_job_has(store, unfinished_run(store, request), lambda line: None)


def continuation(store: RunStore, request: RunRequest) -> str | None:
    """A line about the run that `headrace run` continues or leaves to its owner; None if it starts one."""
    record = unfinished_run(store, request)
    if record is None:
        return None
    process = runs.process_of(record)
    if jobs := jobs_without_result(store, record):
        return (
            f"continues run {record.run_id} unless its job {jobs[0].submission_id} at {jobs[0].address} is in progress"
        )
    if record.status != "running" or process.is_gone:
        return f"continues run {record.run_id}"
    return f"continues run {record.run_id} if {process} is silent for {MISSED_BEATS} heartbeats, else starts another"
