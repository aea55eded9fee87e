"""Reruns as flows, so that they can be deployed, scheduled and retried: any stage of a run, and one flow per stage."""

from prefect import Flow, flow

from flows.config.run_config import recorded_config
from flows.jobs.cancelling import stop_jobs_of_flow_run
from flows.pipeline import run_deployed
from flows.prefect_server.flow_runs import base_of
from flows.runs.request import rerun_request
from flows.store_location import store_url
from stages.registry import STAGES, StageName
from stages.stage import Stage


@flow(
    name="headrace-rerun",
    flow_run_name="headrace-rerun {stage} of {run}",
    persist_result=False,
    on_cancellation=[stop_jobs_of_flow_run],
    on_crashed=[stop_jobs_of_flow_run],
)
def rerun(
    stage: StageName,
    run: str = "latest",
    set: tuple[str, ...] = (),
    onwards: bool = False,
    only: bool = False,
    until: StageName | None = None,
    store: str | None = None,
    fresh: bool = False,
    keep_versions: bool = False,
) -> str:
    """Run a stage again, with the inputs that a run used; the stages after it follow if its bytes changed.

    Args:
        stage: the stage to run again.
        run: id of the run whose inputs are used, or a unique prefix of it, or `latest`.
        set: changed settings, each KEY=VALUE as on the command line, such as compress.seed=5.
        onwards: run all stages after it again too, as `--from` does.
        only: do not run the stages that depend on it.
        until: name of the last stage to run; the run's last by default.
        store: URL of the artifact store; HEADRACE_HOME by default.
        fresh: do not continue an unfinished rerun with the same settings.
        keep_versions: reuse artifacts that other versions of packages made.

    Returns:
        Id of the new run.
    """
    url = store_url(store)
    base = base_of(url, run)
    config = recorded_config(base, set)
    request = rerun_request(url, base, config, stage, only, fresh, onwards, keep_versions, until)
    return run_deployed(request)


def stage_flow(stage: Stage) -> Flow[..., str]:
    """A flow that runs `stage` again with the inputs that a run used."""

    def rerun_stage(
        config: stage.Config | None = None,  # type: ignore[name-defined]
        run: str = "latest",
        store: str | None = None,
        only: bool = True,
        fresh: bool = False,
    ) -> str:
        url = store_url(store)
        base = base_of(url, run)
        run_config = recorded_config(base)
        if config is not None:
            run_config = run_config.model_copy(update={stage.name: config})
        return run_deployed(rerun_request(url, base, run_config, stage.name, only, fresh))

    rerun_stage.__doc__ = f"""Run {stage.name} again, with the inputs that a run used.

    Args:
        config: the stage's settings; those of the run by default.
        run: id of the run whose inputs are used.
        store: URL of the artifact store; HEADRACE_HOME by default.
        only: do not run the stages that depend on it.
        fresh: do not continue an unfinished rerun with the same settings.
    """
    rerun_stage.__annotations__["config"] = stage.Config | None
    return flow(
        name=f"headrace-{stage.name}",
        persist_result=False,
        on_cancellation=[stop_jobs_of_flow_run],
        on_crashed=[stop_jobs_of_flow_run],
    )(rerun_stage)


(
    ingest_flow,
    clean_flow,
    dedup_flow,
    synthesize_flow,
    profile_flow,
    tokenize_flow,
    pretrain_flow,
    compress_flow,
    benchmark_flow,
) = map(stage_flow, STAGES)
