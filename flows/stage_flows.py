"""One flow per stage, so that each can be deployed, scheduled and rerun by itself."""

from prefect import Flow, flow

from flows.pipeline import LoggerView, run_stages
from flows.run_config import recorded_config
from flows.run_request import rerun_request
from flows.run_session import RunSession
from flows.store_location import store_url
from infra.store.runs import RunStore
from stages.registry import STAGES
from stages.stage import Stage


def stage_flow(stage: Stage) -> Flow[..., str]:
    """A flow that runs `stage` again with the inputs that a run used."""

    def rerun(
        config: stage.Config | None = None,  # type: ignore[name-defined]
        run: str = "latest",
        store: str | None = None,
        only: bool = True,
        fresh: bool = False,
    ) -> str:
        url = store_url(store)
        base = RunStore(url).get(run)
        run_config = recorded_config(base)
        if config is not None:
            run_config = run_config.model_copy(update={stage.name: config})
        request = rerun_request(url, base, run_config, stage.name, only, fresh)
        return run_stages(RunSession.begin(request, LoggerView()))

    rerun.__doc__ = f"""Run {stage.name} again, with the inputs that a run used.

    Args:
        config: the stage's settings; those of the run by default.
        run: id of the run whose inputs are used.
        store: URL of the artifact store; HEADRACE_HOME by default.
        only: do not run the stages that depend on it.
        fresh: do not continue an unfinished rerun with the same settings.
    """
    rerun.__annotations__["config"] = stage.Config | None
    return flow(name=f"headrace-{stage.name}", persist_result=False)(rerun)


ingest_flow, clean_flow, dedup_flow, tokenize_flow, pretrain_flow, compress_flow, benchmark_flow = map(
    stage_flow, STAGES
)
