"""Panel Run: `run`, `rerun`, `params`, `sweep`."""

from typing import Annotated, Any

import typer

from flows.commands.panels.command import (
    AsJson,
    ConfigPath,
    Fresh,
    KeepVersions,
    Overrides,
    Store,
    Until,
    command,
    complete_runs,
    complete_stages,
    print_json,
)
from flows.store_location import store_url

PANEL = "Run"
On = Annotated[
    str | None,
    typer.Option("--on", metavar="ray|here", help="as jobs on the cluster at execution.address, or in this process"),
]
app = typer.Typer()


@command(
    app, PANEL, "headrace run configs/demo.yaml", "headrace run my.yaml --set compress.passes.0.sparsity=0.7",
    "headrace run my.yaml --until pretrain", "headrace run my.yaml --on ray",
)  # fmt: skip
def run(
    config: ConfigPath,
    set_: Overrides = None,
    until: Until = None,
    fresh: Fresh = False,
    keep_versions: KeepVersions = False,
    on: On = None,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Run a config; resumes its unfinished run, reuses stages.

    A stage runs if its version, its config or the content of its inputs changed. Ends with a summary and the path
    of the report.
    """
    from flows.config.run_config import load_run_config
    from flows.runs.request import RunRequest

    run_config = _placed(load_run_config(config, set_ or []), on)
    _execute(
        RunRequest(run_config, store_url(store), last_stage=until, fresh=fresh, keep_versions=keep_versions), as_json
    )


@command(
    app, PANEL, "headrace rerun compress --set compress.passes.0.sparsity=0.7",
    "headrace rerun benchmark --run quiet-otter-3f9a --only", "headrace rerun --from tokenize",
)  # fmt: skip
def rerun(
    stage: Annotated[
        str | None, typer.Argument(metavar="STAGE", help="the stage to run again", autocompletion=complete_stages)
    ] = None,
    run_id: Annotated[
        str,
        typer.Option("--run", metavar="RUN_ID", help="the run whose inputs are used", autocompletion=complete_runs),
    ] = "latest",
    set_: Overrides = None,
    from_: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="STAGE", help="run this stage and all after it again", autocompletion=complete_stages
        ),
    ] = None,
    only: Annotated[
        bool, typer.Option("--only", metavar="", help="run this stage only, not those that depend on it")
    ] = False,
    until: Until = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", metavar="", help="do not resume an unfinished rerun of this stage")
    ] = False,
    keep_versions: KeepVersions = False,
    on: On = None,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Run one stage of a run again, on the artifacts it used.

    The stages before it are those of the run, whatever happened to their sources since. The stages after it, up to the
    run's last or that of --until, follow if its bytes changed.
    """
    from data_schemas.errors import ConfigError
    from flows.config.run_config import recorded_config
    from flows.runs.request import rerun_request
    from infra.store.runs import RunStore
    from stages.registry import stage_named

    url = store_url(store)
    if (stage is None) == (from_ is None) or (only and from_):
        raise ConfigError("rerun needs STAGE, with --only for this stage alone, or --from STAGE for all from it on")
    first = stage_named(stage or from_ or "").name
    base = RunStore(url).get(run_id)
    config = _placed(recorded_config(base, set_ or []), on)
    _execute(rerun_request(url, base, config, first, only, fresh, from_ is not None, keep_versions, until), as_json)


@command(
    app, PANEL, "prefect deployment run headrace/pipeline --params \"$(headrace params configs/demo.yaml)\""
)  # fmt: skip
def params(
    config: ConfigPath,
    set_: Overrides = None,
    until: Until = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", metavar="", help="do not resume an unfinished run of this config")
    ] = False,
) -> None:
    """Print a config as parameters of a deployment.

    For the Prefect deployment headrace/pipeline. The store is that of the worker that runs it.
    """
    from data_schemas.errors import ConfigError
    from flows.config.run_config import load_run_config, public_config
    from stages.registry import stage_named

    run_config = load_run_config(config, set_ or [])
    if public_config(run_config) != run_config:
        raise ConfigError(
            f"{config} holds a URL with a password or a signature, which Prefect would store; give the workers the "
            "credentials by their environment, and the config the URL alone"
        )
    values = {
        "config": run_config.model_dump(mode="json", exclude_unset=True),
        "until": until and stage_named(until).name,
        "fresh": fresh,
    }
    print_json({name: value for name, value in values.items() if value})


