"""A run whose stages are executed by jobs on a Ray cluster, seen from the process that submits them.

The process owns the run only between two jobs. It hands the run to a job under the next fencing number, follows the
job, and takes the run back when the job has ended. If it is killed, the job continues, and the next `headrace run` of
the same config follows that job. If it is interrupted or cancelled, it stops the job and waits until nothing of it is
left on the cluster.

- `begin_session`: the session of a request, in this process or submitted
- `SubmittedSession`: the latter
"""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import data_schemas.errors
from data_schemas.errors import EnvironmentProblem, FencedError, HeadraceError, JobLostError
from data_schemas.manifest import StageOutcome
from data_schemas.public_urls import public_url
from flows.jobs.requests import check_no_credentials, job_values
from flows.runs.earlier import of_flow_run, take_over, unfinished_run
from flows.runs.request import RunRequest
from flows.runs.session import RunSession
from flows.runs.start import RunStart
from flows.runs.view import RunView, SilentView
from infra.progress import ProgressListener
from infra.ray_jobs.cancel import RETRY_STOP_SECONDS, STOP_SECONDS, stop_jobs
from infra.ray_jobs.dashboard import ClusterAway
from infra.ray_jobs.following import JobEnd, Pulse, follow
from infra.ray_jobs.in_progress import check_no_job_has, job_in_progress
from infra.ray_jobs.logs import LogReader
from infra.ray_jobs.requests import JobFolder, JobRequest, JobResult
from infra.ray_jobs.submission import JobSubmitter
from infra.store.access import check_access
from infra.store.claims import Claim
from infra.store.runs import RunStore
from infra.workers.nodes import own_versions
from stages.stage import Stage

ENTRY = "flows.jobs.entry"
FLOW_RUN = "prefect_flow_run"
"""Key of a job's metadata with the id of the Prefect flow run that submitted it."""


def begin_session(request: RunRequest, view: RunView, start: RunStart | None = None) -> RunSession:
    """Begin or continue the run of a request, in this process or by jobs, as its config says."""
    if request.config.execution.submit == "none":
        return RunSession.begin(request, view, start)
    return SubmittedSession.begin(request, view)


