"""One generic Prefect task for any stage: name, retries, timeout, final markdown artifact, state `Cached`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from prefect import Task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.exceptions import ExternalSignal, PrefectSignal
from prefect.states import Completed
from prefect.task_engine import TaskRunTimeoutError

from data_schemas.errors import HeadraceError, JobLostError, StoreUnavailable
from data_schemas.manifest import StageOutcome
from flows.jobs.submitted import SubmittedSession
from flows.prefect_server.connection import api_url
from flows.runs.session import RunSession
from flows.runs.stage_time import time_is_over
from infra.named_errors import named_errors
from infra.store.artifacts import Artifact
from stages.stage import Stage

RETRY_DELAYS_SECONDS = [2.0, 15.0]


def stage_task(stage: Stage, session: RunSession) -> Task[[], Any]:
    """The task that executes `stage` within `session`.

    Errors that a retry cannot fix (config, contract, damage, a full disk: every `HeadraceError`) are not retried,
    except that a store did not answer.
    """

    def run() -> State[StageOutcome]:
        with named_errors(session.request.store_url, interrupts=(PrefectSignal, ExternalSignal, TaskRunTimeoutError)):
            outcome = session.execute(stage)
        artifact = session.artifacts.get(stage.name)
        # An ephemeral server ends with the run: its pages could not be read.
        if artifact and api_url():
            create_markdown_artifact(
                key=f"headrace-{stage.name}",
                markdown=stage_markdown(outcome, artifact),
                description=f"{stage.name} of run {session.run_id}",
            )
        name = "Cached" if outcome.action == "reuse" else "Completed"
        return Completed(name=name, message=outcome.why, data=outcome)

    seconds = session.request.config.stage_config(stage.name).timeout_seconds
    return _task(run, stage.name, (type(stage).__doc__ or stage.name).strip(), session, seconds)


def run_task(session: SubmittedSession) -> Task[[], Any]:
    """The task that has one job execute all stages of `session`."""

    def run() -> None:
        with named_errors(session.request.store_url, interrupts=(PrefectSignal, ExternalSignal)):
            session.execute_all()

    return _task(run, "run", "All stages, in one job on a Ray cluster.", session)


def _task(
    run: Callable[[], Any], name: str, description: str, session: RunSession, seconds: float | None = None
) -> Task[[], Any]:
    return Task(
        run,
        name=name,
        task_run_name=f"{name} ({session.run_id})",
        description=description,
        # On a temporary server nobody sees or limits them; asking for such a limit is a task's only request there, and
        # SQLite refuses one in ten, which Prefect repeats after two seconds.
        tags={"headrace", name} if api_url() else None,
        cache_policy=NO_CACHE,
        retries=len(RETRY_DELAYS_SECONDS),
        retry_delay_seconds=RETRY_DELAYS_SECONDS,
        retry_condition_fn=is_worth_retrying,
        timeout_seconds=seconds,
        persist_result=False,
        log_prints=False,
    )


def is_worth_retrying(task: Any, task_run: Any, state: State[Any]) -> bool:
    """False for errors that the user has to fix first, and for a timeout, which would be exceeded again."""
    error = state.data
    if isinstance(error, StoreUnavailable | JobLostError):
        return True
    return not isinstance(error, HeadraceError | TaskRunTimeoutError)


@contextmanager
def exceeded_time_named(stage: str, session: RunSession) -> Iterator[None]:
    """Translate the error of a stage's task whose time is over.

    Raises:
        EnvironmentProblem: instead of it.
    """
    try:
        yield
    except TaskRunTimeoutError as error:
        raise time_is_over(stage, session.request.config.stage_config(stage).timeout_seconds or 0) from error


def stage_markdown(outcome: StageOutcome, artifact: Artifact) -> str:
    """Outcome and costs of the stage as a markdown table."""
    manifest = artifact.manifest
    rows = {
        "action": f"{outcome.action}: {outcome.why}",
        "artifact": f"`{artifact.ref.label}`",
        "folder": f"`{artifact.folder.full(artifact.ref.attempt)}`",
        "seconds": f"{manifest.seconds:.1f}",
        "seconds planned": f"{manifest.estimate.seconds:.1f}" if manifest.estimate else "",
        "peak memory": f"{manifest.peak_memory_bytes / 2**20:,.0f} MiB",
        **{name.replace("_", " "): f"{amount:,}" for name, amount in manifest.counts.items()},
    }
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    return f"### {manifest.stage}\n\n| | |\n|---|---|\n{table}\n"