@command(
    app, PANEL, "headrace sweep configs/demo.yaml configs/recipes/frontier.yaml",
    "headrace sweep latest configs/recipes/frontier.yaml",
    "headrace sweep configs/demo.yaml configs/experiments/synthetic.yaml",
    "headrace sweep configs/scaling.yaml --budget 5e13", "headrace sweep my.yaml --budget 24h --cluster 8xH100",
)  # fmt: skip
def sweep(
    source: Annotated[
        str,
        typer.Argument(
            metavar="CONFIG|RUN_ID", help="a run config, or a run whose model is compressed",
            autocompletion=complete_runs,
        ),
    ],
    recipes: Annotated[
        str | None,
        typer.Argument(metavar="RECIPES|EXPERIMENT", help="a file of configs/recipes/ or configs/experiments/; "
                       "by default experiments/NAME.yaml beside the config"),
    ] = None,
    budget: Annotated[
        list[str] | None,
        typer.Option(
            "--budget", metavar="FLOPS|TIME", help="what to train with it, by a scaling law: 1e15, or 10h on this "
            "machine; may be repeated",
        ),
    ] = None,
    cluster: Annotated[
        str | None,
        typer.Option(
            "--cluster", metavar="NAME|FILE", help="with --budget: the cluster that it is spent on, such as 64xH100 or "
            "a YAML file; then 24h, or $500 at its price",
        ),
    ] = None,
    set_: Overrides = None,
    store: Store = None,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Compare recipes or variants, or fit a scaling law.

    Marks the Pareto frontier of recipes; variants of an experiment are compared with its baseline, seed by seed, or a
    scaling law is fitted to them. What the store already holds is reused.
    """
    from data_schemas.errors import ConfigError
    from flows.commands.experiment import experiment_json, print_experiment, run_experiment
    from flows.prefect_server.process import launch

    launch()
    from flows.commands.sweep import LAST_STAGE, print_sweep, sweep_json
    from flows.commands.sweep import sweep as run_sweep
    from flows.config.experiments import experiment_beside, read_experiment
    from flows.config.recipes import read_recipes
    from flows.config.run_config import load_run_config, recorded_config
    from flows.console import run_view
    from flows.planning.stage_order import stages_until
    from flows.runs.artifacts import report_location
    from infra.store.runs import RunStore
    from stages.registry import STAGES

    recipes = recipes or experiment_beside(source)
    url, experiment = store_url(store), read_experiment(recipes)
    if budget and (experiment is None or experiment.scaling is None):
        raise ConfigError(f"--budget is answered by a scaling law, and {recipes} has no section scaling")
    if cluster is not None and not budget:
        raise ConfigError("--cluster is where a budget is spent; add --budget, such as --budget 24h")
    recipes_by_name = {} if experiment else read_recipes(recipes)
    base = None
    if source.endswith((".yaml", ".yml")):
        run_config = load_run_config(source, set_ or [])
    else:
        base = RunStore(url).get(source)
        run_config = recorded_config(base, set_ or [])
    if experiment and experiment.scaling:
        _scaling(run_config, experiment, budget or [], cluster, url, as_json)
        return
    if experiment:
        with run_view([stage.name for stage in STAGES]) as view:
            measured = run_experiment(run_config, experiment, url, view)
        print_experiment(measured, experiment)
        if as_json:
            print_json(experiment_json(measured, experiment))
        return
    with run_view([stage.name for stage in stages_until(run_config.stages, LAST_STAGE)]) as view:
        results = run_sweep(run_config, recipes_by_name, url, view, base)
    print_sweep(results)
    last = next((result.run_id for result in reversed(results) if result.run_id), None)
    if last:
        typer.echo(f"report with all recipes: {report_location(url, RunStore(url).get(last))}")
    if as_json:
        print_json(sweep_json(results))


def _scaling(
    run_config: Any, experiment: Any, budgets: list[str], cluster: str | None, url: str, as_json: bool
) -> None:  # fmt: skip
    from flows.commands.scaling import (
        answers_of,
        check_budgets,
        print_answers,
        print_scaling,
        run_scaling,
        scaling_json,
    )
    from flows.console import run_view
    from infra.planner.clusters import read_cluster
    from stages.registry import STAGES

    spent_on = read_cluster(cluster) if cluster is not None else None
    check_budgets(run_config, experiment, budgets, url, spent_on)  # before hours of training
    with run_view([stage.name for stage in STAGES]) as view:
        result = run_scaling(run_config, experiment, url, view)
    print_scaling(result)
    answers: list[Any] = []
    for budget in budgets:
        answers += answers_of(result, [budget], url, spent_on)
        print_answers(answers[-1:])
    if as_json:
        print_json(scaling_json(result, answers))


def _placed(config: Any, on: str | None) -> Any:
    """The config with the driver where `--on` says."""
    from data_schemas.errors import ConfigError

    if on not in (None, "ray", "here"):
        raise ConfigError(f"--on is {on!r}; expected ray or here")
    submit = config.execution.submit
    if on == "here" or (on == "ray" and submit == "none"):
        submit = {"here": "none", "ray": "stage"}[on]
    return config.model_copy(update={"execution": config.execution.model_copy(update={"submit": submit})})


def _execute(request: Any, as_json: bool) -> None:
    from flows.prefect_server.process import launch
    from flows.reused_run import can_do_without_engine, has_finished, reuse_all

    if not has_finished(request):
        launch()  # it starts while the rest is imported and planned
    request.check_usable()
    from flows.runs.earlier import check_not_left_to_job

    check_not_left_to_job(request)
    from flows.commands.show import run_json
    from flows.commands.summary import print_summary
    from flows.console import run_view
    from flows.runs.start import RunStart
    from infra.store.runs import RunStore

    start = RunStart.of(request) if request.config.execution.submit == "none" else None
    with run_view([stage.name for stage in request.stages]) as view:
        run_id = None
        if start and can_do_without_engine(request, start):
            run_id, start = reuse_all(request, view, start), None
        if run_id is None:
            launch()
            from flows.pipeline import execute_request

            run_id = execute_request(request, view, start)
    record = RunStore(request.store_url).get(run_id)
    print_summary(request.store_url, record)
    if as_json:
        print_json(run_json(request.store_url, record))