@dataclass
class SubmittedSession(RunSession):
    """A run that jobs work on."""

    following: JobRequest | None = None
    """A job in progress that another process has submitted."""
    is_closed: bool = False
    """A job has recorded the end of the run."""

    @classmethod
    def begin(
        cls, request: RunRequest, view: RunView | None = None, start: RunStart | None = None
    ) -> "SubmittedSession":
        """Follow the job of the newest unfinished run of the same request, or continue or start one.

        Nothing is planned here: the sources and the devices that decide are those of the cluster.

        Raises:
            EnvironmentProblem: if the cluster cannot be used, or a job on another one works on that run.
            ConfigError: if nodes cannot reach the store, the code is too large, or a URL holds credentials.
        """
        view, store = view or SilentView(), RunStore(request.store_url)
        request.check_cluster_reaches_store()
        check_no_credentials(request)
        check_access(request.store_url)
        submitter = submitter_of(request)
        unfinished = of_flow_run(store, request) or (None if request.fresh else unfinished_run(store, request))
        job = job_in_progress(submitter.jobs, store, unfinished.run_id) if unfinished else None
        if unfinished and job:
            claim = Claim(store.claims(unfinished.run_id).folder, unfinished.run_id, job.number - 1)
            session = cls(request, unfinished, claim, view, {}, following=job)
            view.logged(f"continues run {session.run_id}, whose job {job.submission_id} is in progress")
        else:
            check_no_job_has(store, unfinished, view.logged, idle=public_url(submitter.jobs.address))
            session = cls(request, *take_over(store, request, unfinished, {}, view.logged), view, {})
        session.submitter = submitter
        session._announce()
        return session

    def __post_init__(self) -> None:
        super().__post_init__()
        self.submitter: JobSubmitter
        self.folder = JobFolder(self.run_store.folder, self.run_id)

    def _own(self, claim: Claim) -> None:
        if self.following is None:
            super()._own(claim)
        else:
            self.claim, self._stop_heartbeat = claim, lambda: None  # type: ignore[assignment]

    def execute(self, stage: Stage) -> StageOutcome:
        """Have a job make or reuse the artifact of one stage."""
        if self._is_done(stage.name):
            return self._recorded(stage)
        if stage not in self.request.planned:
            return self._take(stage)
        if self._is_in_store(stage):
            return super().execute(stage)
        listener = self.view.stage_started(stage.name)
        self._run_job(stage.name, listener)
        return self._recorded(stage)

    def execute_all(self) -> None:
        """Have one job execute all stages and close the run."""
        while not self.is_closed:
            self._run_job(None, _RunListener(self.view))
        for stage in self.stages:
            self._recorded(stage)

    def close(self, status: Literal["finished", "failed", "interrupted"], message: str | None = None) -> None:
        """As in `RunSession`, unless a job has done so."""
        if not self.is_closed:
            super().close(status, message)

    def hand_over(self, stage: str | None) -> JobRequest:
        """Submit a job that takes the run from this process."""
        if self.is_closed:
            self._regain(self.record.claim)
        request = JobRequest(
            run_id=self.run_id, number=self.claim.number + 1, stage=stage,
            address=public_url(self.submitter.jobs.address), versions=own_versions(), run=job_values(self.request),
        )  # fmt: skip
        self.submitter.jobs.wait_until_back(self.view.logged)
        self.claim.check()
        self.folder.write(request)
        labels = {FLOW_RUN: self.request.flow_run} if self.request.flow_run else {}
        self.submitter.submit(request, ENTRY, self.request.store_url, labels)
        self._check_not_cancelled(request.number)
        self.view.logged(f"submitted job {request.submission_id} to {request.address}")
        return request

    def withdraw(self) -> None:
        """Stop the job of a hand-over that broke off, which the cluster may have received all the same.

        Raises:
            EnvironmentProblem: if the cluster does not answer; the job commits nothing then.
            FencedError: if another process took the run over.
        """
        if self.folder.request(self.claim.number + 1) is not None:
            self._stop(RETRY_STOP_SECONDS)

    def _check_not_cancelled(self, number: int) -> None:
        """Stop a job that came too late for the `headrace cancel` which took its number: that one did not see it.

        Raises:
            FencedError: if there was one.
        """
        owner = self.run_store.claims(self.run_id).owner(number)
        if owner and owner.cancels:
            with contextlib.suppress(EnvironmentProblem):
                stop_jobs(self.submitter.jobs, self.run_id, report=self.view.logged, stop_seconds=RETRY_STOP_SECONDS)
            self.claim.check()

    def _run_job(self, stage: str | None, listener: ProgressListener) -> None:
        """Follow a job to its end, and take the run back.

        Raises:
            HeadraceError: the job's error, or that it was stopped.
            JobLostError: if it ended without saying why.
            RuntimeError: a bug in it.
        """
        try:
            job = self.following or self.hand_over(stage)
            end = self._follow(job, listener)
        except FencedError:
            raise
        except ClusterAway:
            self._stop(RETRY_STOP_SECONDS)
            raise
        except BaseException:
            self._stop()
            raise
        self.following = None
        result = self.folder.result(job.number)
        if result is None:
            self._interrupt_if_cancelled()
        self.record = self.run_store.get(self.run_id)
        self.is_closed = self.record.status != "running"
        if not self.is_closed:
            self._regain(job.number)
        if result is None:  # whatever is left of it would be in the way of a retry
            with contextlib.suppress(EnvironmentProblem):
                stop_jobs(self.submitter.jobs, self.run_id, report=self.view.logged, stop_seconds=RETRY_STOP_SECONDS)
        _raise_error(job, end, result)

    def _interrupt_if_cancelled(self) -> None:
        """End as by the signal of `headrace cancel`, which may not have been seen, where a lost job would be retried.

        Raises:
            KeyboardInterrupt: if the run was cancelled.
        """
        claims = self.run_store.claims(self.run_id)
        owner = claims.owner(claims.highest())
        # Its own claim is one of that kind too, where it has stopped an earlier job.
        if owner and owner.cancels and claims.highest() > self.claim.number:
            raise KeyboardInterrupt(f"run {self.run_id} was cancelled by {owner.process}")

    def _follow(self, job: JobRequest, listener: ProgressListener) -> JobEnd:
        log = LogReader(self.run_store.folder, self.run_id, job.number)
        pulse = Pulse(self.run_store.claims(self.run_id).folder, job.number)
        seconds = self.request.config.execution.follow_seconds
        return follow(self.submitter.jobs, job.submission_id, log, pulse, listener.logged, seconds)

    def _regain(self, handed: int) -> None:
        """Own the run after the job that was to take a number; if it did not, the number is used up here."""
        highest = min(self.run_store.claims(self.run_id).highest(), handed)
        self.record, claim = self.run_store.accept(self.run_id, highest + 1)
        self.following, self.is_closed = None, False
        self._stop_heartbeat()
        self._own(claim)

    def _stop(self, seconds: float = STOP_SECONDS) -> None:
        """Fence the job, then stop it, verified."""
        self.following = None
        try:
            self.record, claim = self.run_store.fence(self.run_id)
            self._stop_heartbeat()
            self._own(claim)
        finally:
            stop_jobs(self.submitter.jobs, self.run_id, report=self.view.logged, stop_seconds=seconds)

    def _is_done(self, stage: str) -> bool:
        """Whether a job did it before the one in progress, or a job did all."""
        if self.is_closed and self.record.status == "finished":
            return True
        names = [planned.name for planned in self.stages]
        job = self.following
        return job is not None and job.stage is not None and names.index(stage) < names.index(job.stage)

    def _is_in_store(self, stage: Stage) -> bool:
        """Whether a stage can be reused without a job: whatever the machine, its inputs are in the store.

        The job of the first stage has planned the run: it has seen the sources and resolved the precision.
        """
        if self.following or self.is_closed or stage == self.request.planned[0]:
            return False
        try:
            decision = self.decide(stage)
        except Exception:
            return False  # a job decides again, and reports it
        return decision.action == "reuse" and not decision.sources.fingerprints

    def _recorded(self, stage: Stage) -> StageOutcome:
        outcome = self.record.stages[stage.name]
        artifact = self.store.find_equal(outcome.artifact)
        if artifact is not None:
            self.artifacts[stage.name] = artifact
        self.view.stage_finished(stage.name, outcome)
        return outcome


