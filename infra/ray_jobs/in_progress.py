"""Jobs in progress: one that owns a run, or that its owner has left it to.

- `job_in_progress`: the job of a run that its cluster has not ended
- `check_no_job_has`: refuses a run that a job has
- `jobs_without_result`: jobs that may still have a run
"""

from collections.abc import Callable, Iterator

from data_schemas.errors import EnvironmentProblem
from data_schemas.manifest import RunRecord
from infra.ray_jobs.client import RayJobs
from infra.ray_jobs.dashboard import ClusterAway
from infra.ray_jobs.requests import JobFolder, JobRequest
from infra.store.runs import RunStore


def job_in_progress(jobs: RayJobs, store: RunStore, run_id: str) -> JobRequest | None:
    """The job that owns a run or is about to, if the cluster says that it has not ended."""
    for request in _requests(store, run_id):
        state = jobs.state(request.submission_id)
        if state is not None and not state.has_ended:
            return request
    return None


def check_no_job_has(
    store: RunStore, record: RunRecord | None, report: Callable[[str], None], idle: str | None = None
) -> None:
    """Leave an unfinished run to its job, if there is one that may still work on it.

    A job that its cluster does not know any more, and one of a cluster that does not answer, keeps nobody away: should
    it come back, the fence stops it.

    Args:
        store: the runs.
        record: the run; None if there is none.
        report: receives a line if a cluster does not answer.
        idle: address of a cluster that has no such job, as the caller knows.

    Raises:
        EnvironmentProblem: if a job has it; with the commands that follow or stop it.
    """
    for request in jobs_without_result(store, record):
        if request.address == idle:
            continue
        run_id, submission_id = request.run_id, request.submission_id
        job = f"run {run_id} of this config was left to job {submission_id} on the Ray cluster at {request.address}"
        helps = (
            f"follow it with: headrace attach {run_id}; stop it with: headrace cancel {run_id}; or begin another run "
            "with --fresh"
        )
        try:
            state = RayJobs(request.address).state(submission_id)
        except ClusterAway:
            report(f"{job}, which does not answer")
            continue
        except EnvironmentProblem as problem:
            raise EnvironmentProblem(f"{job}, but {problem}; {helps}") from problem
        if state is not None and not state.has_ended:
            raise EnvironmentProblem(f"{job}, which {'waits' if state.status == 'PENDING' else 'works'}: {helps}")


def jobs_without_result(store: RunStore, record: RunRecord | None) -> list[JobRequest]:
    """Jobs that an unfinished run was left to and that have not recorded their end; they may be dead."""
    if record is None or record.status != "running":
        return []
    folder = JobFolder(store.folder, record.run_id)
    return [request for request in _requests(store, record.run_id) if folder.result(request.number) is None]


def _requests(store: RunStore, run_id: str) -> Iterator[JobRequest]:
    """The request for the next fencing number, and that of the present one."""
    highest, folder = store.claims(run_id).highest(), JobFolder(store.folder, run_id)
    for number in (highest + 1, highest):
        if request := folder.request(number):
            yield request