def submitter_of(request: RunRequest) -> JobSubmitter:
    """The connection that a config describes."""
    execution = request.config.execution
    return JobSubmitter(
        execution.address, execution.working_dir, execution.python, execution.driver_cpus, execution.driver_gpus
    )


def _raise_error(job: JobRequest, end: JobEnd, result: JobResult | None) -> None:
    name, where = job.stage or "the run", f"its log: headrace logs {job.run_id}"
    if result is None and end.status != "STOPPED":
        reason = end.message.splitlines()[0] if end.message else end.status
        raise JobLostError(f"{name}: job {job.submission_id} ended without a word ({reason:.300}); {where}")
    if result is None or result.status == "interrupted":
        raise EnvironmentProblem(
            f"{name}: job {job.submission_id} was stopped; finished work is kept, the same command resumes it; {where}"
        )
    if result.status == "failed":
        known = getattr(data_schemas.errors, result.error, None)
        if isinstance(known, type) and issubclass(known, HeadraceError):
            raise known(result.message)
        raise RuntimeError(f"{name} failed in job {job.submission_id}: {result.message}; {where}")


class _RunListener:
    """Passes the text of a job to the view of a run."""

    def __init__(self, view: RunView) -> None:
        self._view = view

    def advanced(self, phase: str, done: float, total: float, note: str) -> None:
        """A job prints its progress as text."""

    def logged(self, message: str) -> None:
        """A line of the job."""
        self._view.logged(message)

    def measured(self, phase: str, figures: Mapping[str, float]) -> None:
        """A job publishes its figures itself."""
